"""The losses of pairs as pure functions of a batch's whole logits, on `keras.ops`."""

from __future__ import annotations

from typing import Any

from keras import ops

from tf_clip.losses.rows import are_positive, require_label_smoothing, sigmoid_rows, softmax_rows


def contrastive_loss(logits_per_text: Any, label_smoothing: float = 0.0, pair_ids: Any = None) -> Any:
    """Scores how well each text finds its own image and each image its own text.

    Row i of the batch is a pair: the diagonal is right, and so is what has the same `pair_ids`; everything
    else is wrong. A row's target is shared equally between all that is right for it.

    Args:
        logits_per_text: float `[num_texts, num_images]`, the two counts equal; computed in float32.
        label_smoothing: share of each row's target that is spread over all of the batch; 0 to below 1.
        pair_ids: int `[num_texts]`; rows with equal numbers belong together (captions of one image,
            images of one class). None: each row only with itself.

    Returns:
        float32 scalar: the mean of the two cross-entropies; ln(batch) for an untrained model.

    Raises:
        ValueError: the counts are known and differ, or the smoothing is out of range.

    Example:
        >>> float(contrastive_loss(np.zeros((4, 4))))  # doctest: +SKIP
        1.3862943

    Source: Radford et al. 2021, figure 3; transformers' `clip_loss`. Several positives as in Khosla et al.
    2020, L_out: the logarithms of the positives' softmax are averaged.
    """
    logits, positives = _prepare(logits_per_text, label_smoothing, pair_ids)
    text_losses, _ = softmax_rows(logits, positives, label_smoothing)
    # Belonging together is mutual, so that the targets need no transposing.
    image_losses, _ = softmax_rows(ops.transpose(logits), positives, label_smoothing)
    return (ops.mean(text_losses) + ops.mean(image_losses)) / 2.0


def sigmoid_loss(logits_per_text: Any, label_smoothing: float = 0.0, pair_ids: Any = None) -> Any:
    """Scores each text with each image on its own: the pair belongs together, or does not.

    Args:
        logits_per_text: float `[num_texts, num_images]`, the two counts equal, the bias added; computed
            in float32.
        label_smoothing: moves the targets 0 and 1 towards 1/2; 0 to below 1.
        pair_ids: int `[num_texts]`; rows with equal numbers belong together. None: each row only with itself.

    Returns:
        float32 scalar: the sum of all binary cross-entropies, divided by the number of texts.

    Raises:
        ValueError: the counts are known and differ, or the smoothing is out of range.

    Example:
        >>> float(sigmoid_loss(np.zeros((4, 4))))  # doctest: +SKIP
        2.7725887

    Source: Zhai et al. 2023 (SigLIP), algorithm 1; open_clip's `SigLipLoss`.
    """
    logits, positives = _prepare(logits_per_text, label_smoothing, pair_ids)
    losses, _ = sigmoid_rows(logits, positives, label_smoothing)
    return ops.mean(losses)


def _prepare(logits_per_text: Any, label_smoothing: float, pair_ids: Any) -> tuple[Any, Any]:
    """Returns the logits in float32, and 1 for each pair that belongs together."""
    require_label_smoothing(label_smoothing)
    rows, columns = logits_per_text.shape
    if rows is not None and columns is not None and rows != columns:
        raise ValueError(
            "`logits_per_text` must be square, since the loss pairs text i with image i. "
            f"Received: logits_per_text.shape={(rows, columns)}. Pass one image for each text."
        )
    logits = ops.cast(logits_per_text, "float32")
    ids = ops.arange(ops.shape(logits)[0], dtype="int32") if pair_ids is None else ops.convert_to_tensor(pair_ids)
    return logits, are_positive(ids, ids)
