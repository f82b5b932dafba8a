"""What the commands on checkpoints do: say what one is, list the published ones, convert."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np

from tf_clip.checkpoints import hub, save
from tf_clip.checkpoints.source import Checkpoint, read_checkpoint
from tf_clip.cli import tables
from tf_clip.cli.main import EXIT_DONE
from tf_clip.families.clip import cost, openclip
from tf_clip.families.clip import published as registry
from tf_clip.families.clip.config import CLIPConfig, CLIPResNetConfig, CLIPTextConfig, CLIPVisionConfig


def info(options: argparse.Namespace) -> int:
    """Says what a checkpoint is; of its weights only the temperature is read."""
    checkpoint = read_checkpoint(hub.resolve(options.model))
    facts = {"path": str(checkpoint.path), "format": checkpoint.layout, **_described(checkpoint)}
    facts["preprocessing"] = _preprocessing(checkpoint.path)
    known = registry.find(options.model)
    if known:
        facts["published"] = f"by {known.publisher}, trained on {known.trained_on}, license {known.license}"
    facts["odd"] = [*checkpoint.notes, *_oddities(checkpoint)]
    if options.json:
        tables.print_json(facts)
    else:
        shown = {**facts, "odd": "; ".join(facts["odd"]) or "nothing"}
        tables.show_facts({name: f"{value:,}" if isinstance(value, int) else value for name, value in shown.items()})
    return EXIT_DONE


def models(options: argparse.Namespace) -> int:
    """Lists the published checkpoints."""
    found = registry.known_models(options.containing)
    rows: list[dict[str, Any]] = [
        {
            "model": model.hub_id,
            "architecture": model.architecture,
            "image size": model.config.vision_config.image_size,
            "parameters": cost.parameter_count(model.config),
            "GFLOPs per image": _giga(cost.operations_per_image(model.config)),
            "trained on": model.trained_on,
            "license": model.license,
            "format": model.layout,
            "images": model.images,
            "url": model.url,
            "sha256": model.sha256,
        }
        for model in found
    ]
    if options.json:
        tables.print_json(rows)
        return EXIT_DONE
    if not rows:
        raise ValueError(
            f"`containing` must be part of a name. Received: {options.containing!r}. Leave it out for all."
        )
    groups: dict[str, list[tuple[str, ...]]] = {}
    for model, row in zip(found, rows, strict=True):
        cells = (
            *(str(row[name]) for name in ("model", "architecture", "image size")),
            f"{row['parameters'] / 1e6:,.0f} M",
            f"{row['GFLOPs per image']:,.1f}",
        )
        groups.setdefault(f"{model.publisher}, {model.trained_on}, {model.license}", []).append(cells)
    headings = ("model", "architecture", "pixels", "parameters", "GFLOPs")
    tables.show_groups(groups, headings, numbers=("pixels", "parameters", "GFLOPs"))
    tables.say("Pass a model's name to --model or from_pretrained. GFLOPs are per image, two per multiply-add.")
    return EXIT_DONE


def convert(options: argparse.Namespace) -> int:
    """Writes a checkpoint of any format in another, with its processor's files where it has them."""
    target: Path = options.target
    if target.exists() and (target.is_file() or any(target.iterdir())):
        raise ValueError(f"`DST` must be new or an empty folder. Received: {target}. Choose another place.")
    if options.to == "keras" and target.suffix != ".keras":
        raise ValueError(f"`DST` must end in .keras for --to keras. Received: {target}. Add the ending.")
    path = hub.resolve(options.source)
    with tables.status(f"Reading {options.source}"):
        checkpoint = read_checkpoint(path)
        model = _class_of(checkpoint).from_pretrained(path)
    with tables.status(f"Writing {target}"):
        if options.to == "keras":
            _require(options.dtype == "float32", "--dtype", "float32 for --to keras", options.dtype)
            target.parent.mkdir(parents=True, exist_ok=True)
            model.save(target)
        elif options.to == "hf":
            model.save_pretrained(target, dtype=options.dtype, max_shard_size=options.max_shard_size)
            _copy_processor(path, target)
        else:
            _require(checkpoint.config.get("model_type") == "clip", "SRC", "a whole CLIP model for OpenCLIP", path)
            save.save_openclip(
                model._variables_by_path(), model.config.to_dict(), _openclip_preprocessing(path), target, options.dtype
            )
            _copy_tokenizer(path, target)
    tables.show_facts({str(target): f"{model.count_params():,} parameters as {options.to}, from {checkpoint.layout}"})
    return EXIT_DONE


