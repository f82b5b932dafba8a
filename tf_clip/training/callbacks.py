"""Callbacks for `fit` and `train`: what a validation set says, a stop at NaN, a log, images for TensorBoard."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from tf_clip.evaluation.retrieval import retrieval_report
from tf_clip.evaluation.zero_shot import zero_shot_classifier
from tf_clip.files import write_text
from tf_clip.tasks.embedding import embed_images, embed_texts
from tf_clip.training.optimizers import averaged_weights, plain_optimizer


class NonFiniteLossError(ArithmeticError):
    """The loss became NaN or infinite."""


class RetrievalRecall(keras.callbacks.Callback):
    """After each epoch, adds to its logs how well validation images and captions find each other.

    `val_loss` is the mean over batches of images and the first of their captions; `val_image_to_text_R@1` and
    so on, for 5, 10 and the other direction, compare all images with all captions. Weights that the optimizer
    averages are evaluated as their average.

    Args:
        processor: the model's processor.
        images: images as `embed_images` takes them; unreadable ones are left out.
        captions: the captions of each image.
        batch_size: images a forward pass, and pairs a batch for the loss.

    Attributes:
        failures: from the index of each unreadable image to the reason.

    Raises:
        ValueError: images and captions differ in number, or there are none.
    """

    def __init__(
        self, processor: Any, images: Sequence[Any], captions: Sequence[Sequence[str]], batch_size: int = 64
    ) -> None:
        super().__init__()
        require_one_each("captions", captions, images)
        self._processor, self._images, self._captions, self._batch_size = processor, images, captions, batch_size
        self.failures: dict[int, str] = {}

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Evaluates."""
        model = self.model
        with evaluated_weights(model):
            images = embed_images(
                model, self._processor, self._images, batch_size=self._batch_size, skip_unreadable=True
            )
            captions = [self._captions[index] for index in images.indices]
            texts = embed_texts(model, self._processor, [text for group in captions for text in group])
            owners = np.repeat(np.arange(len(captions)), [len(group) for group in captions])
            firsts = texts[np.searchsorted(owners, np.arange(len(captions)))]
            loss = _mean_loss(model, firsts, images.embeds, self._batch_size)
        self.failures = dict(images.failures)
        report = retrieval_report(images.embeds, texts, owners)
        found = {"val_loss": loss}
        for direction in ("image_to_text", "text_to_image"):
            metrics = getattr(report, direction)
            found |= {f"val_{direction}_{name}": metrics[name] for name in ("R@1", "R@5", "R@10")}
        if logs is not None:
            logs.update(found)


class ZeroShotAccuracy(keras.callbacks.Callback):
    """After each epoch, adds `val_zero_shot_top1` and `val_zero_shot_top5` to its logs.

    Args:
        processor: the model's processor.
        images: images as `embed_images` takes them; unreadable ones are left out.
        targets: the index of each image's class.
        class_names: the classes' names.
        templates: prompts with `{}` where the name goes, or the name of a set of `template_set`.
        batch_size: images a forward pass.

    Attributes:
        failures: from the index of each unreadable image to the reason.

    Raises:
        ValueError: images and targets differ in number, or there are none.
    """

    def __init__(
        self,
        processor: Any,
        images: Sequence[Any],
        targets: Sequence[int],
        class_names: Sequence[str],
        templates: str | Sequence[str] = ("{}",),
        batch_size: int = 32,
    ) -> None:
        super().__init__()
        require_one_each("targets", targets, images)
        self._processor, self._images, self._targets = processor, images, np.asarray(targets)
        self._class_names, self._templates, self._batch_size = class_names, templates, batch_size
        self.failures: dict[int, str] = {}

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Evaluates."""
        model = self.model
        with evaluated_weights(model):
            classifier = zero_shot_classifier(model, self._processor, self._class_names, self._templates)
            images = embed_images(
                model, self._processor, self._images, batch_size=self._batch_size, skip_unreadable=True
            )
        self.failures = dict(images.failures)
        report = classifier.report(images.embeds, self._targets[images.indices])
        if logs is not None:
            logs.update(val_zero_shot_top1=report.top1, val_zero_shot_top5=report.top5)


class StopAtNonFiniteLoss(keras.callbacks.Callback):
    """Ends training when the loss is NaN or infinite, and saves the batch.

    Args:
        folder: where `nonfinite_epoch<n>_batch<m>.npz` is written: the batch, by the names of its inputs, and
            the batch before, by the same names after `previous_`, since its step may have broken the weights.
        data: what `train` is given; asked for the batch again.

    Raises:
        NonFiniteLossError: while training; it says where the batch is.
    """

    def __init__(self, folder: str | os.PathLike[str], data: Any) -> None:
        super().__init__()
        self._folder, self._data = Path(folder), data
        self._epoch = 0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Notes the epoch."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Looks at the loss."""
        loss = float((logs or {}).get("loss", 0.0))
        if math.isfinite(loss):
            return
        first = max(batch - 1, 0)
        arrays: dict[str, np.ndarray] = {}
        for index, inputs in zip(
            range(first, batch + 1), self._data.dataset(epoch=self._epoch, start=first), strict=False
        ):
            prefix = "" if index == batch else "previous_"
            arrays |= {prefix + name: np.asarray(values) for name, values in inputs.items()}
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"nonfinite_epoch{self._epoch + 1}_batch{batch + 1}.npz"
        np.savez_compressed(path, allow_pickle=False, **arrays)
        raise NonFiniteLossError(
            f"The loss is {loss} at batch {batch + 1} of epoch {self._epoch + 1}; the batch, and the one before as "
            f"previous_*, are in {path}. Look at its images, lower the learning rate, warm up for longer, or train "
            "in float32 or bfloat16 if this was float16."
        )


