"""`StoredTensor`: a tensor that still lies in its file, and how it is turned without being read."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from tf_clip.array_memory import array_of_pages
from tf_clip.checkpoints.errors import CheckpointError

_MAX_AXES = 32
_MAX_ELEMENTS = 2**56
Array: TypeAlias = np.ndarray[Any, Any]


@dataclasses.dataclass(frozen=True)
class StoredTensor:
    """A tensor of a checkpoint file, known by shape and dtype and read only when it is needed.

    Every reader returns these, so that a checkpoint is never in memory twice: a variable takes one
    array at a time.

    Args:
        shape: its axes' sizes.
        dtype: its numpy dtype's name, `"bfloat16"` included.
        load: reads the array from the file, which it opens and closes itself.
    """

    shape: tuple[int, ...]
    dtype: str
    load: Callable[[], Array]

    def transposed(self, axes: tuple[int, ...]) -> StoredTensor:
        """Returns the tensor with its axes in another order, as `numpy.transpose` takes it.

        One that has more or fewer axes stays as it is: the check of shapes behind this names it.
        """
        if len(axes) != len(self.shape):
            return self
        shape = tuple(self.shape[axis] for axis in axes)
        return StoredTensor(shape, self.dtype, lambda: self.load().transpose(axes))

    def reshaped(self, shape: tuple[int, ...]) -> StoredTensor:
        """Returns the tensor with the same elements in another shape."""
        return StoredTensor(shape, self.dtype, lambda: self.load().reshape(shape))

    def rows(self, start: int, stop: int) -> StoredTensor:
        """Returns some rows of the first axis; of plain bytes only theirs are read."""
        shape = (stop - start, *self.shape[1:])
        if isinstance(self.load, FileRegion):
            row = math.prod(self.shape[1:]) * numpy_dtype(self.dtype).itemsize
            region = FileRegion(self.load.path, self.load.start + start * row, shape, self.dtype)
            return StoredTensor(shape, self.dtype, region)
        return StoredTensor(shape, self.dtype, lambda: self.load()[start:stop])


StoredTensors: TypeAlias = Mapping[str, StoredTensor]
"""From a tensor's name to the tensor."""


@dataclasses.dataclass(frozen=True)
class FileRegion:
    """Reads an array that lies in a file as plain bytes; the `load` of a `StoredTensor`.

    It is read rather than mapped: a mapped file's pages count as memory in use.

    Args:
        path: the file.
        start: where the array begins, in bytes.
        shape: its shape.
        dtype: its dtype's name.
    """

    path: Path
    start: int
    shape: tuple[int, ...]
    dtype: str

    def __call__(self) -> Array:
        """Returns the array.

        Raises:
            CheckpointError: the file ends before it.
        """
        array = array_of_pages(self.shape, numpy_dtype(self.dtype))
        room, size = array.reshape(-1).view(np.uint8), array.nbytes
        with self.path.open("rb", buffering=0) as file:
            file.seek(self.start)
            done = 0
            while done < size:
                count = file.readinto(room[done:].data)  # at most two gigabytes at a time
                if not count:
                    raise CheckpointError(f"{self.path} has become shorter while it was read. Download it again.")
                done += count
        return array


def is_array_shape(shape: tuple[Any, ...]) -> bool:
    """Says whether numpy can have an array of a shape that a file claims; even an empty one may be too large."""
    return (
        len(shape) <= _MAX_AXES
        and all(isinstance(size, int) and size >= 0 for size in shape)
        and math.prod(size or 1 for size in shape) < _MAX_ELEMENTS
    )


def numpy_dtype(name: str) -> np.dtype[Any]:
    """Returns a dtype by its name; numpy alone has no `"bfloat16"`."""
    if name != "bfloat16":
        return np.dtype(name)
    import ml_dtypes  # comes with TensorFlow and JAX

    dtype: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return dtype
