"""A transformer tower's weights as the fast graphs read them: rewritten by `folding`, as tensors that never change."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_clip.array_memory import as_tensor, copied_to_pages
from tf_clip.families.clip.image_tower import CLIPImageEncoder
from tf_clip.families.clip.text_tower import CLIPTextEncoder
from tf_clip.inference import folding
from tf_clip.inference.threads import has_gpu
from tf_clip.machine import return_freed_memory
from tf_clip.models.transformer_tower import Tower

STRIP = 64
"""Columns of a strip, if a kernel is in strips."""

_WEIGHTS_OF_BLOCK = 16
# Beside the blocks: class token, patches, positions, two norms and projection; two tables, a norm and projection.
_OTHER_WEIGHTS = {"image_embeds": 8, "text_embeds": 5}


@dataclasses.dataclass(frozen=True)
class Product:
    """A kernel and its bias.

    Args:
        kernel: float32 `[inputs, outputs]`; or in strips of columns, `[strips, inputs, STRIP]`, each of which lies in
            memory in the order in which it is read.
        bias: float32 `[outputs]`, or None.
    """

    kernel: tf.Tensor
    bias: tf.Tensor | None

    @classmethod
    def of(cls, projection: tuple[np.ndarray, np.ndarray | None], in_strips: bool = False) -> Product:
        """Makes one of arrays, in strips if that is wished and the columns are a multiple of theirs."""
        kernel, bias = projection
        if in_strips and kernel.shape[1] % STRIP == 0:
            kernel = folding.strips(kernel, STRIP)
        return cls(_tensor(kernel), None if bias is None else _tensor(bias))

    @property
    def inputs(self) -> int:
        """How wide the rows are that it takes."""
        return int(self.kernel.shape[-2])

    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        """Multiplies rows, `[n, inputs]`; TensorFlow fuses the two operations, which it does of matrices alone."""
        if len(self.kernel.shape) == 2:
            rows = tf.matmul(x, self.kernel)
        else:
            strips = tf.matmul(x[tf.newaxis], self.kernel)
            rows = tf.reshape(tf.transpose(strips, (1, 0, 2)), (-1, strips.shape[0] * STRIP))
        return rows if self.bias is None else tf.nn.bias_add(rows, self.bias)


@dataclasses.dataclass(frozen=True)
class BlockWeights:
    """What one block computes with; the norms before `reads` and `widens` have no scale, no offset and no mean.

    All are in parts: some heads and some of the MLP's hidden units each, which are computed side by side.

    Args:
        reads: queries, already scaled, keys and values; in the last block keys and values alone.
        queries: the queries' alone, in the last block, where few rows ask; else None.
        writes: attention's output; the sum of all is added to the stream.
        widens, narrows: the MLP's two; the sum of all that narrow is added to the stream.
    """

    reads: tuple[Product, ...]
    queries: tuple[Product, ...] | None
    writes: tuple[Product, ...]
    widens: tuple[Product, ...]
    narrows: tuple[Product, ...]


@dataclasses.dataclass(frozen=True)
class TowerWeights:
    """What both towers have.

    Args:
        blocks: the blocks'; the last one asks for the pooled rows alone.
        project: the final norm's scale and offset, and the projection.
        head_width: of each head.
        epsilon, hidden_act: as in the configuration; `"silu"` where `"quick_gelu"` was folded.
    """

    blocks: tuple[BlockWeights, ...]
    project: Product
    head_width: int
    epsilon: float
    hidden_act: str


@dataclasses.dataclass(frozen=True)
class ImageWeights(TowerWeights):
    """The image tower's.

    Args:
        patches: reads patches of normalized pixels, in parts whose outputs stand side by side.
        patches_of_bytes: reads patches of bytes, likewise; None if it is not known how they are normalized.
        positions: float32 `[1 + patches, hidden_size]`; the first has the class token added.
        norm_scale, norm_offset: of the norm before the blocks, without a mean.
        image_size, patch_size: in pixels.
    """

    patches: tuple[Product, ...]
    patches_of_bytes: tuple[Product, ...] | None
    positions: tf.Tensor
    norm_scale: tf.Tensor
    norm_offset: tf.Tensor
    image_size: int
    patch_size: int


@dataclasses.dataclass(frozen=True)
class TextWeights(TowerWeights):
    """The text tower's.

    Args:
        tokens: float32 `[vocab_size, hidden_size]`.
        positions: float32 `[max_position_embeddings, hidden_size]`.
    """

    tokens: tf.Tensor
    positions: tf.Tensor


def _tensor(array: np.ndarray) -> tf.Tensor:
    """Copies an array to the GPU, or else into memory of its own, of which nothing is left over."""
    if has_gpu():
        return tf.constant(array, tf.float32)
    return as_tensor(copied_to_pages(array, np.dtype(np.float32)))


def is_plain(tower: Any) -> bool:
    """Says whether a tower is a transformer and no more: the fast graphs know no adapters, which bring weights."""
    if not isinstance(tower, (CLIPImageEncoder, CLIPTextEncoder)):
        return False
    expected = _WEIGHTS_OF_BLOCK * len(tower.encoder_layers) + _OTHER_WEIGHTS[tower.embeds_name]
    return len(tower.weights) == expected


def image_weights(
    tower: CLIPImageEncoder,
    normalization: tuple[np.ndarray, np.ndarray] | None,
    parts: int = 1,
    keep_tower: bool = True,
) -> ImageWeights:
    """Rewrites an image tower's weights.

    Args:
        tower: the tower.
        normalization: what a byte is multiplied by and what is added, float32 `[channels]` each, or None.
        parts: how many parts blocks are cut into; heads are not cut.
        keep_tower: whether the tower stays as it is; else its blocks' memory is let go, one after the other.
    """
    config, embeddings = tower.config, tower.embeddings
    kernel = folding.patch_kernel(_array(embeddings.patch_embedding.kernel))
    bias = np.zeros(config.hidden_size, np.float32)
    positions = _array(embeddings.position_embedding.embeddings).copy()
    positions[0] += _array(embeddings.class_embedding)
    norm = tower.pre_layernorm
    scale, offset = _array(norm.gamma), _array(norm.beta)
    bounds = folding.even_bounds(config.hidden_size, min(parts, config.hidden_size))

    def patch_products(kernel: np.ndarray, bias: np.ndarray) -> tuple[Product, ...]:
        return tuple(map(Product.of, folding.by_columns(kernel, bias, bounds)))

    return ImageWeights(
        **_shared(tower, tower.post_layernorm, parts, keep_tower),
        patches=patch_products(kernel, bias),
        patches_of_bytes=normalization and patch_products(*folding.reading_bytes(kernel, bias, *normalization)),
        positions=tf.constant(positions),
        norm_scale=tf.constant(scale),
        norm_offset=tf.constant(offset),
        image_size=config.image_size,
        patch_size=config.patch_size,
    )


def text_weights(
    tower: CLIPTextEncoder, parts: int = 1, keep_tower: bool = True, in_strips: bool = False
) -> TextWeights:
    """Rewrites a text tower's weights; the tables are the tower's own where they are float32.

    Args:
        tower: see `image_weights`.
        parts: see `image_weights`.
        keep_tower: see `image_weights`.
        in_strips: whether kernels are, which is faster for few rows where TensorFlow multiplies with oneDNN.
    """
    tables = (tower.embeddings.token_embedding, tower.embeddings.position_embedding)
    tokens, positions = (tf.cast(tf.convert_to_tensor(table.embeddings), tf.float32) for table in tables)
    shared = _shared(tower, tower.final_layer_norm, parts, keep_tower, in_strips)
    return TextWeights(**shared, tokens=tokens, positions=positions)


def _shared(
    tower: Tower, final_norm: keras.layers.LayerNormalization, parts: int, keep_tower: bool, in_strips: bool = False
) -> dict[str, Any]:
    config = tower.config
    projection = _array(tower.projection.kernel)
    nothing = np.zeros(projection.shape[1], np.float32)
    last = len(tower.encoder_layers) - 1
    blocks = []
    for index, layer in enumerate(tower.encoder_layers):
        blocks.append(_block(layer, index == last, parts, in_strips))
        if not keep_tower:
            _let_go(layer)
        return_freed_memory()
    return {
        "blocks": tuple(blocks),
        "project": Product.of(
            folding.behind_norm(projection, nothing, _array(final_norm.gamma), _array(final_norm.beta)), in_strips
        ),
        "head_width": config.hidden_size // config.num_attention_heads,
        "epsilon": config.layer_norm_eps,
        "hidden_act": "silu" if config.hidden_act == "quick_gelu" else config.hidden_act,
    }


def _block(layer: Any, is_last: bool, parts: int, in_strips: bool) -> BlockWeights:
    attention, mlp = layer.self_attn, layer.mlp
    scale, offset = _array(layer.layer_norm1.gamma), _array(layer.layer_norm1.beta)
    query, key, value = (
        folding.behind_norm(*_arrays(dense), scale, offset)
        for dense in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    query = folding.times(*query, attention.head_width**-0.5)
    heads = folding.even_bounds(attention.num_heads, min(parts, attention.num_heads), attention.head_width)
    queries, keys, values = (folding.by_columns(*projection, heads) for projection in (query, key, value))
    reads = zip(keys, values, strict=True) if is_last else zip(queries, keys, values, strict=True)
    widen = folding.behind_norm(*_arrays(mlp.fc1), _array(layer.layer_norm2.gamma), _array(layer.layer_norm2.beta))
    narrow = _arrays(mlp.fc2)
    if layer.hidden_act == "quick_gelu":
        widen, narrow = folding.quick_gelu_as_silu(widen, narrow)
    # Whole strips in each part, where there are any.
    unit = math.gcd(layer.intermediate_size, STRIP)
    units = folding.even_bounds(layer.intermediate_size // unit, min(parts, layer.intermediate_size // unit), unit)

    def products(projections: Iterable[tuple[np.ndarray, np.ndarray | None]]) -> tuple[Product, ...]:
        return tuple(Product.of(projection, in_strips) for projection in projections)

    return BlockWeights(
        reads=products(map(folding.side_by_side, reads)),
        queries=products(queries) if is_last else None,
        writes=products(folding.by_rows(*folding.without_mean(*_arrays(attention.out_proj)), heads)),
        widens=products(folding.by_columns(*widen, units)),
        narrows=products(folding.by_rows(*folding.without_mean(*narrow), units)),
    )


def _let_go(layer: keras.layers.Layer) -> None:
    """Gives back the memory of a layer's weights; calling it afterwards is an error of shapes."""
    for variable in layer.weights:
        empty = tf.zeros([0] * max(1, len(variable.shape)), variable.dtype)
        tf.raw_ops.AssignVariableOp(resource=variable.value.handle, value=empty, validate_shape=False)


def _arrays(dense: keras.layers.Dense) -> tuple[np.ndarray, np.ndarray]:
    return _array(dense.kernel), _array(dense.bias)


def _array(weight: Any) -> np.ndarray:
    return keras.ops.convert_to_numpy(weight).astype(np.float32, copy=False)
