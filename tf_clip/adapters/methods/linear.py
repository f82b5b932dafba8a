"""Adapters of a dense layer, which can be merged into its weights: LoRA, rs-LoRA, DoRA, VeRA and IA3.

A site's state is `(y, x)`: what the dense layer returned, its bias included, and what it read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from keras import ops
from keras.initializers import Constant

from tf_clip.adapters.methods.base import COLUMN, GATE_NAMES, TRANSPOSED, Adapter, Array, Form, gate_of, values
from tf_clip.layers.adapter_sites import RowInputs

State = tuple[Any, Any]


def _diagonal(matrix: Array) -> Array:
    diagonal = np.diag(matrix)
    beside = np.abs(matrix - np.diag(diagonal)).max()
    if beside > 0:
        raise ValueError(
            f"`vera_D` and `vera_B` must be diagonal matrices, as in the paper. Received: {beside:.3g} beside the "
            "diagonal, which AdapterHub trains as well. Such an adapter cannot be read."
        )
    return diagonal


# AdapterHub's files have the diagonal matrices whole.
DIAGONAL = Form(np.diag, _diagonal)


class LinearAdapter(Adapter):
    """What adapters of dense layers have in common: they can be merged."""

    def merged(self, kernel: Array, bias: Array) -> tuple[Array, Array]:
        """Returns the dense layer's weights with the adapter in them."""
        raise NotImplementedError(f"{type(self).__name__} must say how it is merged.")

    def _make_gate(self) -> None:
        width = self.location.site.width
        self.gate = None
        if self.settings.use_gating:
            bound = self.draw("uniform", width**-0.5)
            self.gate = self.dense("gate", width, 1, self.draw("normal", 0.02), bound)


class LoRA(LinearAdapter):
    """Adds a product of two narrow matrices to a dense layer's: `y + scale * x A B`.

    Source: Hu et al. 2021; with `use_gating` as in UniPELT (Mao et al. 2022), with `use_rslora` Kalajdzievski 2023.
    """

    file_names: ClassVar[Mapping[str, tuple[str, Form]]] = {
        "lora_A": ("lora_A", TRANSPOSED),
        "lora_B": ("lora_B", TRANSPOSED),
        **GATE_NAMES,
    }

    def build(self, input_shape: Any) -> None:
        """Makes the two matrices."""
        site, rank = self.location.site, self.settings.r
        narrow, wide = self._initializers(site.width, rank)
        self.lora_A = self.add_weight(shape=(site.width, rank), initializer=narrow, name="lora_A")
        self.lora_B = self.add_weight(shape=(rank, site.units), initializer=wide, name="lora_B")
        self._make_gate()
        self.drop = self.dropout(self.settings.dropout)

    def _initializers(self, width: int, rank: int) -> tuple[Any, Any]:
        kind = self.settings.init_weights
        if kind == "bert":
            return self.draw("normal", 0.02), self.draw("normal", 0.02)
        if kind == "ia3":
            return self.draw("ones"), self.draw("ones")
        if kind == "vera":
            return self.draw("uniform", (6 / width) ** 0.5), self.draw("uniform", (6 / rank) ** 0.5)
        return self.draw("uniform", width**-0.5), self.draw("zeros")

    def matrices(self) -> tuple[Any, Any]:
        """Returns the way down, `[width, r]`, and the way up, `[r, units]`, not scaled."""
        return ops.convert_to_tensor(self.lora_A), ops.convert_to_tensor(self.lora_B)

    def change(self, x: Any, training: bool | None) -> Any:
        """Returns what is added."""
        down, up = self.matrices()
        dropped = x if self.drop is None else self.drop(x, training=training)
        added = ops.matmul(ops.matmul(dropped, down), up)
        return added * (self.settings.factor if self.gate is None else gate_of(self, x))

    def adapt(self, state: State, rows: RowInputs, training: bool | None) -> State:
        """Adds the change to what the dense layer returned; a second LoRA adds its own."""
        y, x = state
        return y + self.change(x, training), x

    def delta(self) -> Array:
        """Returns what is added to the kernel, scaled."""
        down, up = (np.asarray(ops.convert_to_numpy(ops.cast(m, "float32")), np.float64) for m in self.matrices())
        added: Array = self.settings.factor * (down @ up)
        return added

    def merged(self, kernel: Array, bias: Array) -> tuple[Array, Array]:
        """Returns the kernel with the change added."""
        return kernel + self.delta(), bias


class VeRA(LoRA):
    """LoRA whose matrices are random, frozen and shared by all layers; only the scales of their axes are learned.

    Source: Kopiczko et al. 2023.
    """

    file_names: ClassVar[Mapping[str, tuple[str, Form]]] = {
        "vera_D": ("vera_D", DIAGONAL),
        "vera_B": ("vera_B", DIAGONAL),
        **GATE_NAMES,
    }

    def build(self, input_shape: Any) -> None:
        """Makes the scales."""
        site, config = self.location.site, self.settings
        self.vera_D = self.add_weight(shape=(config.r,), initializer=Constant(config.vera_d), name="vera_D")
        self.vera_B = self.add_weight(shape=(site.units,), initializer=Constant(config.vera_b), name="vera_B")
        self._make_gate()
        self.drop = self.dropout(config.dropout)

    def matrices(self) -> tuple[Any, Any]:
        """Returns the shared matrices, cut to this layer's widths, with the scales."""
        matrices, site = self.shared.it.matrices, self.location.site
        down = ops.convert_to_tensor(matrices["lora_A"])[: site.width]
        up = ops.convert_to_tensor(matrices["lora_B"])[:, : site.units]
        return down * ops.convert_to_tensor(self.vera_D), up * ops.convert_to_tensor(self.vera_B)


