"""What comes out of preprocessing: tensors of TensorFlow, or arrays of NumPy, JAX or PyTorch."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import tensorflow as tf

RETURN_TENSORS = ("tf", "np", "jax", "pt")


def converter(return_tensors: str) -> Callable[[dict[str, tf.Tensor]], dict[str, Any]]:
    """Returns the function that turns a dictionary of TensorFlow's tensors into one of another library's arrays.

    Args:
        return_tensors: `"np"`, `"jax"` or `"pt"`; `"tf"` needs none. JAX and PyTorch are imported only when asked for.

    Raises:
        ImportError: the library is not installed.
        ValueError: `return_tensors` is none of these, or this is inside a graph.
    """
    if return_tensors not in RETURN_TENSORS:
        raise ValueError(
            f"`return_tensors` must be one of {RETURN_TENSORS}. Received: return_tensors={return_tensors!r}. "
            "'np' is what every library takes."
        )
    if not tf.executing_eagerly():
        raise ValueError(
            "`return_tensors` must be 'tf' inside tf.function and tf.data. "
            f"Received: return_tensors={return_tensors!r}. Convert what comes out of them."
        )
    convert = np.asarray
    if return_tensors == "jax":
        convert = _imported("jax.numpy", return_tensors, "jax").asarray
    elif return_tensors == "pt":
        convert = _imported("torch", return_tensors, "torch").from_numpy
    return lambda tensors: {name: convert(tensor.numpy()) for name, tensor in tensors.items()}


def _imported(module: str, return_tensors: str, package: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"`return_tensors` must name a library that is installed. Received: return_tensors={return_tensors!r}, "
            f"but {package} cannot be imported ({error}). Run `pip install {package}`, or take 'np'."
        ) from error
