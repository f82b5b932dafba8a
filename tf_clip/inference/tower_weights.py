"""A transformer tower's weights as the rewritten graphs read them: constant tensors, rewritten by `folding`."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_clip.array_memory import as_tensor, copied_to_pages
from tf_clip.inference import folding
from tf_clip.inference.hardware import has_gpu
from tf_clip.layers.transformer import EncoderLayer
from tf_clip.machine import return_freed_memory

PANEL = 64
"""Columns of a panel."""

_WEIGHTS_OF_BLOCK = 16


@dataclasses.dataclass(frozen=True)
class Product:
    """A kernel and its bias.

    Args:
        kernel: float32 `[inputs, outputs]`; or in panels, `[panels, inputs, PANEL]`, each of which lies in memory in
            the order in which it is read.
        bias: float32 `[outputs]`, or None.
    """

    kernel: tf.Tensor
    bias: tf.Tensor | None

    @classmethod
    def of(cls, projection: tuple[np.ndarray, np.ndarray | None], in_panels: bool = False) -> Product:
        """Makes a product of arrays; in panels if that is wanted and the columns are a multiple of `PANEL`."""
        kernel, bias = projection
        if in_panels and kernel.shape[1] % PANEL == 0:
            kernel = folding.panels(kernel, PANEL)
        return cls(_tensor(kernel), None if bias is None else _tensor(bias))

    @property
    def inputs(self) -> int:
        """The width of the rows that are multiplied."""
        return int(self.kernel.shape[-2])

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """Multiplies rows, `[n, inputs]`. TensorFlow fuses product and bias, which it only does for matrices."""
        if len(self.kernel.shape) == 2:
            rows = tf.matmul(x, self.kernel)
        else:
            by_panel = tf.matmul(x[tf.newaxis], self.kernel)
            rows = tf.reshape(tf.transpose(by_panel, (1, 0, 2)), (-1, by_panel.shape[0] * PANEL))
        return rows if self.bias is None else tf.nn.bias_add(rows, self.bias)


@dataclasses.dataclass(frozen=True)
class BlockWeights:
    """The weights of one block. The norms before `qkv` and `fc1` neither scale nor shift nor subtract a mean.

    Each field has the same number of parts, which are computed side by side: some of the heads each, or some of the
    MLP's hidden units.

    Args:
        qkv: queries, already scaled, keys and values; in the last block only keys and values.
        queries: in the last block, the queries, which only the pooled rows need there; None in the others.
        outputs: attention's output; the sum of the parts is added to the stream.
        fc1, fc2: the MLP's two products; the sum of the parts of `fc2` is added to the stream.
    """

    qkv: tuple[Product, ...]
    queries: tuple[Product, ...] | None
    outputs: tuple[Product, ...]
    fc1: tuple[Product, ...]
    fc2: tuple[Product, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TowerWeights:
    """The weights that image and text towers both have.

    Args:
        blocks: the blocks' weights; the last block computes only the pooled rows.
        project: the final norm's scale and offset, and the projection.
        head_width: of each head.
        epsilon: of the layer norms.
        hidden_act: as in the configuration, but `"silu"` in place of `"quick_gelu"`, whose factor is folded.
    """

    blocks: tuple[BlockWeights, ...]
    project: Product
    head_width: int
    epsilon: float
    hidden_act: str


def has_other_weights(tower: Any, outside_of_blocks: int) -> bool:
    """Returns whether a tower has blocks or weights that a rewriting does not read, as adapters and quantization do.

    Args:
        tower: a transformer tower.
        outside_of_blocks: the number of weights that the rewriting reads outside of the blocks.
    """
    blocks = tower.encoder_layers
    expected = _WEIGHTS_OF_BLOCK * len(blocks) + outside_of_blocks
    return len(tower.weights) != expected or any(type(block) is not EncoderLayer for block in blocks)


def shared_weights(
    tower: Any,
    final_norm: keras.layers.LayerNormalization,
    parts: int,
    keep_tower: bool,
    in_panels: bool = False,
) -> dict[str, Any]:
    """Rewrites the weights that image and text towers both have.

    Args:
        tower: a transformer tower.
        final_norm: the norm before its projection.
        parts: how many parts a block is cut into; a head is never cut.
        keep_tower: whether the tower stays as it is. If not, the memory of each block is freed once it is rewritten.
        in_panels: whether kernels are cut into panels.

    Returns:
        The arguments of `TowerWeights`.
    """
    config = tower.config
    projection = array_of(tower.projection.kernel)
    no_bias = np.zeros(projection.shape[1], np.float32)
    last = len(tower.encoder_layers) - 1
    blocks = []
    for index, layer in enumerate(tower.encoder_layers):
        blocks.append(_block(layer, index == last, parts, in_panels))
        if not keep_tower:
            _free(layer)
        return_freed_memory()
    final = folding.behind_norm(projection, no_bias, array_of(final_norm.gamma), array_of(final_norm.beta))
    return {
        "blocks": tuple(blocks),
        "project": Product.of(final, in_panels),
        "head_width": config.hidden_size // config.num_attention_heads,
        "epsilon": config.layer_norm_eps,
        "hidden_act": "silu" if config.hidden_act == "quick_gelu" else config.hidden_act,
    }


def array_of(weight: Any) -> np.ndarray:
    """Returns a weight as float32."""
    return np.asarray(keras.ops.convert_to_numpy(weight)).astype(np.float32, copy=False)


def _tensor(array: np.ndarray) -> tf.Tensor:
    """Copies an array to the GPU, or else to memory pages of its own."""
    if has_gpu():
        return tf.constant(array, tf.float32)
    return as_tensor(copied_to_pages(array, np.dtype(np.float32)))


def _block(layer: Any, is_last: bool, parts: int, in_panels: bool) -> BlockWeights:
    attention, mlp = layer.self_attn, layer.mlp
    scale, offset = array_of(layer.layer_norm1.gamma), array_of(layer.layer_norm1.beta)
    query, key, value = (
        folding.behind_norm(*_arrays(dense), scale, offset)
        for dense in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    query = folding.times(*query, attention.head_width**-0.5)
    heads = folding.even_bounds(attention.num_heads, min(parts, attention.num_heads), attention.head_width)
    queries, keys, values = (folding.by_columns(*projection, heads) for projection in (query, key, value))
    qkv = zip(keys, values, strict=True) if is_last else zip(queries, keys, values, strict=True)
    fc1 = folding.behind_norm(*_arrays(mlp.fc1), array_of(layer.layer_norm2.gamma), array_of(layer.layer_norm2.beta))
    fc2 = _arrays(mlp.fc2)
    if layer.hidden_act == "quick_gelu":
        fc1, fc2 = folding.quick_gelu_as_silu(fc1, fc2)
    # Each part gets whole panels if the hidden units are a multiple of them.
    unit = math.gcd(layer.intermediate_size, PANEL)
    units = folding.even_bounds(layer.intermediate_size // unit, min(parts, layer.intermediate_size // unit), unit)

    def products(projections: Iterable[tuple[np.ndarray, np.ndarray | None]]) -> tuple[Product, ...]:
        return tuple(Product.of(projection, in_panels) for projection in projections)

    return BlockWeights(
        qkv=products(map(folding.side_by_side, qkv)),
        queries=products(queries) if is_last else None,
        outputs=products(folding.by_rows(*folding.without_mean(*_arrays(attention.out_proj)), heads)),
        fc1=products(folding.by_columns(*fc1, units)),
        fc2=products(folding.by_rows(*folding.without_mean(*fc2), units)),
    )


def _free(layer: keras.layers.Layer) -> None:
    """Frees the memory of a layer's weights; a later call of the layer fails, because the shapes no longer fit."""
    for variable in layer.weights:
        empty = tf.zeros([0] * max(1, len(variable.shape)), variable.dtype)
        tf.raw_ops.AssignVariableOp(resource=variable.value.handle, value=empty, validate_shape=False)


def _arrays(dense: keras.layers.Dense) -> tuple[np.ndarray, np.ndarray]:
    return array_of(dense.kernel), array_of(dense.bias)
