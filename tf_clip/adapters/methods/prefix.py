"""Prefix tuning: learned keys and values in front of each attention's own.

A site's state is `(k, v, visible, x)`: keys and values `[batch, length, heads, head_width]`, which keys each token may
read, and what attention was fed with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from tf_clip.adapters.methods.base import FUNCTIONS, PLAIN, TRANSPOSED, Adapter, Form, StoredLayer, gate_of
from tf_clip.layers.adapter_sites import RowInputs


class Prefixes(StoredLayer):
    """The prefixes of all layers of a tower: learned as they are, or made by one small network.

    Args:
        config: a `PrefixTuningConfig`.
        width: of the tower.
        num_layers: how many layers have a prefix.
        dtype: a dtype policy.
        name: of the layer.
    """

    file_names: ClassVar[Mapping[str, tuple[str, Form]]] = {
        "flat": ("control_trans", Form(np.ravel, np.asarray)),
        "table": ("wte.weight", PLAIN),
        "down_kernel": ("control_trans.0.weight", TRANSPOSED),
        "down_bias": ("control_trans.0.bias", PLAIN),
        "up_kernel": ("control_trans.2.weight", TRANSPOSED),
        "up_bias": ("control_trans.2.bias", PLAIN),
    }

    def __init__(self, config: Any, width: int, num_layers: int, dtype: Any, name: str) -> None:
        super().__init__(dtype=dtype, name=name)
        self.settings, self.width, self.num_layers = config, width, num_layers
        self.function = FUNCTIONS[config.non_linearity]

    def build(self, input_shape: Any) -> None:
        """Makes the prefixes, or the network."""
        config, units = self.settings, self.num_layers * 2 * self.width
        seed = config.init_weights_seed

        def uniform(bound: float, number: int) -> Any:
            own = None if seed is None else seed + number
            return keras.initializers.RandomUniform(-bound, bound, seed=own)

        normal = keras.initializers.RandomNormal(stddev=1.0, seed=seed)
        if config.flat:
            self.flat = self.add_weight(shape=(config.prefix_length, units), initializer=normal, name="flat")
            return
        middle = config.bottleneck_size
        self.table = self.add_weight(shape=(config.prefix_length, self.width), initializer=normal, name="table")
        near, far = self.width**-0.5, middle**-0.5
        self.down = self.add_weight(shape=(self.width, middle), initializer=uniform(near, 1), name="down_kernel")
        self.down_bias = self.add_weight(shape=(middle,), initializer=uniform(near, 2), name="down_bias")
        self.up = self.add_weight(shape=(middle, units), initializer=uniform(far, 3), name="up_kernel")
        self.up_bias = self.add_weight(shape=(units,), initializer=uniform(far, 4), name="up_bias")

    def of_layer(self, number: int) -> tuple[Any, Any]:
        """Returns a layer's keys and values, `[prefix_length, width]` each."""
        begin, end = 2 * self.width * number, 2 * self.width * (number + 1)
        if self.settings.flat:
            both = ops.convert_to_tensor(self.flat)[:, begin:end]
        else:
            hidden = ops.matmul(self.table, self.down) + ops.convert_to_tensor(self.down_bias)
            # Only what this layer needs of the last product.
            kernel = ops.convert_to_tensor(self.up)[:, begin:end]
            both = ops.matmul(self.function(hidden), kernel) + ops.convert_to_tensor(self.up_bias)[begin:end]
        return both[:, : self.width], both[:, self.width :]

    def take(self, other: Prefixes) -> None:
        """Becomes, being flat, what another makes."""
        made = [part for number in range(self.num_layers) for part in other.of_layer(number)]
        self.flat.assign(ops.concatenate(made, axis=-1))


class Prefix(Adapter):
    """Puts its layer's prefix in front.

    Args:
        number: which of the prefixes is this layer's.

    Source: Li and Liang 2021; with `use_gating` as in UniPELT (Mao et al. 2022).
    """

    file_names: ClassVar[Mapping[str, tuple[str, Form]]] = {
        "gate/kernel": ("weight", TRANSPOSED),
        "gate/bias": ("bias", PLAIN),
    }

    def __init__(self, *args: Any, number: int) -> None:
        super().__init__(*args)
        self.number = number

    def build(self, input_shape: Any) -> None:
        """Makes the gate, if there is one."""
        config, width = self.settings, self.location.site.width
        self.extra_tokens = config.prefix_length
        self.gate = None
        if config.use_gating:
            units = 1 if config.shared_gating else 2
            bias = self.draw("uniform", width**-0.5)
            self.gate = self.dense("gate", width, units, self.draw("normal", 0.02), bias)
        self.drop = self.dropout(config.dropout)

    def adapt(self, state: tuple[Any, ...], rows: RowInputs, training: bool | None) -> tuple[Any, ...]:
        """Puts keys and values in front, which every token may read."""
        keys, values_, visible, x = state
        own = self.shared.it.prefixes[self.location.tower].of_layer(self.number)
        length = self.extra_tokens
        shape = (ops.shape(keys)[0], length, keys.shape[2], keys.shape[3])
        own = [
            ops.broadcast_to(ops.cast(ops.reshape(part, (1, length, *keys.shape[2:])), keys.dtype), shape)
            for part in own
        ]
        if self.drop is not None:
            own = [self.drop(part, training=training) for part in own]
        if self.gate is not None:
            gate = gate_of(self, x)[:, :, None]  # [batch, 1, 1, units]
            own = [own[0] * gate[..., :1], own[1] * gate[..., -1:]]
        return (
            ops.concatenate([own[0], keys], axis=1),
            ops.concatenate([own[1], values_], axis=1),
            with_columns(visible, length, True),
            x,
        )


def with_columns(visible: Any, count: int, value: bool) -> Any:
    """Puts keys that all tokens may read, or none, in front of those that are there."""
    if visible is None or not count:
        return visible
    column = ops.ones_like(visible[..., :1]) if value else ops.zeros_like(visible[..., :1])
    return ops.concatenate([ops.repeat(column, count, axis=-1), visible], axis=-1)
