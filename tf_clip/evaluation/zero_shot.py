"""A classifier made of names and prompts, and how its accuracy depends on the prompts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tf_clip.evaluation.classification import ClassificationReport, classification_report, require_targets
from tf_clip.evaluation.retrieval import target_ranks
from tf_clip.evaluation.templates import template_set
from tf_clip.models.two_towers import TwoTowerModel
from tf_clip.preprocessing.processor import Processor
from tf_clip.tasks.zero_shot import class_embeddings, probabilities, scoring
from tf_clip.unit_length import unit_rows


@dataclasses.dataclass(frozen=True)
class ZeroShotClassifier:
    """Names images by the nearest class embedding; nothing is trained.

    Args:
        class_names: the classes' names.
        class_embeds: float32 `[num_classes, projection_dim]`, of unit length.
        logit_scale: the model's, a logarithm.
        scores: as in `class_probabilities`, by the model's family.
        logit_bias: the model's; 0 where it has none.
    """

    class_names: tuple[str, ...]
    class_embeds: np.ndarray
    logit_scale: float
    scores: str = "softmax"
    logit_bias: float = 0.0

    def logits(self, image_embeds: np.ndarray) -> np.ndarray:
        """Returns the scaled similarities of images and classes.

        Args:
            image_embeds: float `[num_images, projection_dim]`, of unit length, as `embed_images` returns them.

        Returns:
            float `[num_images, num_classes]`.
        """
        logits: np.ndarray = np.exp(self.logit_scale) * image_embeds @ self.class_embeds.T + self.logit_bias
        return logits

    def probabilities(self, image_embeds: np.ndarray) -> np.ndarray:
        """Says how likely each class is for each image.

        Args:
            image_embeds: as in `logits`.

        Returns:
            float32 `[num_images, num_classes]`; each row sums to 1 where `scores` is `"softmax"`.
        """
        return probabilities(self.logits(image_embeds), self.scores).astype(np.float32)

    def report(self, image_embeds: np.ndarray, targets: Any) -> ClassificationReport:
        """Compares what it says with what is right.

        Args:
            image_embeds: as in `logits`.
            targets: int `[num_images]`, the index of each image's class in `class_names`.

        Raises:
            ValueError: the numbers of images and targets differ, or a target is not a class.
        """
        logits = self.logits(image_embeds)
        return classification_report(logits, targets, self.class_names, from_logits=True, activation=self.scores)


def zero_shot_classifier(
    model: TwoTowerModel, processor: Processor, class_names: Sequence[str], templates: str | Sequence[str] = ("{}",)
) -> ZeroShotClassifier:
    """Makes a classifier of names: each class is the mean of its embeddings in several prompts.

    Args:
        model: the model.
        processor: its processor.
        class_names: the classes' names, all different and none empty.
        templates: prompts with `{}` where the name goes, or the name of a set of `template_set`, such as
            `"imagenet"`.

    Returns:
        The classifier; the model is not needed any more.

    Raises:
        ValueError: there are no classes, one is empty or repeated, a template lacks `{}`, or no set has that name.

    Example:
        >>> classifier = zero_shot_classifier(model, processor, ["owl", "bus"], "imagenet_simple")
        >>> classifier.probabilities(embed_images(model, processor, paths).embeds).shape
        (10, 2)

    Source: Radford et al. 2021, section 3.1.4; open_clip's `build_zero_shot_classifier`.
    """
    embeds = class_embeddings(model, processor, class_names, _templates(templates))
    return ZeroShotClassifier(tuple(class_names), embeds, **scoring(model))


@dataclasses.dataclass(frozen=True)
class TemplateRobustness:
    """How accurate a model is with each template alone, and with all of them.

    Args:
        templates: the templates.
        top1: float64 `[num_templates]`, the accuracy with each alone.
        classifier: the classifier of all of them, the same as `zero_shot_classifier` makes.
        ensemble_top1: its accuracy.
    """

    templates: tuple[str, ...]
    top1: np.ndarray
    classifier: ZeroShotClassifier
    ensemble_top1: float

    @property
    def metrics(self) -> dict[str, float]:
        """`mean`, `std`, `min` and `max` over the templates, and `ensemble`."""
        return {
            "mean": float(self.top1.mean()),
            "std": float(self.top1.std()),
            "min": float(self.top1.min()),
            "max": float(self.top1.max()),
            "ensemble": self.ensemble_top1,
        }


def template_robustness(
    model: TwoTowerModel,
    processor: Processor,
    image_embeds: np.ndarray,
    targets: Any,
    class_names: Sequence[str],
    templates: str | Sequence[str],
    *,
    on_progress: Callable[[int], None] | None = None,
) -> TemplateRobustness:
    """Measures how much a model's accuracy depends on the wording.

    Args:
        model: the model.
        processor: its processor.
        image_embeds: float `[num_images, projection_dim]`, of unit length, as `embed_images` returns them.
        targets: int `[num_images]`, the index of each image's class.
        class_names: the classes' names, all different and none empty.
        templates: prompts with `{}` where the name goes, or the name of a set.
        on_progress: called with 1 after each template.

    Returns:
        The accuracies. The embeddings of one template are in memory at a time.

    Raises:
        ValueError: as `zero_shot_classifier` and `classification_report` do.
    """
    targets = np.asarray(targets)
    require_targets(targets, len(image_embeds), len(class_names))
    wordings, total, accuracies = _templates(templates), np.float32(0.0), []
    for template in wordings:
        alone = zero_shot_classifier(model, processor, class_names, [template])
        accuracies.append(_top1(alone, image_embeds, targets))
        total = total + alone.class_embeds
        if on_progress:
            on_progress(1)
    if not accuracies:
        raise ValueError("`templates` must hold at least one template. Received: none. Pass 'a photo of a {}.'.")
    together = dataclasses.replace(alone, class_embeds=unit_rows(total))
    return TemplateRobustness(wordings, np.array(accuracies), together, _top1(together, image_embeds, targets))


def _top1(classifier: ZeroShotClassifier, image_embeds: np.ndarray, targets: np.ndarray) -> float:
    return float(np.mean(target_ranks(classifier.logits(image_embeds), targets) == 1))


def _templates(templates: str | Sequence[str]) -> tuple[str, ...]:
    return template_set(templates) if isinstance(templates, str) else tuple(templates)
