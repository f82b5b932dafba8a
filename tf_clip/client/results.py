"""The answers of a served model: numbers as arrays, and a status for each row."""

from __future__ import annotations

import dataclasses

import numpy as np

OK = "ok"


class _RowsWithStatus:
    status: list[str]

    @property
    def ok(self) -> np.ndarray:
        """Which rows are not bad: bool `[num_rows]`."""
        return np.array([one == OK for one in self.status], bool)


@dataclasses.dataclass(frozen=True)
class Embeddings(_RowsWithStatus):
    """Embeddings of images or texts, one row each, in the order given.

    Args:
        embeds: float32 `[num_rows, projection_dim]`, of unit length; zeros where the status is not `"ok"`.
        status: `"ok"`, or why the row is zeros.
    """

    embeds: np.ndarray
    status: list[str]


@dataclasses.dataclass(frozen=True)
class Classification(_RowsWithStatus):
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


@dataclasses.dataclass(frozen=True)
class PairSimilarity(_RowsWithStatus):
    """How well each image fits the text at the same position.

    Args:
        logits: float32 `[num_pairs]`, `logit_scale` times the cosine.
        status: `"ok"`, or why the row is zero.
    """

    logits: np.ndarray
    status: list[str]


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
