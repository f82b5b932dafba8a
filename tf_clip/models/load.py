"""From a name to a model of the right class and its processor: resolved once, opened once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tf_clip.checkpoints import hub
from tf_clip.checkpoints.source import Checkpoint, read_checkpoint
from tf_clip.families.family import class_at, family_of
from tf_clip.preprocessing.processor import Processor


@dataclasses.dataclass(frozen=True)
class Loaded:
    """A model, what prepares its inputs, and where both come from.

    Args:
        model: of its family's class.
        processor: of its family's class.
        checkpoint: the checkpoint, open.
    """

    model: Any
    processor: Processor
    checkpoint: Checkpoint


def open_checkpoint(
    name_or_path: str | Path, *, revision: str | None = None, config: Mapping[str, Any] | None = None
) -> Checkpoint:
    """Resolves a name and opens what lies there; no tensor is read yet.

    Args:
        name_or_path: a shipped name, a local folder or file, or a Hub id.
        revision: branch, tag or commit on the Hub.
        config: a parsed `config.json` to use in place of the checkpoint's own.

    Raises:
        FileNotFoundError: there is no such checkpoint, or a file of it is missing.
        ValueError: the configuration describes something that no family has.
        CheckpointError: a file is broken, or of another kind of model.
    """
    return read_checkpoint(hub.resolve(name_or_path, revision), config)


def config_of(checkpoint: Checkpoint) -> Any:
    """Returns the configuration of a checkpoint: a whole model's, a `TwoTowerConfig`, or a tower's.

    Raises:
        ValueError: no family has its `model_type`, or a value breaks a rule.
    """
    kind = family_of(checkpoint.config).model_types[str(checkpoint.config["model_type"])]
    return kind.from_dict(checkpoint.config)


def class_of(checkpoint: Checkpoint) -> Any:
    """Returns the class that a checkpoint was saved from.

    Raises:
        ValueError: no family has its `model_type`.
    """
    family = family_of(checkpoint.config)
    kind = str(checkpoint.config["model_type"])
    path = family.class_of(kind, checkpoint.tensors.keys()) if family.class_of else None
    path = path or {family.config: family.model, family.text_config: family.text_tower}.get(
        family.model_types[kind], family.image_tower
    )
    if path is None:
        raise ValueError(f"`model_type` must be of a model that can be loaded. Received: {kind!r} of {family.name}.")
    return class_at(path)


def load_model(source: str | Path | Checkpoint, *, dtype: Any = None, **kwargs: Any) -> Any:
    """Loads a model of the class that its checkpoint was saved from.

    Args:
        source: a name, see `open_checkpoint`, or what that returned.
        dtype: Keras dtype or dtype policy; None takes Keras's global policy.
        **kwargs: arguments of the model, such as `attn_implementation`.

    Raises:
        FileNotFoundError, ValueError, CheckpointError: see `open_checkpoint`.
    """
    checkpoint = source if isinstance(source, Checkpoint) else open_checkpoint(source)
    return class_of(checkpoint)._from_checkpoint(checkpoint, dtype=dtype, **kwargs)


def load_processor(source: str | Path | Checkpoint) -> Processor:
    """Loads what prepares a checkpoint's inputs.

    Args:
        source: see `load_model`.

    Raises:
        FileNotFoundError: the checkpoint has no such files.
        ValueError: one of them is broken.
    """
    checkpoint = source if isinstance(source, Checkpoint) else open_checkpoint(source)
    return processor_class(checkpoint.config).from_folder(checkpoint.folder)


def processor_class(config: Any) -> type[Processor]:
    """Returns the class that prepares inputs, of the family of a configuration, parsed or not."""
    path = family_of(config).processor
    return Processor if path is None else class_at(path)


def load(source: str | Path | Checkpoint, *, dtype: Any = None, **kwargs: Any) -> Loaded:
    """Loads a model and its processor.

    Args:
        source: see `load_model`.
        dtype: see `load_model`.
        **kwargs: see `load_model`.

    Raises:
        FileNotFoundError, ValueError, CheckpointError: see `open_checkpoint`.

    Example:
        >>> model, processor = load("pictogram-clip").model, load("pictogram-clip").processor
    """
    checkpoint = source if isinstance(source, Checkpoint) else open_checkpoint(source)
    return Loaded(load_model(checkpoint, dtype=dtype, **kwargs), load_processor(checkpoint), checkpoint)
