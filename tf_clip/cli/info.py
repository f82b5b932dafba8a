"""`tf-clip info`: what a checkpoint is, what it costs, and what is odd about it."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tf_clip.cli.arguments import EXIT_DONE, model_and_json, runs

if TYPE_CHECKING:
    from tf_clip.checkpoints.source import Checkpoint
    from tf_clip.cli.arguments import Commands
    from tf_clip.families.clip.config import CLIPResNetConfig, CLIPTextConfig, CLIPVisionConfig

# The norms of a ResNet store these beside what was trained.
_STATISTICS = ("running_mean", "running_var")


def add(commands: Commands) -> None:
    """Adds the command's arguments."""
    parser = commands.add_parser(
        "info", parents=[model_and_json()], help="describe a checkpoint: its parts, its cost, and what is odd about it"
    )
    runs(parser, run)


def run(options: argparse.Namespace) -> int:
    """Describes a checkpoint; of its weights only the temperature is read."""
    from tf_clip.checkpoints import hub
    from tf_clip.checkpoints.source import read_checkpoint
    from tf_clip.cli import tables
    from tf_clip.families.clip import published

    checkpoint = read_checkpoint(hub.resolve(options.model))
    facts = {"path": str(checkpoint.path), "format": checkpoint.layout, **_described(checkpoint)}
    facts["preprocessing"] = _preprocessing(checkpoint.path)
    known = published.find(options.model)
    if known:
        facts["published"] = f"by {known.publisher}, trained on {known.trained_on}, license {known.license}"
    facts["odd"] = [*checkpoint.notes, *_oddities(checkpoint)]
    if options.json:
        tables.print_json(facts)
    else:
        shown = {**facts, "odd": "; ".join(facts["odd"]) or "nothing"}
        tables.show_facts({name: f"{value:,}" if isinstance(value, int) else value for name, value in shown.items()})
    return EXIT_DONE


def _described(checkpoint: Checkpoint) -> dict[str, Any]:
    import numpy as np

    from tf_clip.cli.models import giga
    from tf_clip.families.clip import cost
    from tf_clip.families.clip.config import CLIPConfig

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
        "GFLOPs per image": giga(cost.operations_per_image(config)),
        f"GFLOPs per text of {text_length}": giga(cost.operations_per_text(config)),
    }
    if "logit_scale" in checkpoint.tensors:
        scale = float(np.exp(checkpoint.tensors["logit_scale"].load().astype("float64")).reshape(()))
        facts["temperature"] = f"logits are cosine similarities x {scale:.2f}"
    return facts


def _tower(tower: CLIPTextConfig | CLIPVisionConfig | CLIPResNetConfig) -> str:
    from tf_clip.families.clip.config import CLIPResNetConfig, CLIPVisionConfig

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
    from tf_clip.families.clip import cost
    from tf_clip.families.clip.config import CLIPConfig

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
