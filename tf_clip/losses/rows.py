"""One row of logits against its targets: what the softmax and the sigmoid loss are made of.

A row is one text against all images, or one image against all texts. Each function returns the row's loss and
the loss's slope at every logit, so that a loss in chunks needs no second look at the logits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

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
