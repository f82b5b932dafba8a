"""Bottlenecks: narrow MLPs behind attention or behind the MLP.

A site's state is `(y, residual)`: what is about to be added to the residual stream, and that stream.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from tf_clip.adapters.methods.base import FUNCTIONS, GATE_NAMES, PLAIN, TRANSPOSED, Adapter, Array, Form, gate_of
from tf_clip.adapters.methods.phm import PHMDense
from tf_clip.layers.adapter_sites import RowInputs

_NORM_EPSILON = 1e-5
_PHM_NAMES = ("W", "W_left", "W_right", "phm_rule", "phm_rule_left", "phm_rule_right", "b")


class Bottleneck(Adapter):
    """Reads each token, squeezes it through a few units, and adds what comes out.

    Source: Houlsby et al. 2019; Pfeiffer et al. 2020; He et al. 2021; Mahabadi et al. 2021 (compacter).
    """

    def build(self, input_shape: Any) -> None:
        """Makes the way down and the way up."""
        config, width = self.settings, self.location.site.width
        middle = max(1, int(width // config.reduction_at(self.location.layer)))
        self.function = FUNCTIONS[config.non_linearity]
        self.norm_before = self._norm("norm_before") if config.ln_before else None
        if config.phm_layer:
            self.adapter_down = PHMDense(width, middle, self, "down", "adapter_down")
            self.adapter_up = PHMDense(middle, width, self, "up", "adapter_up")
            self.adapter_down.build(None)
            self.adapter_up.build(None)
        else:
            down, up = self._initializers(width)
            self.adapter_down = self.dense("adapter_down", width, middle, down, self.draw("zeros"))
            self.adapter_up = self.dense("adapter_up", middle, width, up, self.draw("zeros"))
        self.scaling = config.scaling
        if config.scaling in ("learned", "channel"):
            shape = (1,) if config.scaling == "learned" else (width,)
            self.scaling = self.add_weight(shape=shape, initializer="ones", name="scaling")
        self.gate = None
        if config.use_gating:
            self.gate = self.dense("gate", width, 1, self.draw("normal", 0.02), self.draw("zeros"))
        self.norm_after = self._norm("norm_after") if config.ln_after else None
        self.drop = self.dropout(config.dropout)
        self.drop_path = self.dropout(config.stochastic_depth, rowwise=True)

    def _initializers(self, width: int) -> tuple[Any, Any]:
        kind = self.settings.init_weights
        if kind == "mam_adapter":
            return self.draw("uniform", width**-0.5), self.draw("zeros")
        size = ("truncated", 0.01) if kind == "houlsby" else ("normal", 0.02)
        return self.draw(*size), self.draw(*size)

    def _norm(self, name: str) -> keras.layers.LayerNormalization:
        norm = keras.layers.LayerNormalization(epsilon=_NORM_EPSILON, dtype=self.dtype_policy, name=name)
        norm.build((None, None, self.location.site.width))
        return norm

    def read(self, y: Any, residual: Any) -> Any:
        """Returns what the way down reads."""
        if self.settings.is_parallel:
            return residual
        return y + residual if self.settings.original_ln_before else y

    def made(self, read: Any, training: bool | None) -> Any:
        """Returns what comes out of the way up, scaled."""
        normed = read if self.norm_before is None else self.norm_before(read)
        up = self.adapter_up(self.function(self.adapter_down(normed)))
        up = up if self.drop_path is None else self.drop_path(up, training=training)
        return up * ops.cast(ops.convert_to_tensor(self.scaling), up.dtype)

    def adapt(self, state: tuple[Any, Any], rows: RowInputs, training: bool | None) -> tuple[Any, Any]:
        """Adds the change to what is about to be added."""
        y, residual = state
        config, read = self.settings, self.read(y, residual)
        made = self.made(read, training)
        made = made if self.drop is None else self.drop(made, training=training)
        made = made if self.gate is None else made * gate_of(self, read)
        way = y
        # How often the stream itself is in the result: the layer adds it once, behind this.
        streams = 0 if config.original_ln_after else -1
        if not config.is_parallel and not config.residual_before_ln and config.original_ln_before:
            if self.norm_after is not None and config.adapter_residual_before_ln:
                way = read
            else:
                streams += 1
        if self.norm_after is None:
            made = made + way
        elif config.adapter_residual_before_ln and not config.is_parallel:
            made = self.norm_after(made + way)
        else:
            made = self.norm_after(made) + way
        return (made + streams * residual if streams else made), residual

    @property
    def file_names(self) -> Mapping[str, tuple[str, Form]]:  # type: ignore[override]
        """From the path of a weight in here to its name in files."""
        step = 1 if self.settings.ln_before else 0
        names = {
            "adapter_down/kernel": (f"adapter_down.{step}.weight", TRANSPOSED),
            "adapter_down/bias": (f"adapter_down.{step}.bias", PLAIN),
            "adapter_up/kernel": ("adapter_up.weight", TRANSPOSED),
            "adapter_up/bias": ("adapter_up.bias", PLAIN),
            "scaling": ("scaling", PLAIN),
            **GATE_NAMES,
        }
        for norm, file_name in (("norm_before", "adapter_norm_before"), ("norm_after", "adapter_norm_after")):
            names[f"{norm}/gamma"] = (f"{file_name}.weight", PLAIN)
            names[f"{norm}/beta"] = (f"{file_name}.bias", PLAIN)
        for name in _PHM_NAMES:
            names[f"adapter_down/{name}"] = (f"adapter_down.{step}.{name}", PLAIN)
            names[f"adapter_up/{name}"] = (f"adapter_up.{name}", PLAIN)
        return names

    def to_file(self) -> dict[str, Array]:
        """Returns its weights; a norm in front is there twice, as AdapterHub registers it."""
        tensors = super().to_file()
        if self.norm_before is not None:
            for name in ("weight", "bias"):
                tensors[f"adapter_down.0.{name}"] = tensors[f"adapter_norm_before.{name}"]
        return tensors
