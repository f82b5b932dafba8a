"""AdapterFusion: a learned attention, for each token, over what several bottlenecks make."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from tf_clip.adapters.config import FusionConfig
from tf_clip.adapters.methods.base import Array, scope_of, values
from tf_clip.adapters.scores import record
from tf_clip.adapters.sites import Location

_NEAR_IDENTITY = 1e-6
_REGULARIZATION = 0.01


@keras.saving.register_keras_serializable(package="tf_clip")
class NearIdentity(keras.regularizers.Regularizer):
    """Adds 0.01 times the squared distance of a matrix from the identity to the loss."""

    def __call__(self, x: Any) -> Any:
        """Returns the penalty."""
        return _REGULARIZATION * ops.sum(ops.square(x - ops.eye(x.shape[0], dtype=x.dtype)))

    def get_config(self) -> dict[str, Any]:
        """Returns no arguments: there are none."""
        return {}


class Fusion(keras.layers.Layer):
    """Weighs bottlenecks at one site.

    Args:
        name: of the fusion.
        config: how.
        location: where.
    """

    def __init__(self, name: str, config: FusionConfig, location: Location) -> None:
        super().__init__(name=f"fusion_{scope_of(name)}", dtype=location.site.dtype_policy)
        self.fusion_name, self.settings, self.location = name, config, location

    def make(self) -> None:
        """Makes the variables, under the names of the layers around the site."""
        with contextlib.ExitStack() as stack:
            for scope in self.location.scopes:
                stack.enter_context(keras.name_scope(scope))
            self.build(None)

    def build(self, input_shape: Any) -> None:
        """Makes the matrices."""
        config, width = self.settings, self.location.site.width
        normal = keras.initializers.RandomNormal(stddev=0.02)
        self.query = self._dense("query", width, normal) if config.query else None
        self.key = self._dense("key", width, normal) if config.key else None
        self.value = None
        if config.value:
            self.value = self._dense("value", width, normal, use_bias=False)
            if config.value_initialized:
                identity = ops.eye(width)
                self.value.kernel.assign(identity + _NEAR_IDENTITY * (1 - identity))
        self.drop = keras.layers.Dropout(config.dropout_prob) if config.dropout_prob else None

    def _dense(self, name: str, width: int, initializer: Any, use_bias: bool = True) -> keras.layers.Dense:
        regularizer = NearIdentity() if name == "value" and self.settings.regularization else None
        layer = keras.layers.Dense(
            width,
            use_bias=use_bias,
            kernel_initializer=initializer,
            kernel_regularizer=regularizer,
            dtype=self.dtype_policy,
            name=name,
        )
        layer.build((None, width))
        return layer

    def weigh(self, query: Any, made: Sequence[Any], residual: Any, training: bool | None) -> Any:
        """Returns the weighed sum of what the bottlenecks made, with the residual added.

        Args:
            query: `[batch, length, width]`, who asks.
            made: as many of the same shape.
            residual: what is added.
            training: whether scores are dropped.
        """
        config = self.settings
        stacked = ops.stack(made, axis=2)  # [batch, length, adapters, width]
        valued = stacked + ops.expand_dims(residual, 2) if config.residual_before else stacked
        keys = stacked if self.key is None else self.key(stacked)
        asked = query if self.query is None else self.query(query)
        scores = ops.sum(ops.expand_dims(asked, 2) * keys, axis=-1)
        scores = scores if self.drop is None else self.drop(scores, training=training)
        shares = ops.cast(ops.softmax(ops.cast(scores, "float32"), axis=-1), query.dtype)
        record("fusions", self.fusion_name, self.location, shares)
        weights = ops.expand_dims(shares, -1)
        if self.value is not None and config.value_before_softmax:
            valued = self.value(valued)
        summed = ops.sum(weights * valued, axis=2)
        if self.value is not None and not config.value_before_softmax:
            summed = self.value(summed)
        return summed if config.residual_before else summed + residual

    def _matrices(self) -> dict[str, tuple[Any, bool]]:
        found = {}
        for name, layer in (("query", self.query), ("key", self.key), ("value", self.value)):
            if layer is not None:
                found[f"{name}.weight"] = (layer.kernel, True)
                if layer.use_bias:
                    found[f"{name}.bias"] = (layer.bias, False)
        return found

    def to_file(self) -> dict[str, Array]:
        """Returns its weights as AdapterHub's files have them."""
        return {
            name: values(variable).T if is_transposed else values(variable)
            for name, (variable, is_transposed) in self._matrices().items()
        }

    def from_file(self, tensors: Mapping[str, Array]) -> None:
        """Takes its weights from a file."""
        for name, (variable, is_transposed) in self._matrices().items():
            variable.assign(tensors[name].T if is_transposed else tensors[name])
