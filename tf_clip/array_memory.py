"""Large arrays whose memory goes back to the system when they are freed: each lies in memory pages of its own.

TensorFlow and the C library keep freed memory for later allocations, so weights that are read, rewritten and freed
would count twice. TensorFlow can use an array's pages as a tensor, without a copy.
"""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

DTYPES_OF_TENSORS = ("float32", "float16")
"""The dtypes that `as_tensor` can take; NumPy does not know bfloat16."""


def array_of_pages(shape: Sequence[int], dtype: np.dtype[Any]) -> np.ndarray:
    """Returns zeros in pages of their own; only pages that were written to count as memory in use.

    Args:
        shape: the array's.
        dtype: the array's.
    """
    size = math.prod(shape) * dtype.itemsize
    # By default Python shares such pages with forked processes; private ones are not shared. Windows has no forks.
    pages = mmap.mmap(-1, max(1, size), **({} if os.name == "nt" else {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS}))
    return np.frombuffer(pages, np.uint8, size).view(dtype).reshape(shape)


def copied_to_pages(array: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """Returns a copy of an array in pages of its own.

    Args:
        array: of any shape.
        dtype: the copy's.
    """
    pages = array_of_pages(array.shape, dtype)
    pages[...] = array
    return pages


def as_tensor(array: np.ndarray) -> Any:
    """Returns a TensorFlow tensor that uses an array's memory; `tf.constant` would copy it.

    Args:
        array: in pages of its own, of one of `DTYPES_OF_TENSORS`. Nothing may write to it afterwards.
    """
    import tensorflow as tf

    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())
