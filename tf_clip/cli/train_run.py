"""What `tf-clip train` does: read pairs, train by a recipe, evaluate after each epoch, save."""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras

from tf_clip.adapters.config import LoRAConfig
from tf_clip.adapters.named_configs import as_config
from tf_clip.checkpoints.source import Checkpoint
from tf_clip.cli import tables
from tf_clip.cli.arguments import EXIT_DONE, EXIT_INTERRUPTED, EXIT_SOME_SKIPPED
from tf_clip.cli.train_data import read, sides
from tf_clip.cli.train_options import (
    FIT_DEFAULTS,
    RUN_FILE,
    as_toml,
    compared_options,
    require_same_run,
    run_options,
)
from tf_clip.cli.train_probe import train_probe
from tf_clip.cli.train_progress import TrainingDisplay
from tf_clip.data.augmentation import Augmentation
from tf_clip.data.pairs import Pairs
from tf_clip.data.skipped import SkippedExample, TooManySkipped, listed
from tf_clip.data.training_data import TrainingData
from tf_clip.files import write_text
from tf_clip.losses import ContrastiveLoss, SigmoidLoss
from tf_clip.models.load import load_model, load_processor, open_checkpoint
from tf_clip.models.two_towers import TwoTowerModel
from tf_clip.preprocessing.processor import Processor
from tf_clip.training.callbacks import (
    RetrievalRecall,
    StopAtNonFiniteLoss,
    TrainingLog,
    ZeroShotAccuracy,
    evaluated_weights,
)
from tf_clip.training.recipes import ADAPTER, RECIPES, Recipe
from tf_clip.training.resume import STATE_FILE
from tf_clip.training.tensorboard import PairsInTensorBoard
from tf_clip.training.trainer import train as fit
from tf_clip.training.validation import images_and_captions
from tf_clip.training.wise_ft import interpolate_weights

LOG_FILE, SKIPPED_FILE, ADAPTER_FOLDER = "log.jsonl", "skipped.jsonl", "adapter"
_AUGMENTATIONS: dict[str, dict[str, Any]] = {
    "crop": {},
    "strong": {
        "scale": (0.4, 1.0),
        "color_jitter": (0.32, 0.32, 0.32, 0.08),
        "color_jitter_prob": 0.8,
        "gray_scale_prob": 0.2,
    },
}


def run(options: argparse.Namespace) -> int:
    """Trains as the options say."""
    for name in ("data", "output"):
        if getattr(options, name) is None:
            raise ValueError(f"`--{name}` must be given. Received: none. See `tf-clip train --help`.")
    chosen = run_options(options)
    _prepare_output(options)
    if options.resume:
        require_same_run(chosen, options.output)
    if options.recipe == "probe":
        given = sorted(name for name in FIT_DEFAULTS if getattr(options, name) is not None)
        if given or options.resume:
            names = ", ".join("--" + name.replace("_", "-") for name in given or ["resume"])
            raise ValueError(f"`--recipe probe` must not come with {names}: it fits once. Leave that out.")
        return _report_skipped(options.output, train_probe(options))
    for name, default in FIT_DEFAULTS.items():
        if getattr(options, name) is None:
            setattr(options, name, default)
    return _fit(options, chosen)


def _fit(options: argparse.Namespace, chosen: dict[str, Any]) -> int:
    recipe, augment = _recipe(options), _augmentation(options)
    with tables.status(f"Loading {options.model}"):
        checkpoint = open_checkpoint(options.model)
        processor = load_processor(checkpoint)
        keras.utils.set_random_seed(options.seed)
        model = load_model(checkpoint, dtype=options.dtype, gradient_checkpointing=options.gradient_checkpointing)
    training, validation = sides(options, read(options, options.data))
    data = TrainingData(
        training,
        processor,
        batch_size=options.batch_size,
        augment=augment,
        seed=options.seed,
        max_skipped_share=options.max_skipped_share,
        max_length=options.max_length,
    )
    loss = {"softmax": ContrastiveLoss, "sigmoid": SigmoidLoss}[options.loss](
        label_smoothing=options.label_smoothing, chunk_size=options.encode_chunk_size
    )
    recipe.compile(model, options.epochs * data.steps_per_epoch, loss=loss, encode_chunk_size=options.encode_chunk_size)
    callbacks, skipped = _evaluation(options, processor, validation)
    callbacks += [
        TrainingLog(options.output / LOG_FILE),
        StopAtNonFiniteLoss(options.output, data),
        TrainingDisplay(options.batch_size),
    ]
    write_text(options.output / RUN_FILE, as_toml(chosen))
    try:
        result = fit(
            model,
            data,
            epochs=options.epochs,
            folder=options.output,
            save_every=options.save_every,
            resume=options.resume,
            callbacks=callbacks,
            settings=compared_options(chosen),
        )
    except TooManySkipped as error:
        _report_skipped(options.output, error.skipped)
        raise
    if not result.finished:
        _report_skipped(options.output, [*data.skipped, *skipped()])
        command = shlex.join(["tf-clip", "train", "--output", str(options.output), "--resume"])
        tables.warn(f"Stopped after batch {result.progress.batch} of epoch {result.progress.epoch + 1}, and saved.")
        tables.say(f"Go on with: {command}")
        return EXIT_INTERRUPTED
    _save(options, model, processor, checkpoint)
    tables.show_facts({"model": str(options.output), "log": str(options.output / LOG_FILE)})
    return _report_skipped(options.output, [*data.skipped, *skipped()])


