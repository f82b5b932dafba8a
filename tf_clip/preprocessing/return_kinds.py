"""What comes out of preprocessing: tensors of TensorFlow, or arrays of NumPy, JAX or PyTorch."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import tensorflow as tf

RETURN_TENSORS = ("tf", "np", "jax", "pt")


def converter(return_tensors: str) -> Callable[[tf.Tensor], Any]:
    """Returns the function that turns a TensorFlow tensor into another library's array.

    Args:
        return_tensors: `"tf"`, `"np"`, `"jax"` or `"pt"`. JAX and PyTorch are imported only when asked for.

    Raises:
        ImportError: the library is not installed.
        ValueError: `return_tensors` is none of these, or is not `"tf"` inside a graph.
    """
    if return_tensors not in RETURN_TENSORS:
        raise ValueError(
            f"`return_tensors` must be one of {RETURN_TENSORS}. Received: return_tensors={return_tensors!r}. "
            "'np' is what every library takes."
        )
    if return_tensors == "tf":
        return lambda tensor: tensor
    if not tf.executing_eagerly():
        raise ValueError(
            "`return_tensors` must be 'tf' inside tf.function and tf.data. "
            f"Received: return_tensors={return_tensors!r}. Convert what comes out of them."
        )
    if return_tensors == "np":
        return lambda tensor: tensor.numpy()
    if return_tensors == "jax":
        to_jax = _imported("jax.numpy", return_tensors, "jax").asarray
        return lambda tensor: to_jax(tensor.numpy())
    to_torch = _imported("torch", return_tensors, "torch").from_numpy
    return lambda tensor: to_torch(tensor.numpy())


def _imported(module: str, return_tensors: str, package: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f"`return_tensors` must name a library that is installed. Received: return_tensors={return_tensors!r}, "
            f"but {package} cannot be imported ({error}). Run `pip install {package}`, or take 'np'."
        ) from error
