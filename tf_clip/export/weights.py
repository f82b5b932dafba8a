"""A model's weights in the variables of an export: once, in the dtype asked for, and float32 where they are used."""

from __future__ import annotations

import contextlib
from typing import Any

import keras
import tensorflow as tf

from tf_clip.layers.initializers import weights_come_from_files
from tf_clip.models.clip import CLIPModel

DTYPES = ("float32", "float16", "bfloat16")
# exp() of a half-precision temperature would be off by whole units, and it is one number.
_ALWAYS_FLOAT32 = ("logit_scale", "logit_bias")
_TABLE = "/embeddings"


class StoredWeights:
    """Holds a model's weights as plain TensorFlow variables, and lends them to it while it is traced.

    The model itself is not changed.

    Args:
        model: the model.
        dtype: one of `DTYPES`, how the weights are stored.

    Raises:
        ValueError: the dtype is none of these, or a weight is too large for it.
    """

    def __init__(self, model: CLIPModel, dtype: str) -> None:
        if dtype not in DTYPES:
            raise ValueError(f"`dtype` must be one of {DTYPES}. Received: dtype={dtype!r}. Choose float32 if unsure.")
        by_path = model._variables_by_path()
        self.variables = {
            path: _stored(path, variable, "float32" if path in _ALWAYS_FLOAT32 else dtype)
            for path, variable in by_path.items()
        }
        self.model = model if model.dtype_policy.name == "float32" else _in_float32(model)

    def lent(self) -> contextlib.AbstractContextManager[Any]:
        """Returns a context in which `model` computes with the stored weights, in float32."""
        scope = keras.StatelessScope()
        for path, variable in self.model._variables_by_path().items():
            # The rows of a table are cast when they have been taken from it: all of a vocabulary takes longer
            # than the few words of a text.
            value = tf.convert_to_tensor(self.variables[path]) if path.endswith(_TABLE) else self[path]
            scope.add_update((variable, value))
        return scope

    def __getitem__(self, path: str) -> tf.Tensor:
        """Returns one weight, float32."""
        return tf.cast(self.variables[path], tf.float32)


def _stored(path: str, variable: Any, dtype: str) -> tf.Variable:
    # The very variable where it is stored as it is: large models need their memory once.
    value = variable.value if variable.dtype == dtype else tf.cast(variable.value, dtype)
    if not bool(tf.reduce_all(tf.math.is_finite(value))):
        raise ValueError(
            f"`dtype` must be able to hold every weight. Received: dtype={dtype!r}, but {path} has values that are "
            "not finite in it. Choose bfloat16 or float32, or check the checkpoint."
        )
    return value if isinstance(value, tf.Variable) else tf.Variable(value, trainable=False, name=path)


def _in_float32(model: CLIPModel) -> CLIPModel:
    """Returns a model of the same kind that computes in float32; its own weights are never looked at."""
    with weights_come_from_files():
        return CLIPModel(model.config, attn_implementation=model.attn_implementation, dtype="float32")
