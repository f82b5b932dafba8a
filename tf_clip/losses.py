"""The contrastive loss that CLIP is trained with, as a pure function on `keras.ops`."""

from __future__ import annotations

from typing import Any

from keras import ops


def contrastive_loss(logits_per_text: Any) -> Any:
    """Scores how well each text finds its own image and each image its own text.

    Row i of the batch is a pair: the diagonal is right, everything else is wrong.

    Args:
        logits_per_text: float `[num_texts, num_images]`, the two counts equal; computed in float32.

    Returns:
        float32 scalar: the mean of the two cross-entropies; ln(batch) for an untrained model.

    Raises:
        ValueError: the counts are known and differ.

    Source: Radford et al. 2021, figure 3; transformers' `clip_loss`.
    """
    rows, columns = logits_per_text.shape
    if rows is not None and columns is not None and rows != columns:
        raise ValueError(
            "`logits_per_text` must be square, since the loss pairs text i with image i. "
            f"Received: logits_per_text.shape={(rows, columns)}. Pass as many images as texts."
        )
    logits = ops.cast(logits_per_text, "float32")
    labels = ops.arange(ops.shape(logits)[0], dtype="int32")
    text_loss = ops.mean(ops.sparse_categorical_crossentropy(labels, logits, from_logits=True))
    image_loss = ops.mean(ops.sparse_categorical_crossentropy(labels, ops.transpose(logits), from_logits=True))
    return (text_loss + image_loss) / 2.0
