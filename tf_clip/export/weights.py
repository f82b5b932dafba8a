"""A model's weights as an export stores them: once, in the dtype asked for, and cast to float32 where they are used."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from tf_clip.adapters.composition import require_same_for_every_row
from tf_clip.layers.adapter_sites import is_of_adapter
from tf_clip.layers.initializers import weights_come_from_files
from tf_clip.models.two_towers import TwoTowerModel

DTYPES = ("float32", "float16", "bfloat16")
# exp() of a half-precision temperature would be off by whole units, and the temperature is one number.
_ALWAYS_FLOAT32 = ("logit_scale", "logit_bias")
# The rows of a table are cast after they are looked up: casting a whole vocabulary takes longer than a few rows.
_TABLE = "/embeddings"
_READING = ("ReadVariableOp", "Cast")


class StoredWeights:
    """Holds a model's weights as plain TensorFlow variables, and lends them to the model while it is traced.

    The model itself is not changed.

    Args:
        model: the model.
        dtype: one of `DTYPES`, how the weights are stored.

    Raises:
        ValueError: the dtype is none of these, a weight is too large for it, or the active adapters do not treat all
            rows alike.
    """

    def __init__(self, model: TwoTowerModel, dtype: str) -> None:
        if dtype not in DTYPES:
            raise ValueError(f"`dtype` must be one of {DTYPES}. Received: dtype={dtype!r}. Choose float32 if unsure.")
        by_path = weights_by_path(model)
        self.variables = {
            path: _stored(path, variable, "float32" if path in _ALWAYS_FLOAT32 else dtype)
            for path, variable in by_path.items()
        }
        parts = (model, model.text_encoder, model.image_encoder)
        is_float32 = all(part.dtype_policy.name == "float32" for part in parts)
        self.model = model if is_float32 else float32_twin(model, model.attn_implementation)

    def lent(self) -> contextlib.AbstractContextManager[Any]:
        """Returns a context in which `model` computes with the stored weights, in float32."""
        by_path = weights_by_path(self.model)
        values = {id(variable): (self.variables[path], path.endswith(_TABLE)) for path, variable in by_path.items()}
        return _LentWeights(values)

    def __getitem__(self, path: str) -> tf.Tensor:
        """Returns one weight, float32."""
        return tf.cast(self.variables[path], tf.float32)


class _LentWeights(keras.StatelessScope):
    """Replaces the values of Keras's variables by those of stored ones, while Keras reads them.

    Args:
        values: from the identity of Keras's variable to the stored one, and whether that is a table.
    """

    def __init__(self, values: Mapping[int, tuple[tf.Variable, bool]]) -> None:
        super().__init__()
        self._values = values

    def get_current_value(self, variable: Any) -> Any:
        """Returns the value of a variable in this scope."""
        stored, is_table = self._values[id(variable)]
        if stored.dtype == tf.float32 or is_table:
            return tf.convert_to_tensor(stored)
        # The cast waits for the operation before it. All weights in float32 at once would take more memory than half
        # precision saves.
        with tf.control_dependencies(_latest_operation()):
            return tf.cast(stored, tf.float32)


def _latest_operation() -> list[tf.Operation]:
    """Returns the last operation of the graph that computes something from the inputs, in a list; empty without one."""
    operations = reversed(tf.compat.v1.get_default_graph().get_operations())
    return list(itertools.islice((one for one in operations if one.inputs and one.type not in _READING), 1))


def _stored(path: str, variable: Any, dtype: str) -> tf.Variable:
    # A variable that already has the dtype is stored itself, so that large models need their memory once.
    value = variable.value if variable.dtype == dtype else tf.cast(variable.value, dtype)
    if not bool(tf.reduce_all(tf.math.is_finite(value))):
        raise ValueError(
            f"`dtype` must be able to hold every weight. Received: dtype={dtype!r}, but {path} has values that are "
            "not finite in it. Choose bfloat16 or float32, or check the checkpoint."
        )
    return value if isinstance(value, tf.Variable) else tf.Variable(value, trainable=False, name=path)


def float32_twin(model: TwoTowerModel, attn_implementation: str) -> TwoTowerModel:
    """Returns a model of the same classes that computes in float32; its own weights are never looked at.

    Raises:
        ValueError: the model's configuration does not make the same model in float32.
    """
    changes = {"attn_implementation": attn_implementation, "dtype": "float32"}
    try:
        with weights_come_from_files():
            twin = type(model).from_config({**model.get_config(), **changes})
    except (TypeError, ValueError) as error:
        raise _cannot_be_made_again(f"{type(error).__name__}: {error}") from error
    for name in ("text_encoder", "image_encoder"):
        ours, theirs = getattr(model, name), getattr(twin, name)
        if type(ours) is not type(theirs) or theirs.compute_dtype != "float32":
            becomes = f"a {type(theirs).__name__} that computes in {theirs.compute_dtype}"
            raise _cannot_be_made_again(f"{name}, a {type(ours).__name__}, becomes {becomes}")
    return twin


def _cannot_be_made_again(received: str) -> ValueError:
    return ValueError(
        "`model` must be made again in float32 by from_config of what its get_config returns. "
        f"Received: {received}. Register the classes of its towers with keras.saving.register_keras_serializable, or "
        "load it with dtype='float32' and attn_implementation='eager'."
    )


def weights_by_path(model: TwoTowerModel) -> dict[str, Any]:
    """Returns a model's weights, and those of its adapters if any are active, by path.

    Raises:
        ValueError: rows choose their adapter, or go through several.
    """
    weights: dict[str, Any] = model._variables_by_path()
    if model.active_adapters is None:
        return weights
    require_same_for_every_row(model.active_adapters)
    own = [v for v in model.weights if is_of_adapter(v) and "seed_generator" not in v.path]
    return {**weights, **{variable.path: variable for variable in own}}
