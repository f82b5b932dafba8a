"""The loss of the image classifier, a pure function on `keras.ops`."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops


def classification_loss(labels: Any, logits: Any, problem_type: str | None = None) -> Any:
    """Scores a classifier's logits, row by row.

    Args:
        labels: integer `[batch]` for one right class a row; float `[batch, num_labels]` between 0 and 1
            where several may be right; float `[batch]` or `[batch, num_labels]` for regression.
        logits: float `[batch, num_labels]`; computed in float32.
        problem_type: `"regression"`, `"single_label_classification"` or
            `"multi_label_classification"`; None takes regression for one label, one
            right class for integer labels, and several for the rest.

    Returns:
        float32 `[batch]`: mean squared error, cross-entropy, or mean binary cross-entropy.

    Raises:
        ValueError: labels and logits do not go together, or there are no classes.

    Source: transformers' CLIPForImageClassification.
    """
    labels, logits = ops.convert_to_tensor(labels), ops.cast(logits, "float32")
    count = logits.shape[-1]
    is_integer = "int" in keras.backend.standardize_dtype(labels.dtype)
    if problem_type is None:
        problem_type = "single_label_classification" if is_integer else "multi_label_classification"
        problem_type = "regression" if count == 1 else problem_type
    if problem_type == "single_label_classification":
        labels = ops.reshape(ops.cast(labels, "int32"), (-1,))
        return ops.sparse_categorical_crossentropy(labels, logits, from_logits=True)
    if len(labels.shape) == 1 and count == 1:
        labels = ops.expand_dims(labels, 1)
    if len(labels.shape) != 2 or labels.shape[-1] != count:
        raise ValueError(
            f"`labels` must have shape [batch, {count}] for {problem_type}. Received: "
            f"labels.shape={tuple(labels.shape)}. Pass one number a class, or set the config's problem_type."
        )
    labels = ops.cast(labels, "float32")
    if problem_type == "regression":
        return ops.mean(ops.square(logits - labels), axis=-1)
    return ops.mean(ops.binary_crossentropy(labels, logits, from_logits=True), axis=-1)
