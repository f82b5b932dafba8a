"""`InitialNormal`: normal initial weights, which a model about to be loaded from files does not draw."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from tf_clip.array_memory import DTYPES_OF_TENSORS, array_of_pages, as_tensor

_to_be_loaded = contextvars.ContextVar("_to_be_loaded", default=False)


@contextlib.contextmanager
def weights_come_from_files() -> Iterator[None]:
    """Makes `InitialNormal` return zeros: drawing numbers takes longer than reading them, and memory for both."""
    token = _to_be_loaded.set(True)
    try:
        yield
    finally:
        _to_be_loaded.reset(token)


@keras.saving.register_keras_serializable(package="tf_clip")
class InitialNormal(keras.initializers.RandomNormal):
    """Draws initial weights from a normal distribution around zero.

    Args:
        stddev: its standard deviation.
        mean, seed: as Keras has them.
    """

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        """Returns the weights; zeros inside `weights_come_from_files`."""
        return _zeros(shape, dtype) if _to_be_loaded.get() else super().__call__(shape, dtype=dtype)


def _zeros(shape: Sequence[int], dtype: Any) -> Any:
    """Returns zeros; for TensorFlow in pages that nobody touches before they are let go."""
    name = keras.backend.standardize_dtype(dtype)
    if keras.backend.backend() == "tensorflow" and name in DTYPES_OF_TENSORS:
        return as_tensor(array_of_pages(shape, np.dtype(name)))
    return ops.zeros(shape, dtype=name)
