"""What a served model answers: numbers as arrays, and a status per row."""

from __future__ import annotations

import dataclasses

import numpy as np

OK = "ok"


def _are_ok(status: list[str]) -> np.ndarray:
    return np.array([one == OK for one in status], bool)


@dataclasses.dataclass(frozen=True)
class Embeddings:
    """Embeddings of images or texts, one row each, in the order given.

    Args:
        embeds: float32 `[num_rows, projection_dim]`, of unit length; zeros where the status is not `"ok"`.
        status: `"ok"`, or why the row is zeros.
    """

    embeds: np.ndarray
    status: list[str]

    @property
    def ok(self) -> np.ndarray:
        """Which rows hold numbers: bool `[num_rows]`."""
        return _are_ok(self.status)


@dataclasses.dataclass(frozen=True)
class Classification:
    """The model's labels for images, one row each, in the order given.

    Args:
        labels: str `[num_images, k]`, the best first; empty where the status is not `"ok"`.
        scores: float32 `[num_images, k]`, those labels' scores.
        probabilities: float32 `[num_images, num_classes]`, of all labels in the order of the export.
        status: `"ok"`, or why the row is empty.
    """

    labels: np.ndarray
    scores: np.ndarray
    probabilities: np.ndarray
    status: list[str]

    @property
    def ok(self) -> np.ndarray:
        """Which rows hold labels: bool `[num_images]`."""
        return _are_ok(self.status)


@dataclasses.dataclass(frozen=True)
class PairSimilarity:
    """How well each image fits the text of the same place.

    Args:
        logits: float32 `[num_pairs]`, `logit_scale` times the cosine.
        status: `"ok"`, or why the row is zero.
    """

    logits: np.ndarray
    status: list[str]

    @property
    def ok(self) -> np.ndarray:
        """Which rows hold numbers: bool `[num_pairs]`."""
        return _are_ok(self.status)


@dataclasses.dataclass(frozen=True)
class Similarity:
    """How well each image fits each text.

    Args:
        logits_per_image: float32 `[num_images, num_texts]`, `logit_scale` times the cosine.
        probabilities: float32 `[num_images, num_texts]`, the softmax of each row over the texts that are `"ok"`.
        image_status: per image `"ok"`, or why its row is zeros.
        text_status: per text `"ok"`, or why its column is zeros.
    """

    logits_per_image: np.ndarray
    probabilities: np.ndarray
    image_status: list[str]
    text_status: list[str]
