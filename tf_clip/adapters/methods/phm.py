"""Matrices that are sums of Kronecker products, of which compacter's bottlenecks are made."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from tf_clip.adapters.methods.base import Adapter, Held


def rule_initializer(adapter: Adapter, config: Any, is_shared: bool) -> Any:
    """Returns what draws a rule."""
    if config.phm_c_init == "uniform":
        return adapter.draw("uniform", 1.0 if is_shared else 0.01)
    return adapter.draw("normal", config.phm_init_range if is_shared else 0.01)


def weight_initializer(adapter: Adapter, config: Any, shape: tuple[int, ...]) -> Any:
    """Returns what draws the other factors, `[phm_dim, a, b]`, by the size of one."""
    inputs, outputs = shape[1:]
    if config.hypercomplex_nonlinearity == "glorot-uniform":
        return adapter.draw("uniform", (6 / (inputs + outputs)) ** 0.5)
    if config.hypercomplex_nonlinearity == "glorot-normal":
        return adapter.draw("normal", (2 / (inputs + outputs)) ** 0.5)
    return adapter.draw("normal", config.phm_init_range)


def rule_shapes(config: Any) -> dict[str, tuple[int, ...]]:
    """Returns the names of a rule's weights and their shapes."""
    size = config.phm_dim
    if config.factorized_phm_rule:
        return {"phm_rule_left": (size, size, 1), "phm_rule_right": (size, 1, size)}
    return {"phm_rule": (size, size, size)}


def _factor_shapes(config: Any, name: str, width: int, units: int) -> dict[str, tuple[int, ...]]:
    size = config.phm_dim
    for what in (width, units):
        if what % size:
            raise ValueError(
                f"`phm_dim` must divide the width and the bottleneck of every layer. Received: phm_dim={size}, a layer "
                f"of {width} by {units}. Change `phm_dim` or `reduction_factor`."
            )
    if config.factorized_phm_W:
        rank = config.phm_rank
        return {f"{name}_left": (size, width // size, rank), f"{name}_right": (size, rank, units // size)}
    return {name: (size, width // size, units // size)}


def shared_shapes(config: Any, width: int) -> dict[str, tuple[int, ...]]:
    """Returns names and shapes of the factors that all layers of a width share, down and up.

    Raises:
        ValueError: the layers' bottlenecks are not of one width.
    """
    if not isinstance(config.reduction_factor, int | float):
        raise ValueError(
            "`reduction_factor` must be a number with shared_W_phm=True: layers of other shapes share nothing. "
            f"Received: reduction_factor={config.reduction_factor}. Give one for all."
        )
    middle = int(width // config.reduction_factor)
    return {**_factor_shapes(config, "W_down", width, middle), **_factor_shapes(config, "W_up", middle, width)}


class PHMDense(keras.layers.Layer):
    """A dense layer whose kernel is the sum of `phm_dim` Kronecker products of a small rule and a low-rank factor.

    Args:
        width, units: of input and output.
        adapter: has this layer, and draws its weights.
        position: `"down"` or `"up"`.
        name: of the layer.

    Source: Zhang et al. 2021; Mahabadi et al. 2021.
    """

    def __init__(self, width: int, units: int, adapter: Adapter, position: str, name: str) -> None:
        super().__init__(dtype=adapter.dtype_policy, name=name)
        self.width, self.units, self.position = width, units, position
        self.owner = Held(adapter)
        self.own: dict[str, Any] = {}

    def build(self, input_shape: Any) -> None:
        """Makes the factors that are not shared."""
        adapter, config = self.owner.it, self.owner.it.settings
        shapes = _factor_shapes(config, "W", self.width, self.units)
        if not config.shared_W_phm:
            for name, shape in shapes.items():
                initializer = weight_initializer(adapter, config, shape)
                self.own[name] = self.add_weight(shape=shape, initializer=initializer, name=name)
        if not config.shared_phm_rule:
            for name, shape in rule_shapes(config).items():
                initializer = rule_initializer(adapter, config, False)
                self.own[name] = self.add_weight(
                    shape=shape, initializer=initializer, trainable=config.learn_phm, name=name
                )
        self.bias = self.add_weight(shape=(self.units,), initializer="zeros", name="b") if config.phm_bias else None

    def _factor(self, name: str) -> Any:
        """Returns one of the two kinds of factors, multiplied out."""
        config, shared, site = self.owner.it.settings, self.owner.it.shared.it, self.owner.it.location.site

        def weight(part: str) -> Any:
            if name == "phm_rule" and config.shared_phm_rule:
                return ops.convert_to_tensor(shared.matrices[f"{name}{part}"])
            if name == "W" and config.shared_W_phm:
                return ops.convert_to_tensor(shared.matrices[f"W_{self.position}{part}_{site.width}"])
            return ops.convert_to_tensor(self.own[f"{name}{part}"])

        is_split = config.factorized_phm_rule if name == "phm_rule" else config.factorized_phm_W
        return ops.matmul(weight("_left"), weight("_right")) if is_split else weight("")

    def call(self, x: Any) -> Any:
        """Transforms."""
        kernel = ops.einsum("iab,icd->acbd", self._factor("phm_rule"), self._factor("W"))
        y = ops.matmul(x, ops.reshape(kernel, (self.width, self.units)))
        return y if self.bias is None else y + ops.convert_to_tensor(self.bias)
