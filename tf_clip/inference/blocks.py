"""What the fast graphs of both towers compute: a residual stream of rows without a mean, `[rows, hidden_size]`."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from tf_clip.inference.tower_weights import BlockWeights, TowerWeights
from tf_clip.layers.transformer import ACTIVATIONS

Arrange = Callable[[tf.Tensor], tf.Tensor]


def centered(x: tf.Tensor) -> tf.Tensor:
    """Takes each row's mean away; once, where the stream begins."""
    return x - tf.reduce_mean(x, axis=-1, keepdims=True)


def norm(x: tf.Tensor, epsilon: float) -> tf.Tensor:
    """Brings rows of mean zero to a variance of one."""
    return x * tf.math.rsqrt(tf.reduce_mean(tf.square(x), axis=-1, keepdims=True) + epsilon)


def run_block(
    x: tf.Tensor, block: BlockWeights, tower: TowerWeights, arrange: Arrange, collect: Arrange, hidden: tf.Tensor | None
) -> tf.Tensor:
    """Runs a block on all rows.

    Args:
        x: the stream, `[rows, hidden_size]`.
        block: its weights.
        tower: the tower's.
        arrange: from rows `[rows, width]` to sequences, `[batch, length, width]`.
        collect: from rows of all sequences, `[batch * length, width]`, to those of the stream.
        hidden: what is added to scores, broadcastable to `[batch, heads, length, length]`; None adds nothing.
    """
    normed = norm(x, tower.epsilon)
    written = []
    for read, write in zip(block.reads, block.writes, strict=True):
        query, key, value = _heads(arrange(read(normed)), 3, tower.head_width)
        attended = tf.transpose(_attend(query, key, value, hidden), (0, 2, 1, 3))
        written.append(write(collect(tf.reshape(attended, (-1, write.inputs)))))
    return _mlp(tf.add_n([x, *written]), block, tower)


def run_all_but_last(
    x: tf.Tensor, tower: TowerWeights, arrange: Arrange, collect: Arrange, hidden: tf.Tensor | None
) -> tf.Tensor:
    """Runs the blocks before the last one; see `run_block`."""
    for block in tower.blocks[:-1]:
        x = run_block(x, block, tower, arrange, collect, hidden)
    return x


def run_last_block(
    x: tf.Tensor, asking: tf.Tensor, tower: TowerWeights, arrange: Arrange, hidden: tf.Tensor | None
) -> tf.Tensor:
    """Runs the last block for a row of each sequence: all are read, and what the others would become nobody asks.

    Args:
        x: see `run_block`.
        asking: those rows of the stream, `[batch, hidden_size]`.
        tower: see `run_block`.
        arrange: see `run_block`.
        hidden: broadcastable to `[batch, heads, 1, length]`.

    Returns:
        `[batch, hidden_size]`.
    """
    block = tower.blocks[-1]
    normed, normed_asking = norm(x, tower.epsilon), norm(asking, tower.epsilon)
    written = []
    for read, ask, write in zip(block.reads, block.queries, block.writes, strict=True):
        key, value = _heads(arrange(read(normed)), 2, tower.head_width)
        width = write.inputs
        query = tf.reshape(ask(normed_asking), (-1, width // tower.head_width, 1, tower.head_width))
        written.append(write(tf.reshape(_attend(query, key, value, hidden), (-1, width))))
    return _mlp(tf.add_n([asking, *written]), block, tower)


def pooled(x: tf.Tensor, tower: TowerWeights) -> tf.Tensor:
    """Projects rows behind the final norm, `[batch, projection_dim]`."""
    return tower.project(norm(x, tower.epsilon))


def _mlp(x: tf.Tensor, block: BlockWeights, tower: TowerWeights) -> tf.Tensor:
    normed = norm(x, tower.epsilon)
    written = [
        narrow(_activated(widen(normed), tower.hidden_act))
        for widen, narrow in zip(block.widens, block.narrows, strict=True)
    ]
    return tf.add_n([x, *written])


def _activated(x: tf.Tensor, name: str) -> tf.Tensor:
    # Keras's comes with a gradient of its own, behind which TensorFlow sees no `x * sigmoid(x)` to fuse.
    return x * tf.sigmoid(x) if name == "silu" else ACTIVATIONS[name](x)


def _heads(read: tf.Tensor, parts: int, head_width: int) -> list[tf.Tensor]:
    """Cuts `[batch, length, parts * heads * head_width]` into `[batch, heads, length, head_width]` each."""
    batch, length = tf.shape(read)[0], tf.shape(read)[1]
    num_heads = read.shape[-1] // (parts * head_width)
    cut = tf.reshape(read, (batch, length, parts, num_heads, head_width))
    cut = tf.transpose(cut, (2, 0, 3, 1, 4))
    # Not unstacked: runtimes for phones cut it out of their graphs.
    return [cut[part] for part in range(parts)]


def _attend(query: tf.Tensor, key: tf.Tensor, value: tf.Tensor, hidden: tf.Tensor | None) -> tf.Tensor:
    scores = tf.matmul(query, key, transpose_b=True)
    if hidden is not None:
        scores += hidden
    return tf.matmul(tf.nn.softmax(scores), value)
