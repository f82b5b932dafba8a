"""`tf-clip info`: what a checkpoint is, what it costs, and what is odd about it."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING, Any

from tf_clip.cli.arguments import EXIT_DONE, model_and_json, runs

if TYPE_CHECKING:
    from tf_clip.checkpoints.source import Checkpoint
    from tf_clip.cli.arguments import Commands

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
    from tf_clip.cli import tables
    from tf_clip.families import published
    from tf_clip.models.load import open_checkpoint

    checkpoint = open_checkpoint(options.model)
    facts = {"path": str(checkpoint.path), "format": checkpoint.layout, **_described(checkpoint)}
    facts["preprocessing"] = _preprocessing(checkpoint)
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
    from tf_clip.families import cost
    from tf_clip.families.config import TwoTowerConfig
    from tf_clip.models.load import config_of

    config = config_of(checkpoint)
    if not isinstance(config, TwoTowerConfig):
        stored = sum(math.prod(tensor.shape) for tensor in checkpoint.tensors.values())
        return {"kind": f"one tower, {checkpoint.config.get('model_type')}", "parameters": stored}
    text_length = config.text_config.max_position_embeddings
    facts: dict[str, Any] = {
        "parameters": cost.parameter_count(config),
        "image encoder": f"{cost.image_parameters(config):,} parameters, {cost.described(config.vision_config)}",
        "text encoder": f"{cost.text_parameters(config):,} parameters, {cost.described(config.text_config)}",
        "embedding width": config.projection_dim,
        "GFLOPs per image": giga(cost.operations_per_image(config)),
        f"GFLOPs per text of {text_length}": giga(cost.operations_per_text(config)),
    }
    if "logit_scale" in checkpoint.tensors:
        scale = float(np.exp(checkpoint.tensors["logit_scale"].load().astype("float64")).reshape(()))
        facts["temperature"] = f"logits are cosine similarities x {scale:.2f}"
    return facts


def _preprocessing(checkpoint: Checkpoint) -> str:
    from tf_clip.models.load import processor_class

    try:
        images = processor_class(checkpoint.config).image_processor_class.from_folder(checkpoint.folder)
    except FileNotFoundError:
        return "not said by the checkpoint"
    size = "x".join(map(str, images.crop_to))
    return f"to {size} px, filter {images.resample}, mean {images.image_mean}, std {images.image_std}"


def _oddities(checkpoint: Checkpoint) -> list[str]:
    from tf_clip.families import cost
    from tf_clip.families.config import TwoTowerConfig
    from tf_clip.families.family import family_of
    from tf_clip.models.load import config_of

    found = family_of(checkpoint.config).oddities(checkpoint.config)
    config = config_of(checkpoint)
    if isinstance(config, TwoTowerConfig) and "logit_scale" in checkpoint.tensors:
        stored = sum(
            math.prod(tensor.shape) for name, tensor in checkpoint.tensors.items() if not name.endswith(_STATISTICS)
        )
        wanted = cost.parameter_count(config)
        if stored != wanted:
            found.append(f"the files hold {stored:,} numbers, the configuration needs {wanted:,}: it will not load")
    return found
