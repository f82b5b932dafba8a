"""Rows of logits against their targets, a few at a time: the square of logits of a large batch is never in memory.

A row is one text against all images, or one image against all texts. A row's loss comes with its slope at every logit,
so that a loss in chunks computes each logit once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from tf_clip.errors import require

RowLoss = Callable[[Any, Any, float], tuple[Any, Any]]


def are_positive(row_ids: Any, column_ids: Any) -> Any:
    """Returns float32 `[rows, columns]`: 1 where the ids are equal, 0 elsewhere."""
    return ops.cast(ops.expand_dims(row_ids, 1) == ops.expand_dims(column_ids, 0), "float32")


def softmax_rows(logits: Any, positives: Any, label_smoothing: float) -> tuple[Any, Any]:
    """Scores how much of a row's softmax falls on its positives.

    Args:
        logits: float32 `[rows, columns]`.
        positives: float32 `[rows, columns]`, 1 for what belongs together; at least one a row.
        label_smoothing: share of the target that is spread over all columns.

    Returns:
        The cross-entropies, `[rows]`, and their slopes, `[rows, columns]`.
    """
    targets = positives / ops.sum(positives, axis=-1, keepdims=True)
    if label_smoothing:
        columns = ops.cast(ops.shape(logits)[-1], "float32")
        targets = (1.0 - label_smoothing) * targets + label_smoothing / columns
    # The targets of a row sum to 1, so that the softmax's normalizer comes out of the sum.
    losses = ops.logsumexp(logits, axis=-1) - ops.sum(targets * logits, axis=-1)
    return losses, ops.softmax(logits, axis=-1) - targets


def sigmoid_rows(logits: Any, positives: Any, label_smoothing: float) -> tuple[Any, Any]:
    """Scores each pair on its own: belongs together, or does not.

    Args:
        logits: float32 `[rows, columns]`.
        positives: float32 `[rows, columns]`, 1 for what belongs together.
        label_smoothing: moves the targets 0 and 1 towards 1/2, all the way at 1.

    Returns:
        The binary cross-entropies, summed over the columns, `[rows]`, and their slopes, `[rows, columns]`.
    """
    targets = (1.0 - label_smoothing) * positives + 0.5 * label_smoothing
    return ops.sum(ops.softplus(logits) - targets * logits, axis=-1), ops.sigmoid(logits) - targets


def fold(body: Callable[..., Sequence[Any]], carry: Sequence[Any], count: Any) -> tuple[Any, ...]:
    """Calls `body(index, *carry)` for each index below `count`, one after the other; returns the last carry.

    `keras.ops.while_loop` would run ten rounds at once on TensorFlow, in the memory of ten.
    """

    def more(index: Any, *_: Any) -> Any:
        return index < count

    def step(index: Any, *carry: Any) -> tuple[Any, ...]:
        return (index + 1, *body(index, *carry))

    start = (ops.convert_to_tensor(0, dtype="int32"), *carry)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tuple(tf.while_loop(more, step, start, parallel_iterations=1)[1:])
    return tuple(ops.while_loop(more, step, start)[1:])


def rows_of(index: Any, chunk_size: int, count: Any) -> tuple[Any, Any]:
    """Returns the row numbers of a chunk, `[chunk_size]`, and 1 for each that is a row and not padding.

    All chunks have one size, as compilers require: the last chunk repeats the last row for those that it lacks.
    """
    rows = index * chunk_size + ops.arange(chunk_size, dtype="int32")
    return ops.minimum(rows, count - 1), ops.cast(rows < count, "float32")


def summed_losses(
    row_loss: RowLoss,
    queries: Any,
    candidates: Any,
    scale: Any,
    bias: Any,
    query_ids: Any,
    candidate_ids: Any,
    *,
    label_smoothing: float,
    chunk_size: int,
) -> Any:
    """Sums a loss of rows over all queries, in the memory of `chunk_size` rows of logits.

    The sum is one number, so the forward pass knows its gradient but for a factor. Each chunk of logits is computed
    once, and nothing of its size is kept for the backward pass.

    Args:
        row_loss: `softmax_rows` or `sigmoid_rows`.
        queries: float32 `[num_queries, projection_dim]`.
        candidates: float32 `[num_candidates, projection_dim]`.
        scale: float32 scalar that the products are multiplied by.
        bias: float32 scalar that is added to them.
        query_ids: int `[num_queries]`; equal ids belong together.
        candidate_ids: int `[num_candidates]`.
        label_smoothing: passed on to `row_loss`.
        chunk_size: rows at a time.

    Returns:
        float32 scalar, of which only first derivatives exist.
    """
    count = ops.shape(queries)[0]
    num_chunks = -(-count // chunk_size)

    @ops.custom_gradient  # type: ignore[untyped-decorator]
    def run(queries: Any, candidates: Any, scale: Any, bias: Any) -> Any:
        def body(index: Any, total: Any, *slopes: Any) -> tuple[Any, ...]:
            of_queries, of_candidates, of_scale, of_bias = slopes
            rows, weight = rows_of(index, chunk_size, count)
            some = ops.take(queries, rows, axis=0)
            products = ops.matmul(some, ops.transpose(candidates))  # [chunk_size, num_candidates]
            positives = are_positive(ops.take(query_ids, rows, axis=0), candidate_ids)
            losses, slope = row_loss(products * scale + bias, positives, label_smoothing)
            slope = slope * ops.expand_dims(weight, 1)
            scaled = slope * scale
            # Padding adds zeros to the last row.
            of_queries = ops.scatter_update(
                of_queries,
                ops.expand_dims(index * chunk_size + ops.arange(chunk_size, dtype="int32"), 1),
                ops.matmul(scaled, candidates),
            )
            return (
                total + ops.sum(losses * weight),
                of_queries,
                of_candidates + ops.matmul(ops.transpose(scaled), some),
                of_scale + ops.sum(slope * products),
                of_bias + ops.sum(slope),
            )

        zero = ops.zeros((), "float32")
        padded = ops.zeros((num_chunks * chunk_size, queries.shape[-1]), "float32")
        total, *slopes = fold(body, (zero, padded, ops.zeros_like(candidates), zero, zero), num_chunks)
        slopes[0] = slopes[0][:count]

        def gradient(*arguments: Any, upstream: Any = None) -> tuple[Any, ...]:
            # PyTorch's backend repeats the inputs and names the factor; the others pass the factor alone.
            factor = arguments[0] if upstream is None else upstream
            return tuple(slope * factor for slope in slopes)

        return total, gradient

    return run(queries, candidates, scale, bias)


def share_of_hits(queries: Any, candidates: Any, query_ids: Any, candidate_ids: Any, chunk_size: int | None) -> Any:
    """Returns the share of queries whose best candidate belongs to them, float32; takes no part in gradients."""
    queries, candidates = (ops.stop_gradient(ops.convert_to_tensor(x)) for x in (queries, candidates))
    count = ops.shape(queries)[0]

    def hits(rows: Any) -> Any:
        products = ops.matmul(ops.take(queries, rows, axis=0), ops.transpose(candidates))
        best = ops.take(candidate_ids, ops.argmax(products, axis=-1), axis=0)
        return ops.cast(best == ops.take(query_ids, rows, axis=0), "float32")

    if chunk_size is None:
        return ops.mean(hits(ops.arange(count, dtype="int32")))

    def body(index: Any, total: Any) -> tuple[Any]:
        rows, weight = rows_of(index, chunk_size, count)
        return (total + ops.sum(hits(rows) * weight),)

    (total,) = fold(body, (ops.zeros((), "float32"),), -(-count // chunk_size))
    return total / ops.cast(count, "float32")


def require_label_smoothing(label_smoothing: float) -> None:
    """Checks a share of the targets.

    Raises:
        ValueError: it is below 0, or at least 1.
    """
    require(
        0.0 <= label_smoothing < 1.0,
        "label_smoothing",
        "at least 0 and below 1",
        label_smoothing,
        "0 smooths nothing; 0.1 is usual.",
    )
