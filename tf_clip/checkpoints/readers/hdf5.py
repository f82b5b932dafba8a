"""Reads the tensors of HDF5 files (`tf_model.h5`, `model.weights.h5`), one at a time."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from tf_clip.checkpoints.errors import CheckpointError
from tf_clip.checkpoints.files import refuse_git_lfs_pointer
from tf_clip.checkpoints.readers.stored import Array, StoredTensor, is_array_shape, numpy_dtype

# What h5py raises on files that are broken in one way or another.
_BROKEN = (OSError, RuntimeError, KeyError, ValueError, TypeError)
# A compressed dataset may unfold to this many times the file; weights compress to no less than a tenth.
_MAX_EXPANSION = 64
_MAX_DEPTH = 64


def read_hdf5_file(path: str | Path) -> dict[str, StoredTensor]:
    """Lists the datasets of a file by their full names, such as `clip/text_model/.../kernel:0`.

    Links are not followed: an external one would read another file.

    Raises:
        CheckpointError: the file is broken or cut short, links to another place, or a dataset is no array of numbers.
    """
    path = Path(path)
    refuse_git_lfs_pointer(path)
    tensors: dict[str, StoredTensor] = {}
    try:
        with h5py.File(path, "r") as file:
            _collect(file, "", tensors, path, set())
    except _BROKEN as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path} is not a whole HDF5 file: {error}. Download it again.") from error
    return tensors


def _collect(group: Any, prefix: str, tensors: dict[str, StoredTensor], path: Path, seen: set[Any]) -> None:
    if group in seen or prefix.count("/") > _MAX_DEPTH:
        # A group under two names may be inside itself, and walking it would take forever.
        raise CheckpointError(
            f"{path} must hold groups under one name each, at most {_MAX_DEPTH} deep. Received: another at "
            f"{prefix[:200]}. Do not trust this file."
        )
    seen.add(group)
    for name in group:
        full = f"{prefix}{name}"
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise CheckpointError(
                f"{path} must hold its tensors itself. Received: {full}, a link. Do not trust this file."
            )
        part = group[name]
        if isinstance(part, h5py.Group):
            _collect(part, f"{full}/", tensors, path, seen)
        elif isinstance(part, h5py.Dataset):
            tensors[full] = _stored(part, full, path)


def _stored(dataset: Any, name: str, path: Path) -> StoredTensor:
    if dataset.external or dataset.is_virtual:
        raise CheckpointError(
            f"{path} must hold its tensors itself. Received: {name}, kept in another file. Do not trust it."
        )
    dtype = _dtype_of(dataset)
    if dtype is None or dataset.shape is None:
        raise CheckpointError(
            f"{path} must hold numbers. Received: {name} as {dataset.dtype}. Convert the checkpoint again."
        )
    room = path.stat().st_size * (_MAX_EXPANSION if dataset.chunks else 1)
    # Not dataset.size, which begins again at 0 behind 2**63.
    if not is_array_shape(dataset.shape) or math.prod(dataset.shape) * dtype.itemsize > room:
        raise CheckpointError(
            f"{path} must be large enough for its tensors. Received: {name} of shape {list(dataset.shape)} in a file "
            f"of {path.stat().st_size} bytes. Download it again."
        )

    def load() -> Array:
        try:
            with h5py.File(path, "r") as file:
                array: Array = np.asarray(file[name][()])
        except _BROKEN as error:
            raise CheckpointError(f"{path} is not a whole HDF5 file: {error}. Download it again.") from error
        # Opaque bytes are bfloat16; numbers may be in the other byte order.
        return array.view(dtype) if array.dtype.kind == "V" else array.astype(dtype, copy=False)

    return StoredTensor(tuple(dataset.shape), dtype.name, load)


def _dtype_of(dataset: Any) -> np.dtype[Any] | None:
    """Returns the numbers' dtype in this machine's byte order, or None when they are no numbers."""
    stored: np.dtype[Any] = dataset.dtype
    # HDF5 has no bfloat16: Keras writes two opaque bytes. It also says so in an attribute, which is not read: HDF5
    # looks texts up in a heap, and in a damaged one it searches forever.
    if stored.kind == "V" and stored.itemsize == 2 and stored.names is None and stored.subdtype is None:
        return numpy_dtype("bfloat16")
    return stored.newbyteorder("=") if stored.kind in "fiub" else None
