"""Arrays of another framework, imported only when asked for."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

_MODULES = {"jax": ("jax.numpy", "asarray"), "pt": ("torch", "from_numpy")}


def from_numpy(array: np.ndarray, kind: str) -> Any:
    """Converts an array.

    Args:
        array: any array.
        kind: `"np"`, `"tf"`, `"jax"` or `"pt"`.

    Raises:
        ImportError: the framework is not installed.
    """
    if kind == "np":
        return array
    if kind == "tf":
        import tensorflow as tf

        return tf.constant(array)
    module, function = _MODULES[kind]
    try:
        return getattr(importlib.import_module(module), function)(array)
    except ImportError:
        name = module.partition(".")[0]
        raise ImportError(f"return_tensors={kind!r} needs {name}. Install it: pip install {name}") from None