def _save(options: argparse.Namespace, model: TwoTowerModel, processor: Processor, start: Checkpoint) -> None:
    with evaluated_weights(model):
        result = model
        if ADAPTER in model.adapters.state.configs:
            model.save_adapter(options.output / ADAPTER_FOLDER, ADAPTER)
            model.merge_adapter(ADAPTER)
        if options.wise_ft is not None:
            result = interpolate_weights(load_model(start), model, options.wise_ft)
        result.save_pretrained(options.output)
    processor.save_pretrained(options.output)


def _recipe(options: argparse.Namespace) -> Recipe:
    changes: dict[str, Any] = {
        "learning_rate": options.learning_rate,
        "weight_decay": options.weight_decay,
        "warmup_steps": options.warmup_steps,
        "layer_decay": options.layer_decay,
        "gradient_accumulation_steps": options.accumulate,
        "ema_momentum": options.ema,
    }
    if options.adapter is not None:
        _require_mergeable(options)
        changes["adapter"] = options.adapter
    changes = {name: value for name, value in changes.items() if value is not None}
    if options.clip_norm is not None:
        changes["global_clipnorm"] = options.clip_norm or None  # 0 means no limit
    recipe = RECIPES[options.recipe](**changes)
    if options.wise_ft is not None and not 0.0 <= options.wise_ft <= 1.0:
        raise ValueError(f"`--wise-ft` must be from 0 to 1. Received: {options.wise_ft}. Take 0.5 to begin with.")
    return recipe


def _require_mergeable(options: argparse.Namespace) -> None:
    """Checks that the adapter can be merged into the model: the folder of a run holds a whole model."""
    if options.recipe != "lora":
        raise ValueError(
            f"`--adapter` must come with `--recipe lora`. Received: --recipe {options.recipe}. Leave one of them out."
        )
    config = as_config(options.adapter)
    if not isinstance(config, LoRAConfig) or not config.is_mergeable:
        raise ValueError(
            "`--adapter` must be one that can be merged: a form of lora, dora, vera or ia3, without gates. "
            f"Received: {options.adapter}. Train others in Python: docs/adapters.md."
        )


def _augmentation(options: argparse.Namespace) -> Augmentation | None:
    if options.augment == "none":
        if options.flip:
            raise ValueError("`--flip` must not come with `--augment none`. Received: both. Leave one of them out.")
        return None
    return Augmentation(flip_prob=0.5 if options.flip else 0.0, **_AUGMENTATIONS[options.augment])


def _evaluation(
    options: argparse.Namespace, processor: Processor, validation: Pairs | None
) -> tuple[list[keras.callbacks.Callback], Callable[[], list[SkippedExample]]]:
    """Returns the callbacks that evaluate after each epoch, and a function to the examples that they skipped."""
    if validation is None:
        if options.tensorboard:
            raise ValueError("`--tensorboard` must have validation pairs to show. Received: none. Keep some back.")
        return [], list
    with tables.status("Reading validation pairs"):
        images, captions, unreadable = images_and_captions(validation)
    evaluation: RetrievalRecall | ZeroShotAccuracy
    if Path(options.validation_data or options.data).is_dir():
        # Images of one class have the same captions: the class can be evaluated, the caption cannot.
        names = sorted({group[0] for group in captions})
        targets = [names.index(group[0]) for group in captions]
        evaluation = ZeroShotAccuracy(processor, images, targets, names, batch_size=options.batch_size)
    else:
        evaluation = RetrievalRecall(processor, images, captions, options.batch_size)

    def skipped() -> list[SkippedExample]:
        return unreadable + [
            SkippedExample(images.where(index), reason) for index, reason in evaluation.failures.items()
        ]

    if options.tensorboard:
        return [evaluation, PairsInTensorBoard(options.tensorboard, processor, images, captions)], skipped
    return [evaluation], skipped


def _prepare_output(options: argparse.Namespace) -> None:
    folder: Path = options.output
    if folder.exists() and (folder.is_file() or any(folder.iterdir())):
        if folder.is_file() or not (options.resume or options.overwrite):
            resumable = " --resume goes on with the run in it," if (folder / STATE_FILE).is_file() else ""
            raise ValueError(
                f"`--output` must be new or an empty folder. Received: {folder}.{resumable} --overwrite starts anew; "
                "or choose another."
            )
        if options.overwrite and options.resume:
            raise ValueError("`--overwrite` must not come with `--resume`. Received: both. Leave one of them out.")
        if options.overwrite:
            for name in (STATE_FILE, RUN_FILE, LOG_FILE, SKIPPED_FILE):
                (folder / name).unlink(missing_ok=True)
            shutil.rmtree(folder / ADAPTER_FOLDER, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)


def _report_skipped(folder: Path, skipped: Sequence[SkippedExample]) -> int:
    """Lists all examples that were skipped, also before the run was resumed, and returns the exit status."""
    path = folder / SKIPPED_FILE
    before = (
        [SkippedExample(*json.loads(line)) for line in path.read_text("utf-8").splitlines()] if path.is_file() else []
    )
    every = list(dict.fromkeys([*before, *skipped]))
    if not every:
        return EXIT_DONE
    write_text(path, "".join(json.dumps(row) + "\n" for row in every))
    tables.warn(f"{len(every)} unreadable examples were skipped:\n{listed(every)}")
    return EXIT_SOME_SKIPPED
