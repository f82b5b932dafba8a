"""Opens a checkpoint of any format and shows it in one: Hugging Face's configuration, names and layout."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tf_clip.checkpoints import files
from tf_clip.checkpoints.errors import CheckpointError
from tf_clip.checkpoints.readers.hdf5 import read_hdf5_file
from tf_clip.checkpoints.readers.msgpack import read_msgpack_file
from tf_clip.checkpoints.readers.safetensors import read_safetensors_file
from tf_clip.checkpoints.readers.stored import StoredTensor
from tf_clip.checkpoints.readers.torch import read_torch_file
from tf_clip.families.family import families, model_type_of
from tf_clip.families.layout import Layout, Opened

_TORCH_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds, whatever its format.

    Args:
        path: the file of weights, or its index.
        layout: the format, in words.
        config: Hugging Face's `config.json`, parsed.
        tensors: by Hugging Face's names and in its layout, still in their files.
        notes: what is odd about the files, for people.
    """

    path: Path
    layout: str
    config: Mapping[str, Any]
    tensors: Mapping[str, StoredTensor]
    notes: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Where its files lie."""
        return self.path.parent


def read_checkpoint(path: str | Path, config: Mapping[str, Any] | None = None) -> Checkpoint:
    """Opens a folder or a file; no tensor is read yet.

    Args:
        path: a folder in Hugging Face's or another layout of a family, or one file of weights.
        config: the configuration; None reads the checkpoint's own.

    Raises:
        FileNotFoundError: the configuration, or the weights, or one of their parts is missing.
        ValueError: the configuration describes something that no family has.
        CheckpointError: a file is broken, not allowed, or holds another kind of model.
    """
    opened = _opened(Path(path), config)
    for layout in _layouts_for(opened):
        if layout.recognizes(opened):
            opened = layout.translate(opened)
    if opened.config is None:
        raise CheckpointError(
            f"{opened.path} must have a {files.CONFIG} beside it, which says what its weights cannot. Received: the "
            "file alone. Put it there, or pass config=CLIPConfig(...)."
        )
    tensors, layout_in_words = opened.tensors, opened.layout
    notes = opened.notes
    dtypes = sorted({tensor.dtype for tensor in tensors.values()})
    if dtypes != ["float32"]:
        notes += (f"weights are stored as {', '.join(dtypes)}",)
    return Checkpoint(opened.path, layout_in_words, config or opened.config, tensors, notes)


def _opened(path: Path, config: Mapping[str, Any] | None) -> Opened:
    """Finds the files; `config` is taken for the checkpoint's own where it is given."""
    is_file = path.is_file()
    folder = path.parent if is_file else path
    # One file with a configuration of the caller's says all; what lies beside it may be of another model.
    names = () if is_file and config is not None else (files.CONFIG, files.OPENCLIP_CONFIG)
    descriptions = {name: files.read_json(folder / name) for name in names if (folder / name).is_file()}
    own = descriptions.get(files.CONFIG)
    if is_file:
        read_file = functools.cache(lambda: _read_file(path))
        return Opened(path, True, path.name, descriptions, config or own, read_file)
    weights = files.best_weights({file.name for file in path.iterdir()}, own or {})
    place = path if weights is None else _file_of(path, weights)
    read = functools.cache(lambda: _read_weights(path, weights, config is not None or bool(descriptions)))
    return Opened(place, False, weights, descriptions, config or own, read)


def _layouts_for(opened: Opened) -> tuple[Layout, ...]:
    """Returns the layouts of the family that the configuration names, or of all."""
    kind = model_type_of(opened.config or {})
    return tuple(
        dict.fromkeys(
            layout
            for family in families()
            if kind in family.model_types or not any(kind in other.model_types for other in families())
            for layout in family.layouts
        )
    )


def _file_of(folder: Path, name: str) -> Path:
    return folder / name if (folder / name).is_file() else folder / files.index_of(name)


def _read_weights(folder: Path, name: str | None, is_described: bool) -> tuple[dict[str, StoredTensor], str]:
    """Reads one file of weights, or all that its index names."""
    if not is_described:
        raise FileNotFoundError(
            f"`folder` must hold a config.json. Received: folder={str(folder)!r}. Pass the folder of a checkpoint, a "
            "file of weights, or config=CLIPConfig(...) for a folder without one."
        )
    if name is None:
        raise FileNotFoundError(
            f"`folder` must hold one of {', '.join(files.HUGGING_FACE_WEIGHTS)} or its index. "
            f"Received: folder={str(folder)!r}. Download the weights, too."
        )
    if (folder / name).is_file():
        return _read_file(folder / name)
    index = folder / files.index_of(name)
    parts = files.parts_of(index)
    tensors: dict[str, StoredTensor] = {}
    layout = ""
    for file in parts:
        part, layout = _read_file(folder / file)
        tensors.update(part)
    return tensors, f"{layout} in {len(parts)} parts"


def _read_file(path: Path) -> tuple[dict[str, StoredTensor], str]:
    """Reads one file; its name says which kind it is."""
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        tensors, metadata = read_safetensors_file(path)
        return tensors, "TensorFlow safetensors" if metadata.get("format") == "tf" else "safetensors"
    if suffix in _TORCH_SUFFIXES:
        return read_torch_file(path), "PyTorch"
    if suffix == ".h5":
        return read_hdf5_file(path), "TensorFlow HDF5"
    if suffix == ".msgpack":
        return read_msgpack_file(path), "Flax msgpack"
    raise CheckpointError(
        f"{path} must be a .safetensors, .bin, .pt, .pth, .ckpt, .h5 or .msgpack file. Received: {path.name}. "
        "Pass a file of weights, or the folder that it lies in."
    )
