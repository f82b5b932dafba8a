"""The activation functions that a CLIP config's `hidden_act` can name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops


def quick_gelu(x: Any) -> Any:
    """Returns `x * sigmoid(1.702 x)`, the approximation OpenAI's weights were trained with."""
    return x * ops.sigmoid(1.702 * x)


def exact_gelu(x: Any) -> Any:
    """Returns `x * Phi(x)` through the error function, as most OpenCLIP weights expect."""
    return keras.activations.gelu(x, approximate=False)


def tanh_gelu(x: Any) -> Any:
    """Returns GELU's tanh approximation."""
    return keras.activations.gelu(x, approximate=True)


ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "quick_gelu": quick_gelu,
    "gelu": exact_gelu,
    "gelu_new": tanh_gelu,
    "gelu_pytorch_tanh": tanh_gelu,
    "relu": keras.activations.relu,
    "silu": keras.activations.silu,
}
"""From `hidden_act` to its function, for every name in `configuration.HIDDEN_ACTIVATIONS`."""
