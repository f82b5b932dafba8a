"""Whether a classifier that is 80 % sure is right 80 % of the time."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

NUM_BINS = 15


@dataclasses.dataclass(frozen=True)
class CalibrationBin:
    """The images of which a classifier was about as sure.

    Args:
        low: their confidences are above this,
        high: and at most this.
        count: how many there are.
        confidence: their mean confidence; 0 if there are none.
        accuracy: the share that was right; 0 if there are none.
    """

    low: float
    high: float
    count: int
    confidence: float
    accuracy: float


def calibration_bins(
    confidences: np.ndarray, correct: np.ndarray, num_bins: int = NUM_BINS
) -> tuple[CalibrationBin, ...]:
    """Sorts images into bins of equal width by confidence.

    Args:
        confidences: float `[num_images]`, the probability of the class that was chosen, between 0 and 1.
        correct: bool `[num_images]`, whether it was right.
        num_bins: how many bins there are between 0 and 1.

    Returns:
        The bins, from the least sure to the surest.
    """
    edges = np.linspace(0.0, 1.0, num_bins + 1)
    # A sum of half-precision probabilities may round one above 1.
    places = np.clip(np.searchsorted(edges, confidences, side="left") - 1, 0, num_bins - 1)
    counts = np.bincount(places, minlength=num_bins)
    sure = np.bincount(places, weights=confidences, minlength=num_bins) / np.maximum(counts, 1)
    right = np.bincount(places, weights=correct, minlength=num_bins) / np.maximum(counts, 1)
    return tuple(
        CalibrationBin(float(edges[i]), float(edges[i + 1]), int(counts[i]), float(sure[i]), float(right[i]))
        for i in range(num_bins)
    )


def expected_calibration_error(bins: Sequence[CalibrationBin]) -> float:
    """Averages the gap between confidence and accuracy over images.

    Args:
        bins: what `calibration_bins` returns; not all empty.

    Returns:
        Between 0, where every bin is as often right as it is sure, and 1.

    Source: Guo et al. 2017, "On calibration of modern neural networks", equation 3.
    """
    total = sum(part.count for part in bins)
    return sum(part.count / total * abs(part.accuracy - part.confidence) for part in bins)
