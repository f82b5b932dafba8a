"""Models for commands: each checkpoint is found once, behind a spinner."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

from tf_clip.checkpoints.source import Checkpoint
from tf_clip.cli import tables
from tf_clip.families.family import family_of
from tf_clip.models.load import config_of, load_model, load_processor, open_checkpoint
from tf_clip.models.two_towers import TwoTowerModel
from tf_clip.preprocessing.processor import Processor
from tf_clip.tasks.embedding import PairEncoder

if TYPE_CHECKING:
    from tf_clip.inference import CompiledModel

# From this number of inputs on, compiling the model takes less time than it saves.
_MANY = 64


def load(name: str) -> tuple[TwoTowerModel, Processor]:
    """Loads a model and its processor."""
    with tables.status(f"Loading {name}"):
        return _read(open_checkpoint(name))


def load_encoder(name: str, count: int) -> tuple[Processor, PairEncoder]:
    """Loads a processor, and what encodes `count` inputs soonest: a compiled model for many, the model for few."""
    if count < _MANY:
        model, processor = load(name)
        return processor, model
    processor, compiled, _ = load_compiled(name)
    return processor, compiled


def load_compiled(name: str) -> tuple[Processor, CompiledModel, Path]:
    """Loads a processor and a compiled model, and says which folder they came from."""
    # Imported here: commands on few images do without it, and would wait for it.
    from tf_clip.inference import compile_for_inference

    with tables.status(f"Loading {name}"):
        checkpoint = open_checkpoint(name)
        _take_threads(checkpoint)
        model, processor = _read(checkpoint)
    with tables.status("Preparing the model"):
        # Not "auto": measuring the engines takes longer than most commands, and its choice may change between runs.
        compiled = compile_for_inference(model, processor, engine="tensorflow", keep_model=False)
    return processor, compiled, checkpoint.folder


def _read(checkpoint: Checkpoint) -> tuple[TwoTowerModel, Processor]:
    return load_model(checkpoint), load_processor(checkpoint)


def _take_threads(checkpoint: Checkpoint) -> None:
    """Takes the process's threads for compiled towers, unless one runs as Keras has it, or they run."""
    from tf_clip.inference import set_inference_threads

    if family_of(config_of(checkpoint).vision_config).rewritings:
        with contextlib.suppress(RuntimeError):
            set_inference_threads()
