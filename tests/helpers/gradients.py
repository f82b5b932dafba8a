"""Values and gradients on any backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from helpers.arrays import array


def value_and_gradients(function: Callable[..., Any], *arrays: Any, compiled: bool = True) -> tuple[Any, list[Any]]:
    """Returns a scalar function's value and its gradients with regard to all of its arguments.

    Args:
        function: of tensors, returns a scalar.
        *arrays: the arguments, float.
        compiled: whether the backend makes a graph of it, as `fit` does; PyTorch does not.
    """
    value, gradients = _ON[keras.backend.backend()](function, [ops.convert_to_tensor(x) for x in arrays], compiled)
    return float(array(value)), [array(gradient) for gradient in gradients]


def _on_tensorflow(function: Any, tensors: Any, compiled: Any) -> Any:
    import tensorflow as tf

    def run(*tensors: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            value = function(*tensors)
        return value, tape.gradient(value, tensors)

    return (tf.function(run) if compiled else run)(*tensors)


def _on_jax(function: Any, tensors: Any, compiled: Any) -> Any:
    import jax

    run = jax.value_and_grad(function, argnums=tuple(range(len(tensors))))
    return (jax.jit(run) if compiled else run)(*tensors)


def _on_torch(function: Any, tensors: Any, compiled: Any) -> Any:
    leaves = [tensor.clone().requires_grad_() for tensor in tensors]
    value = function(*leaves)
    value.backward()
    return value, [leaf.grad for leaf in leaves]


_ON = {"tensorflow": _on_tensorflow, "jax": _on_jax, "torch": _on_torch}


def unit_rows(seed: int, rows: int, width: int) -> np.ndarray:
    x = np.random.default_rng(seed).normal(size=(rows, width)).astype("float32")
    return np.asarray(x / np.linalg.norm(x, axis=-1, keepdims=True))
