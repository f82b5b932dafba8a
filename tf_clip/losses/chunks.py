"""Losses and hits of a large batch a few rows at a time, so that its square of logits is never in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from tf_clip.losses.rows import RowLoss, are_positive


def fold(body: Callable[..., Sequence[Any]], carry: Sequence[Any], count: Any) -> tuple[Any, ...]:
    """Calls `body(index, *carry)` for each index below `count`, one after the other; returns the last carry.

    Like `keras.ops.while_loop`, which on TensorFlow runs ten rounds at once, and so takes the memory of ten.
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

    All chunks have one size, which compilers ask for; what is missing from the last repeats the last row.
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

    The sum is one number, so that its gradient is known in the forward pass but for a factor: each chunk of
    logits is made once, and neither it nor anything of its size is kept for the backward pass.

    Args:
        row_loss: `rows.softmax_rows` or `rows.sigmoid_rows`.
        queries: float32 `[num_queries, projection_dim]`.
        candidates: float32 `[num_candidates, projection_dim]`.
        scale: float32 scalar that the products are multiplied by.
        bias: float32 scalar that is added to them.
        query_ids: int `[num_queries]`; equal ids belong together.
        candidate_ids: int `[num_candidates]`.
        label_smoothing: passed on to `row_loss`.
        chunk_size: rows at a time.

    Returns:
        float32 scalar. First derivatives alone are to be had of it.
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
