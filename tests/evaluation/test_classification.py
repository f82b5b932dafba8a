"""Figures of classification, against scikit-learn's and against the formula of the calibration error."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, log_loss, top_k_accuracy_score

from tf_clip import classification_report
from tf_clip.evaluation.calibration import calibration_bins, expected_calibration_error


def random_answers(seed=0, images=400, classes=9):
    generator = np.random.default_rng(seed)
    targets = generator.integers(0, classes, images)
    logits = generator.normal(size=(images, classes)) + 1.5 * np.eye(classes)[targets]
    powers = np.exp(logits)
    return logits, powers / powers.sum(axis=1, keepdims=True), targets


def naive_calibration_error(confidences, correct, bins=15):
    total = 0.0
    for number in range(bins):
        inside = (confidences > number / bins) & (confidences <= (number + 1) / bins)
        if inside.any():
            total += inside.mean() * abs(correct[inside].mean() - confidences[inside].mean())
    return total


@pytest.mark.parametrize("from_logits", [False, True])
def test_figures_are_scikit_learns(from_logits):
    logits, probabilities, targets = random_answers()
    scores = logits if from_logits else probabilities
    report = classification_report(scores, targets, from_logits=from_logits)
    labels = np.arange(9)
    assert report.top1 == pytest.approx(top_k_accuracy_score(targets, scores, k=1, labels=labels))
    assert report.top5 == pytest.approx(top_k_accuracy_score(targets, scores, k=5, labels=labels))
    assert report.mean_per_class == pytest.approx(balanced_accuracy_score(targets, report.predictions))
    np.testing.assert_array_equal(report.confusion, confusion_matrix(targets, report.predictions, labels=labels))
    np.testing.assert_array_equal(report.predictions, scores.argmax(axis=1))
    error = naive_calibration_error(probabilities.max(axis=1), scores.argmax(axis=1) == targets)
    assert report.ece == pytest.approx(error, abs=1e-12)
    assert report.ece > 0.01
    assert sum(part.count for part in report.calibration) == len(targets)
    assert log_loss(targets, probabilities, labels=labels) < 2.0  # the answers are better than chance


def test_a_rare_class_counts_as_much_and_an_absent_one_not_at_all():
    probabilities = np.eye(3)[[0, 0, 0, 0]]
    report = classification_report(probabilities, [0, 0, 0, 1], ["cat", "dog", "owl"])
    assert (report.top1, report.mean_per_class) == (0.75, 0.5)
    assert report.per_class == {"cat": 1.0, "dog": 0.0}
    assert report.metrics == {"top1": 0.75, "top5": 1.0, "mean_per_class": 0.5, "ece": 0.25}


def test_ties_count_against_everywhere():
    report = classification_report(np.full((3, 8), 1 / 8), [0, 3, 7])
    assert (report.top1, report.top5, report.mean_per_class) == (0.0, 0.0, 0.0)
    assert np.trace(report.confusion) == 0
    assert report.ece == pytest.approx(1 / 8)


def test_one_class_is_always_right():
    report = classification_report(np.ones((2, 1)), [0, 0])
    assert (report.top1, report.mean_per_class, report.ece) == (1.0, 1.0, 0.0)


def test_logits_far_apart_stay_apart():
    # Their probabilities are 1, 0 and 0 in float32: a rank among these would be a tie.
    report = classification_report(np.array([[500.0, 200.0, 0.0]], "float32"), [1], from_logits=True)
    assert report.ranks.tolist() == [2]
    assert report.confidences.tolist() == [1.0]


@settings(max_examples=100)
@given(st.lists(st.tuples(st.integers(1, 60), st.booleans()), min_size=1, max_size=40))
def test_the_calibration_error_is_its_formula_at_the_edges_too(answers):
    confidences = np.array([numerator for numerator, _ in answers]) / 60  # every fourth is an edge
    correct = np.array([right for _, right in answers])
    bins = calibration_bins(confidences, correct)
    assert expected_calibration_error(bins) == pytest.approx(naive_calibration_error(confidences, correct))


@pytest.mark.parametrize(
    ("scores", "targets", "labels", "message"),
    [
        ([[0.5, 0.5]], [0, 1], None, r"`targets` must be integers of shape \[1\], at least one"),
        ([[0.5, 0.5]], [0.0], None, "`targets` must be integers"),
        ([[0.5, 0.5]], [2], None, "`targets` must be indices below 2"),
        ([[0.5, 0.5]], [-1], None, "`targets` must be indices below 2"),
        ([[0.5, 0.5]], [0], ["cat"], "`labels` must be one for each column"),
        ([[0.5, 0.5]], [0], ["cat", "cat"], "all different"),
        ([[3.0, 0.5]], [0], None, "Pass from_logits=True"),
        ([[1.5, -0.5]], [0], None, "Pass from_logits=True"),
        ([[np.nan, 0.5]], [0], None, "`scores` must be finite"),
        ([], [], None, "`scores` must have shape"),
        ([0.5], [0], None, "`scores` must have shape"),
    ],
)
def test_what_does_not_fit_is_refused(scores, targets, labels, message):
    with pytest.raises(ValueError, match=message):
        classification_report(scores, targets, labels)