class _WithMagnitude(LoRA):
    """Learns how long each column of the changed kernel is, apart from where it points."""

    def build(self, input_shape: Any) -> None:
        """Makes the lengths, which begin as those of the kernel."""
        super().build(input_shape)
        dense: Any = self.location.dense
        kernel = values(dense.kernel)
        self.m = self.add_weight(shape=(self.location.site.units,), initializer="zeros", name="m")
        self.m.assign(np.linalg.norm(kernel, axis=0))

    def adapt(self, state: State, rows: RowInputs, training: bool | None) -> State:
        """Returns `m * (x W + scale * x A B) / |W + scale * A B| + bias`, the lengths taken as constants in gradients.

        With `dora_bias` the bias is stretched, too.
        """
        y, x = state
        dense: Any = self.location.dense
        down, up = (ops.cast(matrix, "float32") for matrix in self.matrices())
        changed = ops.cast(ops.convert_to_tensor(dense.kernel), "float32") + self.settings.factor * ops.matmul(down, up)
        lengths = ops.stop_gradient(ops.sqrt(ops.sum(ops.square(changed), axis=0)))
        stretch = ops.cast(ops.cast(ops.convert_to_tensor(self.m), "float32") / lengths, y.dtype)
        y = y + self.change(x, training)
        if self.settings.dora_bias:
            return y * stretch, x
        bias = ops.cast(ops.convert_to_tensor(dense.bias), y.dtype)
        return (y - bias) * stretch + bias, x

    def merged(self, kernel: Array, bias: Array) -> tuple[Array, Array]:
        """Returns the changed kernel with the learned lengths."""
        changed = kernel + self.delta()
        stretch = values(self.m) / np.linalg.norm(changed, axis=0)
        return changed * stretch, bias * stretch if self.settings.dora_bias else bias


class DoRA(_WithMagnitude):
    """LoRA with the lengths of columns learned apart.

    Source: Liu et al. 2024, gradients as in its section 4.3.
    """

    file_names: ClassVar[Mapping[str, tuple[str, Form]]] = {**LoRA.file_names, "m": ("m.weight", COLUMN)}


class DVoRA(_WithMagnitude, VeRA):
    """VeRA with the lengths of columns learned apart.

    Source: Liu et al. 2024.
    """

    file_names: ClassVar[Mapping[str, tuple[str, Form]]] = {**VeRA.file_names, "m": ("m.weight", COLUMN)}


class IA3(LinearAdapter):
    """Scales each channel of what a dense layer returns, its bias included.

    Source: Liu et al. 2022.
    """

    file_names: ClassVar[Mapping[str, tuple[str, Form]]] = {
        "lora_B": ("lora_B", COLUMN),
        **GATE_NAMES,
    }

    def build(self, input_shape: Any) -> None:
        """Makes the scales."""
        kind = self.settings.init_weights
        initializer = self.draw("normal", 0.02) if kind == "bert" else self.draw("zeros" if kind == "lora" else "ones")
        self.lora_B = self.add_weight(shape=(self.location.site.units,), initializer=initializer, name="lora_B")
        self._make_gate()

    def adapt(self, state: State, rows: RowInputs, training: bool | None) -> State:
        """Scales what the dense layer returned."""
        y, x = state
        scale = ops.cast(ops.convert_to_tensor(self.lora_B), y.dtype)
        return y * scale * (self.settings.alpha if self.gate is None else gate_of(self, x)), x

    def merged(self, kernel: Array, bias: Array) -> tuple[Array, Array]:
        """Returns kernel and bias, scaled."""
        scale = self.settings.alpha * values(self.lora_B)
        return kernel * scale, bias * scale


def can_be_gathered(adapters: Sequence[Adapter | None]) -> bool:
    """Whether rows may choose among these by number in one product: plain LoRAs, or none."""
    return all(adapter is None or (type(adapter) in (LoRA, VeRA) and adapter.gate is None) for adapter in adapters)


def gathered(adapters: Sequence[LoRA | None], state: State, rows: RowInputs, training: bool | None) -> State:
    """Adds to each row the change of the LoRA whose number it has; ranks may differ."""
    y, x = state
    rank = max(adapter.settings.r for adapter in adapters if adapter is not None)
    downs, ups = [], []
    width, units = x.shape[-1], y.shape[-1]
    for adapter in adapters:
        if adapter is None:
            downs.append(ops.zeros((width, rank), y.dtype))
            ups.append(ops.zeros((rank, units), y.dtype))
            continue
        down, up = adapter.matrices()
        missing = rank - adapter.settings.r
        downs.append(ops.cast(ops.pad(down, ((0, 0), (0, missing))), y.dtype))
        ups.append(ops.cast(ops.pad(up * adapter.settings.factor, ((0, missing), (0, 0))), y.dtype))
    chosen = ops.maximum(rows.adapter_ids, 0)
    down, up = (ops.take(ops.stack(matrices), chosen, axis=0) for matrices in (downs, ups))
    counts = ops.cast(rows.adapter_ids >= 0, y.dtype)[:, None, None]
    return y + ops.matmul(ops.matmul(x, down), up) * counts, x
