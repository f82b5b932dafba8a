"""Classification by prompts: the classes are texts, and nothing is trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from tf_clip.errors import require
from tf_clip.families.family import family_of
from tf_clip.preprocessing.processor import Processor
from tf_clip.tasks.embedding import PairEncoder, embed_texts
from tf_clip.unit_length import unit_rows


def class_embeddings(
    model: PairEncoder, processor: Processor, labels: Sequence[str], templates: Sequence[str] = ("{}",)
) -> np.ndarray:
    """Embeds classes by their names, as the mean over several wordings.

    Args:
        model: the model, or what `compile_for_inference` made of it.
        processor: its processor.
        labels: the classes' names, all different and none empty.
        templates: prompts with `{}` where the name goes.

    Returns:
        float32 `[num_labels, projection_dim]`, of unit length.

    Raises:
        ValueError: there are no labels, one is empty or repeated, or a template lacks `{}`.

    Source: Radford et al. 2021, section 3.1.4; open_clip's zero-shot classifier: unit-length
    embeddings are averaged over the templates and brought to unit length again.
    """
    _require_labels(labels)
    require_templates("templates", templates)
    texts = [template.replace("{}", label) for label in labels for template in templates]
    return unit_rows(embed_texts(model, processor, texts).reshape(len(labels), len(templates), -1).mean(axis=1))


def class_probabilities(
    image_embeds: np.ndarray,
    class_embeds: np.ndarray,
    logit_scale: float,
    *,
    scores: str = "softmax",
    logit_bias: float = 0.0,
) -> np.ndarray:
    """Says how likely each class is for each image.

    Args:
        image_embeds: float `[num_images, projection_dim]`, of unit length.
        class_embeds: float `[num_labels, projection_dim]`, of unit length.
        logit_scale: the model's, a logarithm.
        scores: `"softmax"` if one of the classes is right; `"sigmoid"` if each may be, as models of SigLIP's kind are
            trained.
        logit_bias: the model's; 0 where it has none.

    Returns:
        float32 `[num_images, num_labels]`; with `"softmax"`, each row sums to 1.
    """
    return probabilities(np.exp(logit_scale) * image_embeds @ class_embeds.T + logit_bias, scores).astype(np.float32)


def scoring(model: PairEncoder) -> dict[str, Any]:
    """Returns what `class_probabilities` asks of a model: `logit_scale`, `scores` and `logit_bias`."""
    bias = 0.0 if model.logit_bias is None else float(keras.ops.convert_to_numpy(model.logit_bias))
    scale = float(keras.ops.convert_to_numpy(model.logit_scale))
    return {"logit_scale": scale, "scores": family_of(model).scores, "logit_bias": bias}


def probabilities(logits: np.ndarray, scores: str = "softmax") -> np.ndarray:
    """Turns logits `[num_images, num_labels]` to probabilities of their dtype; `scores` as in `class_probabilities`."""
    require(scores in ("softmax", "sigmoid"), "scores", "'softmax' or 'sigmoid'", scores, "CLIP takes 'softmax'.")
    if scores == "sigmoid":
        return np.asarray(np.exp(-np.logaddexp(0, -logits)))
    likelihoods: np.ndarray = np.exp(logits - logits.max(axis=1, keepdims=True))
    likelihoods /= likelihoods.sum(axis=1, keepdims=True)
    return likelihoods


def _require_labels(labels: Sequence[str]) -> None:
    if not labels:
        raise ValueError("`labels` must name at least one class. Received: no labels. Pass their names.")
    if any(not label.strip() for label in labels):
        raise ValueError(f"`labels` must not be empty texts. Received: labels={list(labels)!r}. Remove the empty one.")
    repeated = sorted({label for label in labels if list(labels).count(label) > 1})
    if repeated:
        raise ValueError(f"`labels` must all differ. Received twice: {', '.join(repeated)}. Name each class once.")


def require_templates(argument: str, templates: Sequence[str]) -> None:
    """Raises a `ValueError` that names the argument unless each template has a `{}` for the class's name."""
    if not templates or any("{}" not in template for template in templates):
        raise ValueError(
            f"`{argument}` must be prompts with {{}} where the class's name goes. "
            f"Received: {argument}={list(templates)!r}. For example: 'a photo of {{}}'."
        )
