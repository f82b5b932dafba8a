"""The rewritten graph of transformer blocks; their residual stream is rows of mean zero, `[rows, hidden_size]`."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from tf_clip.inference.tower_weights import BlockWeights, TowerWeights
from tf_clip.layers.transformer import ACTIVATIONS

Arrange = Callable[[tf.Tensor], tf.Tensor]


def centered(x: tf.Tensor) -> tf.Tensor:
    """Subtracts each row's mean; needed once, where the stream begins."""
    return x - tf.reduce_mean(x, axis=-1, keepdims=True)


def norm(x: tf.Tensor, epsilon: float) -> tf.Tensor:
    """Scales rows of mean zero to a variance of one."""
    return x * tf.math.rsqrt(tf.reduce_mean(tf.square(x), axis=-1, keepdims=True) + epsilon)


def run_block(
    x: tf.Tensor,
    block: BlockWeights,
    tower: TowerWeights,
    arrange: Arrange,
    collect: Arrange,
    score_bias: tf.Tensor | None,
) -> tf.Tensor:
    """Runs a block on all rows.

    Args:
        x: the stream, `[rows, hidden_size]`.
        block: the block's weights.
        tower: the tower's weights.
        arrange: from rows of the stream, `[rows, width]`, to sequences, `[batch, length, width]`.
        collect: from the rows of all sequences, `[batch * length, width]`, to rows of the stream.
        score_bias: what is added to attention's scores, broadcastable to `[batch, heads, length, length]`; None adds
            nothing.
    """
    normed = norm(x, tower.epsilon)
    added = []
    for qkv, output in zip(block.qkv, block.outputs, strict=True):
        query, key, value = _heads(arrange(qkv(normed)), 3, tower.head_width)
        attended = tf.transpose(_attend(query, key, value, score_bias), (0, 2, 1, 3))
        added.append(output(collect(tf.reshape(attended, (-1, output.inputs)))))
    return _mlp(tf.add_n([x, *added]), block, tower)


def run_all_but_last(
    x: tf.Tensor, tower: TowerWeights, arrange: Arrange, collect: Arrange, score_bias: tf.Tensor | None
) -> tf.Tensor:
    """Runs the blocks before the last one; see `run_block`."""
    for block in tower.blocks[:-1]:
        x = run_block(x, block, tower, arrange, collect, score_bias)
    return x


def run_last_block(
    x: tf.Tensor, pooled: tf.Tensor, tower: TowerWeights, arrange: Arrange, score_bias: tf.Tensor | None
) -> tf.Tensor:
    """Runs the last block for one row of each sequence; the other rows give keys and values, and are not computed.

    Args:
        x: the stream, `[rows, hidden_size]`.
        pooled: the row of each sequence that is pooled, `[batch, hidden_size]`.
        tower: the tower's weights.
        arrange: see `run_block`.
        score_bias: see `run_block`; broadcastable to `[batch, heads, 1, length]`.

    Returns:
        The pooled rows behind the block, `[batch, hidden_size]`.
    """
    block = tower.blocks[-1]
    normed, normed_pooled = norm(x, tower.epsilon), norm(pooled, tower.epsilon)
    added = []
    for keys_and_values, queries, output in zip(block.qkv, block.queries or (), block.outputs, strict=True):
        key, value = _heads(arrange(keys_and_values(normed)), 2, tower.head_width)
        width = output.inputs
        query = tf.reshape(queries(normed_pooled), (-1, width // tower.head_width, 1, tower.head_width))
        added.append(output(tf.reshape(_attend(query, key, value, score_bias), (-1, width))))
    return _mlp(tf.add_n([pooled, *added]), block, tower)


def projected(x: tf.Tensor, tower: TowerWeights) -> tf.Tensor:
    """Applies the final norm and the projection, `[batch, projection_dim]`."""
    return tower.project(norm(x, tower.epsilon))


def _mlp(x: tf.Tensor, block: BlockWeights, tower: TowerWeights) -> tf.Tensor:
    normed = norm(x, tower.epsilon)
    added = [fc2(_activated(fc1(normed), tower.hidden_act)) for fc1, fc2 in zip(block.fc1, block.fc2, strict=True)]
    return tf.add_n([x, *added])


def _activated(x: tf.Tensor, name: str) -> tf.Tensor:
    # TensorFlow fuses `x * sigmoid(x)`, but not Keras's silu, which defines a gradient of its own around it.
    return x * tf.sigmoid(x) if name == "silu" else ACTIVATIONS[name](x)


def _heads(joined: tf.Tensor, parts: int, head_width: int) -> list[tf.Tensor]:
    """Cuts `[batch, length, parts * heads * head_width]` into `parts` of `[batch, heads, length, head_width]`."""
    batch, length = tf.shape(joined)[0], tf.shape(joined)[1]
    num_heads = joined.shape[-1] // (parts * head_width)
    cut = tf.reshape(joined, (batch, length, parts, num_heads, head_width))
    cut = tf.transpose(cut, (2, 0, 3, 1, 4))
    # Indexed, because some runtimes for phones have no operation for tf.unstack.
    return [cut[part] for part in range(parts)]


def _attend(query: tf.Tensor, key: tf.Tensor, value: tf.Tensor, score_bias: tf.Tensor | None) -> tf.Tensor:
    scores = tf.matmul(query, key, transpose_b=True)
    if score_bias is not None:
        scores += score_bias
    return tf.matmul(tf.nn.softmax(scores), value)
