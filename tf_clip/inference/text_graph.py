"""The text tower's fast graph: from a plan of rows to features."""

from __future__ import annotations

import tensorflow as tf

from tf_clip.inference.blocks import centered, pooled, run_all_but_last, run_last_block
from tf_clip.inference.tower_weights import TextWeights

# Added to the score of a hidden key: exp(-1e9) is exactly zero in float32.
_HIDDEN = -1e9


def encode_text(
    tokens: tf.Tensor,
    positions: tf.Tensor,
    arrangement: tf.Tensor,
    sources: tf.Tensor,
    ends: tf.Tensor,
    weights: TextWeights,
    visible: tf.Tensor | None = None,
) -> tf.Tensor:
    """Encodes texts, given as the rows to compute and where they stand: see `text_plan.TextPlan`.

    Args:
        tokens: int32 `[rows]`.
        positions: int32 `[rows]`.
        arrangement: int32 `[batch, length]`.
        sources: int32 `[rows]`.
        ends: int32 `[batch]`.
        weights: the tower's.
        visible: bool `[batch, length]`; None shows all.

    Returns:
        float32 `[batch, projection_dim]`, not of unit length.
    """
    columns = tf.range(tf.shape(arrangement)[1])
    is_hidden = _follows(columns)
    is_hidden_from_end = columns > ends[:, tf.newaxis]
    is_hidden, is_hidden_from_end = is_hidden[tf.newaxis, tf.newaxis], is_hidden_from_end[:, tf.newaxis, tf.newaxis]
    if visible is not None:
        unseen = tf.logical_not(visible)[:, tf.newaxis, tf.newaxis]
        is_hidden, is_hidden_from_end = is_hidden | unseen, is_hidden_from_end | unseen

    def arrange(rows: tf.Tensor) -> tf.Tensor:
        return tf.gather(rows, arrangement)

    def collect(rows: tf.Tensor) -> tf.Tensor:
        return tf.gather(rows, sources)

    x = run_all_but_last(_embedded(tokens, positions, weights), weights, arrange, collect, _scores(is_hidden))
    pools = tf.gather(x, tf.gather(arrangement, ends, batch_dims=1))
    return pooled(run_last_block(x, pools, weights, arrange, _scores(is_hidden_from_end)), weights)


def encode_one_text(tokens: tf.Tensor, weights: TextWeights) -> tf.Tensor:
    """Encodes a text alone, whose rows are its tokens: it has not to look for them before and after attention.

    Args:
        tokens: int32 `[length]`, up to the one that the text is pooled at.
        weights: the tower's.

    Returns:
        float32 `[1, projection_dim]`, not of unit length.
    """

    def arrange(rows: tf.Tensor) -> tf.Tensor:
        return rows[tf.newaxis]

    positions = tf.range(tf.shape(tokens)[0])
    hidden = _scores(_follows(positions))
    x = run_all_but_last(_embedded(tokens, positions, weights), weights, arrange, tf.identity, hidden)
    return pooled(run_last_block(x, x[-1:], weights, arrange, None), weights)


def _embedded(tokens: tf.Tensor, positions: tf.Tensor, weights: TextWeights) -> tf.Tensor:
    """Returns the residual stream before the first block, `[rows, hidden_size]`."""
    return centered(tf.gather(weights.tokens, tokens) + tf.gather(weights.positions, positions))


def _scores(is_hidden: tf.Tensor) -> tf.Tensor:
    """Returns what is added to the scores of keys, so that the hidden ones count for nothing."""
    return tf.cast(is_hidden, tf.float32) * _HIDDEN


def _follows(columns: tf.Tensor) -> tf.Tensor:
    """Says which places come behind which, bool `[length, length]`: what no text looks at."""
    return columns[tf.newaxis, :] > columns[:, tf.newaxis]
