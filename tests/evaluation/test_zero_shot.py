"""The zero-shot classifier, the published templates, and how much accuracy depends on the wording."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tf_clip import (
    CLIPModel,
    class_embeddings,
    class_probabilities,
    classification_report,
    template_robustness,
    template_set,
    zero_shot_classifier,
)
from tf_clip.cli.main import main
from tf_clip.evaluation.templates import template_sets
from tf_clip.evaluation.zero_shot import ZeroShotClassifier

NAMES = ["cat", "dog", "owl"]
TEMPLATES = ["a {}", "the {}.", "{}"]


@pytest.fixture(scope="module")
def model(tiny_config):
    return CLIPModel(tiny_config)


@pytest.fixture(scope="module")
def images():
    embeds = np.random.default_rng(0).normal(size=(40, 28)).astype("float32")
    return embeds / np.linalg.norm(embeds, axis=1, keepdims=True), np.arange(40) % 3


def test_the_classifier_is_the_mean_of_its_templates(model, tiny_processor, images):
    embeds, targets = images
    classifier = zero_shot_classifier(model, tiny_processor, NAMES, TEMPLATES)
    expected = class_embeddings(model, tiny_processor, NAMES, TEMPLATES)
    np.testing.assert_array_equal(classifier.class_embeds, expected)
    probabilities = class_probabilities(embeds, expected, float(model.logit_scale))
    np.testing.assert_array_equal(classifier.probabilities(embeds), probabilities)
    report = classifier.report(embeds, targets)
    assert report.labels == tuple(NAMES)
    assert report.metrics == pytest.approx(classification_report(probabilities, targets, NAMES).metrics, abs=1e-6)


def test_a_classifier_may_score_each_class_on_its_own(images):
    embeds, targets = images
    classifier = ZeroShotClassifier(tuple(NAMES), np.eye(3, 28, dtype="float32"), 3.0, "sigmoid", -4.0)
    logits = np.exp(3.0) * embeds[:, :3] - 4.0
    np.testing.assert_allclose(classifier.probabilities(embeds), 1 / (1 + np.exp(-logits)), rtol=1e-5)
    report = classifier.report(embeds, targets)
    np.testing.assert_allclose(report.confidences, (1 / (1 + np.exp(-logits))).max(axis=1), rtol=1e-5)
    again = classification_report(classifier.probabilities(embeds), targets, NAMES, activation="sigmoid")
    assert again.metrics == pytest.approx(report.metrics)
    with pytest.raises(ValueError, match="`scores` must be probabilities, from 0 to 1"):
        classification_report(logits, targets, NAMES, activation="sigmoid")


def test_each_wording_is_measured_alone_and_with_the_others(model, tiny_processor, images):
    embeds, targets = images
    steps = []
    found = template_robustness(model, tiny_processor, embeds, targets, NAMES, TEMPLATES, on_progress=steps.append)
    alone = [
        zero_shot_classifier(model, tiny_processor, NAMES, [template]).report(embeds, targets).top1
        for template in TEMPLATES
    ]
    together = zero_shot_classifier(model, tiny_processor, NAMES, TEMPLATES)
    assert len(set(alone)) > 1
    assert found.top1.tolist() == alone
    np.testing.assert_allclose(found.classifier.class_embeds, together.class_embeds, atol=1e-6)
    assert found.metrics == pytest.approx(
        {
            "mean": np.mean(alone),
            "std": np.std(alone),
            "min": min(alone),
            "max": max(alone),
            "ensemble": together.report(embeds, targets).top1,
        }
    )
    assert steps == [1, 1, 1]


def test_the_published_sets_can_be_used_by_name(model, tiny_processor):
    named = zero_shot_classifier(model, tiny_processor, NAMES[:2], "imagenet_simple")
    given = zero_shot_classifier(model, tiny_processor, NAMES[:2], template_set("imagenet_simple"))
    np.testing.assert_array_equal(named.class_embeds, given.class_embeds)


def test_the_published_sets_are_whole():
    lengths = {name: len(templates) for name, templates in template_sets().items()}
    assert len(lengths) == 28, "ImageNet's two, and the 26 of prompts.md"
    assert {name: length for name, length in lengths.items() if length > 8} == {
        "imagenet": 80,
        "ucf101": 48,
        "caltech101": 34,
        "kinetics700": 28,
        "cifar10": 18,
        "cifar100": 18,
        "resisc45": 18,
    }
    assert set(template_set("imagenet_simple")) < set(template_set("imagenet"))


@pytest.mark.parametrize("name", template_sets())
def test_every_published_template_has_one_place_for_the_class(name):
    templates = template_set(name)
    assert name == name.lower()
    assert len(set(templates)) == len(templates) > 0
    assert all(template.count("{}") == 1 for template in templates)
    assert not any(character in template.replace("{}", "") for template in templates for character in "{}")


@pytest.mark.command
def test_every_published_set_is_offered_and_described(capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", "zero-shot", "images", "--output", "report", "--template-set", "cifar"])
    error = capsys.readouterr().err
    page = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text(encoding="utf-8")
    for name in template_sets():
        assert name in error
        assert f"`{name}`" in page


def test_what_has_no_meaning_is_refused(model, tiny_processor, images):
    with pytest.raises(ValueError, match="`name` must be one of imagenet, imagenet_simple"):
        zero_shot_classifier(model, tiny_processor, NAMES, "a photo of a {}.")
    with pytest.raises(ValueError, match="`templates` must hold at least one"):
        template_robustness(model, tiny_processor, *images, NAMES, [])
    with pytest.raises(ValueError, match="`targets` must be indices below 3"):
        template_robustness(model, tiny_processor, images[0], images[1] + 1, NAMES, TEMPLATES)