class TrainingLog(keras.callbacks.Callback):
    """Writes a line of JSON for each batch and each epoch.

    A line of a batch has `epoch` and `batch`, from 1, `step`, `learning_rate`, `logit_scale`, `seconds` since
    training began in this process, and the batch's metrics; one of an epoch `epoch` and its metrics. In a run
    that is resumed, lines of batches that will be done again are removed first.

    Args:
        path: the file.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__()
        self._path = Path(path)

    def on_train_begin(self, logs: Any = None) -> None:
        """Opens the file."""
        progress = self.params["progress"]
        self._epoch, self._step, self._start = progress.epoch, progress.step, time.perf_counter()
        kept = [line for line in _whole_lines(self._path) if _is_before(line, progress)]
        write_text(self._path, "".join(json.dumps(line) + "\n" for line in kept))
        self._file = self._path.open("a", encoding="utf-8")

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Notes the epoch."""
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Writes a batch's line."""
        self._step += 1
        model = self.model
        line = {"epoch": self._epoch + 1, "batch": batch + 1, "step": self._step}
        line |= {name: float(value) for name, value in (logs or {}).items()}
        line["learning_rate"] = float(ops.convert_to_numpy(plain_optimizer(model).learning_rate))
        if hasattr(model, "logit_scale"):
            line["logit_scale"] = float(ops.convert_to_numpy(model.logit_scale))
        line["seconds"] = round(time.perf_counter() - self._start, 3)
        self._write(line)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Writes an epoch's line."""
        self._write({"epoch": epoch + 1, **{name: float(value) for name, value in (logs or {}).items()}})

    def on_train_end(self, logs: Any = None) -> None:
        """Closes the file."""
        self._file.close()

    def _write(self, line: Mapping[str, Any]) -> None:
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()


def require_one_each(argument: str, values: Sequence[Any], images: Sequence[Any]) -> None:
    """Raises a `ValueError` that names the argument unless it has a value for each image, at least one."""
    if len(images) != len(values) or not len(images):
        raise ValueError(
            f"`{argument}` must hold the {argument} of each of `images`, at least one. "
            f"Received: {len(images)} images and {argument} of {len(values)}. Pair them up first."
        )


def evaluated_weights(model: Any) -> AbstractContextManager[None]:
    """Returns a block in which the model has the weights to evaluate and save: the average, if there is one."""
    optimizer = plain_optimizer(model) if model.optimizer is not None else None
    if optimizer is not None and getattr(optimizer, "averages", None) and int(optimizer.iterations) > 0:
        return averaged_weights(model)
    return nullcontext()


def _mean_loss(model: Any, text_embeds: np.ndarray, image_embeds: np.ndarray, batch_size: int) -> float:
    losses = []
    for start in range(0, len(text_embeds), batch_size):
        rows = slice(start, start + batch_size)
        batch = {"text_embeds": text_embeds[rows], "image_embeds": image_embeds[rows]}
        embeds = {name: ops.convert_to_tensor(values) for name, values in batch.items()}
        losses.append(float(model.compute_loss({}, None, embeds, training=False)))
    return float(
        np.average(
            losses, weights=[len(text_embeds[i : i + batch_size]) for i in range(0, len(text_embeds), batch_size)]
        )
    )


def _whole_lines(path: Path) -> list[dict[str, Any]]:
    """Returns the lines of a log; what a killed run left of its last is none."""
    if not path.is_file():
        return []
    *lines, _ = path.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines]


def _is_before(line: Mapping[str, Any], progress: Any) -> bool:
    return bool(line["step"] <= progress.step if "step" in line else line["epoch"] <= progress.epoch)
