"""`StoredTensor`: a tensor that still lies in its file, and how it is turned without being read."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

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
        """Returns the tensor with its axes in another order, as `numpy.transpose` takes it."""
        shape = tuple(self.shape[axis] for axis in axes)
        return StoredTensor(shape, self.dtype, lambda: self.load().transpose(axes))

    def reshaped(self, shape: tuple[int, ...]) -> StoredTensor:
        """Returns the tensor with the same elements in another shape."""
        return StoredTensor(shape, self.dtype, lambda: self.load().reshape(shape))

    def rows(self, start: int, stop: int) -> StoredTensor:
        """Returns some rows of the first axis."""
        shape = (stop - start, *self.shape[1:])
        return StoredTensor(shape, self.dtype, lambda: self.load()[start:stop])


StoredTensors: TypeAlias = Mapping[str, StoredTensor]
"""From a tensor's name to the tensor."""


def numpy_dtype(name: str) -> np.dtype[Any]:
    """Returns a dtype by its name; numpy alone has no `"bfloat16"`."""
    if name != "bfloat16":
        return np.dtype(name)
    import ml_dtypes  # comes with TensorFlow and JAX

    dtype: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    return dtype
