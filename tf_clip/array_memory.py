"""Memory for large arrays that goes back to the system with them: pages of their own, which TensorFlow can take over.

TensorFlow and the C library keep what was once in use, for the next who ask. Of weights that are read, rewritten and
let go, that would be copies that nobody needs.
"""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

DTYPES_OF_TENSORS = ("float32", "float16")
"""Of weights that `as_tensor` can take; NumPy does not know bfloat16."""


def array_of_pages(shape: Sequence[int], dtype: np.dtype[Any]) -> np.ndarray:
    """Returns zeros in pages of their own, of which those count as memory in use that were written to.

    Args:
        shape: the array's.
        dtype: the array's.
    """
    size = math.prod(shape) * dtype.itemsize
    # Not shared with processes that this one forks, as Python's are if nothing is said; Windows has no such pages.
    pages = mmap.mmap(-1, max(1, size), **({} if os.name == "nt" else {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS}))
    return np.frombuffer(pages, np.uint8, size).view(dtype).reshape(shape)


def copied_to_pages(array: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    """Returns a copy in pages of its own.

    Args:
        array: the array.
        dtype: the copy's.
    """
    pages = array_of_pages(array.shape, dtype)
    pages[...] = array
    return pages


def as_tensor(array: np.ndarray) -> Any:
    """Returns a tensor of TensorFlow in an array's memory; `tf.constant` would copy it.

    Args:
        array: in pages of its own, and of one of `DTYPES_OF_TENSORS`. It must not be written to afterwards.
    """
    import tensorflow as tf

    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())