def _described(checkpoint: Checkpoint) -> dict[str, Any]:
    if checkpoint.config.get("model_type") != CLIPConfig.model_type:
        stored = sum(math.prod(tensor.shape) for tensor in checkpoint.tensors.values())
        return {"kind": f"one tower, {checkpoint.config.get('model_type')}", "parameters": stored}
    config = CLIPConfig.from_dict(checkpoint.config)
    text_length = config.text_config.max_position_embeddings
    facts: dict[str, Any] = {
        "parameters": cost.parameter_count(config),
        "image encoder": f"{cost.image_parameters(config):,} parameters, {_tower(config.vision_config)}",
        "text encoder": f"{cost.text_parameters(config):,} parameters, {_tower(config.text_config)}",
        "embedding width": config.projection_dim,
        "GFLOPs per image": _giga(cost.operations_per_image(config)),
        f"GFLOPs per text of {text_length}": _giga(cost.operations_per_text(config)),
    }
    if "logit_scale" in checkpoint.tensors:
        scale = float(np.exp(checkpoint.tensors["logit_scale"].load().astype("float64")).reshape(()))
        facts["temperature"] = f"logits are cosine similarities x {scale:.2f}"
    return facts


def _giga(operations: int) -> float:
    return float(f"{operations / 1e9:.4g}")


def _tower(tower: CLIPTextConfig | CLIPVisionConfig | CLIPResNetConfig) -> str:
    if isinstance(tower, CLIPResNetConfig):
        return (
            f"a ResNet of {' + '.join(map(str, tower.depths))} blocks of {tower.embedding_size}, {tower.image_size} px"
        )
    blocks = f"{tower.num_hidden_layers} layers of {tower.hidden_size}, {tower.hidden_act}, "
    if isinstance(tower, CLIPVisionConfig):
        return f"{blocks}{tower.image_size} px in patches of {tower.patch_size}"
    return f"{blocks}{tower.max_position_embeddings} tokens of {tower.vocab_size:,}"


def _preprocessing(path: Path) -> str:
    from tf_clip.preprocessing.images.image_processor import ImageProcessor

    try:
        images = ImageProcessor.from_pretrained(path)
    except FileNotFoundError:
        return "not said by the checkpoint"
    size = "x".join(map(str, images.crop_to))
    return f"to {size} px, filter {images.resample}, mean {images.image_mean}, std {images.image_std}"


def _oddities(checkpoint: Checkpoint) -> list[str]:
    found = []
    config = checkpoint.config
    text = config.get("text_config") or {}
    if text.get("eos_token_id") == 2:
        found.append("eos_token_id is 2, as in old files: texts are pooled at their highest id")
    if "text_config_dict" in config or "vision_config_dict" in config:
        found.append("text_config_dict or vision_config_dict, as in old files, win over text_config and vision_config")
    if config.get("model_type") == CLIPConfig.model_type and "text_model.final_layer_norm.weight" in checkpoint.tensors:
        stored = sum(
            math.prod(tensor.shape) for name, tensor in checkpoint.tensors.items() if not name.endswith(_STATISTICS)
        )
        wanted = cost.parameter_count(CLIPConfig.from_dict(config))
        if stored != wanted:
            found.append(f"the files hold {stored:,} numbers, the configuration needs {wanted:,}: it will not load")
    return found


# A ResNet's norms store these beside what was trained.
_STATISTICS = ("running_mean", "running_var")


def _class_of(checkpoint: Checkpoint) -> Any:
    """Returns the class that a checkpoint was saved from."""
    import tf_clip

    names = checkpoint.tensors.keys()
    by_kind = {
        CLIPConfig.model_type: "CLIPForImageClassification" if "classifier.weight" in names else "CLIPModel",
        CLIPTextConfig.model_type: "CLIPTextEncoder" if "text_projection.weight" in names else "CLIPTextModel",
        CLIPVisionConfig.model_type: "CLIPImageEncoder" if "visual_projection.weight" in names else "CLIPVisionModel",
        CLIPResNetConfig.model_type: "CLIPResNetImageEncoder",
    }
    kind = str(checkpoint.config.get("model_type", CLIPConfig.model_type))
    return getattr(tf_clip, by_kind.get(kind, "CLIPModel"))


def _copy_processor(source: Path, target: Path) -> None:
    from tf_clip.preprocessing.images.image_processor import ImageProcessor

    try:
        ImageProcessor.from_pretrained(source).save_pretrained(target)
    except FileNotFoundError:
        tables.warn("The source does not say how to prepare images: no preprocessor_config.json was written.")
    _copy_tokenizer(source, target)


def _copy_tokenizer(source: Path, target: Path) -> None:
    from tf_clip.preprocessing.text.tokenizer import BytePairTokenizer

    try:
        BytePairTokenizer.from_pretrained(source).save_pretrained(target)
    except FileNotFoundError:
        tables.warn("The source has no vocabulary: no tokenizer was written. Copy vocab.json and merges.txt beside it.")


def _openclip_preprocessing(source: Path) -> dict[str, Any] | None:
    from tf_clip.preprocessing.images.image_processor import ImageProcessor

    try:
        return openclip.from_preprocessor(ImageProcessor.from_pretrained(source).to_dict())
    except FileNotFoundError:
        tables.warn("The source does not say how to prepare images: OpenAI's mean and standard deviation were written.")
        return None


def _require(condition: bool, argument: str, rule: str, received: object) -> None:
    if not condition:
        raise ValueError(f"`{argument}` must be {rule}. Received: {received}. Leave it out or change it.")
