"""AdapterFusion: a learned attention, for each token, over what several bottlenecks make."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import keras
from keras import ops

from tf_clip.adapters.config import FusionConfig
from tf_clip.adapters.methods.base import PLAIN, TRANSPOSED, Adapter, Form
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


class Fusion(Adapter):
    """Weighs bottlenecks at one site."""

    file_names: ClassVar[Mapping[str, tuple[str, Form]]] = {
        f"{layer}/{ours}": (f"{layer}.{theirs}", form)
        for layer in ("query", "key", "value")
        for ours, theirs, form in (("kernel", "weight", TRANSPOSED), ("bias", "bias", PLAIN))
    }

    def __init__(self, name: str, config: FusionConfig, location: Location) -> None:
        super().__init__(f"fusion_{name}", config, location)
        self.fusion_name = name

    def build(self, input_shape: Any) -> None:
        """Makes the matrices."""
        config, width = self.settings, self.location.site.width
        normal = keras.initializers.RandomNormal(stddev=0.02)
        zeros = keras.initializers.Zeros()
        self.query = self.dense("query", width, width, normal, zeros) if config.query else None
        self.key = self.dense("key", width, width, normal, zeros) if config.key else None
        self.value = None
        if config.value:
            near_identity = NearIdentity() if config.regularization else None
            self.value = self.dense("value", width, width, normal, kernel_regularizer=near_identity)
            if config.value_initialized:
                identity = ops.eye(width)
                self.value.kernel.assign(identity + _NEAR_IDENTITY * (1 - identity))
        self.drop = keras.layers.Dropout(config.dropout_prob) if config.dropout_prob else None

    def weigh(self, query: Any, made: Sequence[Any], residual: Any, training: bool | None) -> Any:
        """Returns the weighed sum of what the bottlenecks made, with the residual added.

        Args:
            query: `[batch, length, width]`, what each token looks for.
            made: what each bottleneck made, each of the same shape.
            residual: what is added.
            training: whether scores are dropped.
        """
        config = self.settings
        stacked = ops.stack(made, axis=2)  # [batch, length, adapters, width]
        valued = stacked + ops.expand_dims(residual, 2) if config.residual_before else stacked
        keys = stacked if self.key is None else self.key(stacked)
        queries = query if self.query is None else self.query(query)
        scores = ops.sum(ops.expand_dims(queries, 2) * keys, axis=-1)
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
