"""How well a classifier names images, and whether its probabilities mean what they say."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from tf_clip.errors import require
from tf_clip.evaluation.calibration import CalibrationBin, calibration_bins, expected_calibration_error
from tf_clip.evaluation.retrieval import target_ranks
from tf_clip.tasks.zero_shot import probabilities


@dataclasses.dataclass(frozen=True)
class ClassificationReport:
    """How well images were named.

    Args:
        labels: the classes' names, in the order of the scores.
        top1: the share of images whose own class scores highest.
        top5: the share of images whose own class is among the five highest; 1 with five classes or fewer.
        mean_per_class: the mean over classes of the share of their images named right, where a rare class counts as
            much as a frequent one; classes without images are left out.
        ece: the expected calibration error, over 15 bins.
        confusion: int64 `[num_classes, num_classes]`; row: the class, column: what it was taken for.
        calibration: the images by how sure the classifier was.
        ranks: int64 `[num_images]`, from 1: the place of each image's own class.
        predictions: int64 `[num_images]`, the class that each image was taken for.
        confidences: float64 `[num_images]`, the probability of that class.
    """

    labels: tuple[str, ...]
    top1: float
    top5: float
    mean_per_class: float
    ece: float
    confusion: np.ndarray
    calibration: tuple[CalibrationBin, ...]
    ranks: np.ndarray
    predictions: np.ndarray
    confidences: np.ndarray

    @property
    def metrics(self) -> dict[str, float]:
        """The four figures by their names."""
        return {name: getattr(self, name) for name in ("top1", "top5", "mean_per_class", "ece")}

    @property
    def per_class(self) -> dict[str, float]:
        """From the name of each class that has images to the share of them named right."""
        counts, right = self.confusion.sum(axis=1), np.diag(self.confusion)
        return {
            label: float(hits / count) for label, hits, count in zip(self.labels, right, counts, strict=True) if count
        }


def classification_report(
    scores: Any,
    targets: Any,
    labels: Sequence[str] | None = None,
    *,
    from_logits: bool = False,
    activation: str = "softmax",
) -> ClassificationReport:
    """Compares what a classifier says with what is right.

    Args:
        scores: float `[num_images, num_classes]`: probabilities; logits with `from_logits`.
        targets: int `[num_images]`, the index of each image's class.
        labels: the classes' names; None calls them by their numbers.
        from_logits: whether the scores are logits.
        activation: what turns logits to probabilities: `"softmax"`, after which each row sums to 1, or `"sigmoid"`.

    Returns:
        The figures. A tie counts against the classifier: of classes that tie with the right one, one of the others
        is taken for its answer.

    Raises:
        ValueError: the shapes do not fit, a target is not a class, a row is not of probabilities, or there are no
            images.

    Example:
        >>> report = classification_report([[0.75, 0.25], [0.75, 0.25]], [0, 1], ["cat", "dog"])
        >>> report.top1, report.mean_per_class, report.confusion.tolist(), report.ece
        (0.5, 0.5, [[1, 0], [1, 0]], 0.25)

    Source: top-k as in ImageNet's evaluation; mean per class as CLIP's paper reports it for Caltech101, Flowers102 and
    Pets (table 9); the calibration error of Guo et al. 2017.
    """
    scores, targets = _scores(scores), np.asarray(targets)
    names = tuple(map(str, range(scores.shape[1]))) if labels is None else tuple(labels)
    if len(names) != scores.shape[1] or len(set(names)) != len(names):
        raise ValueError(
            "`labels` must be one for each column of `scores`, all different. "
            f"Received: {len(names)} labels, {len(set(names))} different, "
            f"scores.shape={scores.shape}. Pass all classes, in the order of the columns."
        )
    require_targets(targets, len(scores), len(names))
    if from_logits:
        likely = probabilities(scores.astype(np.float64), activation)
    else:
        likely = _require_probabilities(scores, activation)
    predictions = _predictions(scores, targets)
    confidences = likely[np.arange(len(targets)), predictions].astype(np.float64)
    confusion = np.zeros((len(names), len(names)), np.int64)
    np.add.at(confusion, (targets, predictions), 1)
    counts = confusion.sum(axis=1)
    ranks = target_ranks(scores, targets)
    bins = calibration_bins(confidences, predictions == targets)
    return ClassificationReport(
        labels=names,
        top1=float(np.mean(ranks <= 1)),
        top5=float(np.mean(ranks <= 5)),
        mean_per_class=float(np.mean(np.diag(confusion)[counts > 0] / counts[counts > 0])),
        ece=expected_calibration_error(bins),
        confusion=confusion,
        calibration=bins,
        ranks=ranks,
        predictions=predictions,
        confidences=confidences,
    )


def require_targets(targets: np.ndarray, num_images: int, num_classes: int) -> None:
    """Raises ValueError unless there is the index of a class for each image, and at least one image."""
    if targets.shape != (num_images,) or targets.dtype.kind not in "iu" or num_images == 0:
        raise ValueError(
            f"`targets` must be integers of shape [{num_images}], at least one. Received: shape={targets.shape}, "
            f"dtype={targets.dtype}. Pass the index of each image's class."
        )
    if targets.min() < 0 or targets.max() >= num_classes:
        raise ValueError(
            f"`targets` must be indices below {num_classes}. Received: from {targets.min()} to {targets.max()}. "
            "Check the order of the classes."
        )


def _scores(scores: Any) -> np.ndarray:
    array = np.asarray(scores)
    if array.ndim != 2 or array.size == 0:
        raise ValueError(
            "`scores` must have shape [num_images, num_classes], neither zero. "
            f"Received: scores.shape={array.shape}. Pass a row for each image."
        )
    if not np.isfinite(array).all():
        raise ValueError("`scores` must be finite. Received: NaN or infinity. Look for it in the model's weights.")
    return array


def _predictions(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Returns each row's highest class; the right one only if it is higher than every other."""
    rows = np.arange(len(targets))
    others = scores.astype(np.result_type(scores, np.float32))
    others[rows, targets] = -np.inf
    rivals = np.argmax(others, axis=1)
    return np.where(scores[rows, targets] > others[rows, rivals], targets, rivals)


def _require_probabilities(scores: np.ndarray, activation: str) -> np.ndarray:
    if activation == "sigmoid":
        require(
            bool((scores >= 0).all() and (scores <= 1).all()),
            "scores",
            "probabilities, from 0 to 1",
            [float(scores.min()), float(scores.max())],
            "Pass from_logits=True for logits.",
        )
        return scores
    # Half precision is off by a thousandth.
    if not (scores >= 0).all() or not np.allclose(scores.sum(axis=1, dtype=np.float64), 1.0, atol=1e-2):
        raise ValueError(
            "`scores` must be probabilities, each row of sum 1. Received: rows with sums from "
            f"{scores.sum(axis=1).min():.3g} to {scores.sum(axis=1).max():.3g}. Pass from_logits=True for logits."
        )
    return scores
