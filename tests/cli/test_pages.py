"""The pages that commands write, from results made by hand."""

import re

import numpy as np
import pytest
from PIL import Image

from helpers.html_text import Text, require_self_contained
from tf_clip import classification_report
from tf_clip.cli.classification_page import page as classification_page
from tf_clip.cli.evaluation_page import retrieval_page


def test_the_page_of_classify_holds_images_and_bars(tmp_path):
    paths = [tmp_path / f"<i>{name}.png" for name in "ab"]
    for path in paths:
        Image.fromarray(np.full((400, 800, 3), 90, np.uint8)).save(path)
    labels = ["<script>alert(1)</script>", "a $5 bill"]
    page = classification_page([(path, [(labels[0], 0.75), (labels[1], 0.25)]) for path in paths], "a <b> & $model")
    seen = require_self_contained(page)
    assert "2 images, named by a <b> & $model" in seen.text
    assert len(seen.addresses) == 2
    for text in (*labels, "75.0%", "25.0%", "<i>a.png", "<i>b.png"):
        assert text in seen.text
    assert page.count("width: 75.00%") == page.count("width: 25.00%") == 2


def test_a_page_without_mistakes_says_so():
    metrics = {"R@1": 1.0, "R@10": 1.0, "MRR": 1.0, "mean_rank": 1.0}
    result = {
        **{"model": "m", "data": "<d>", "images": 1, "captions": 2, "shared_captions": 0, "skipped": []},
        "metrics": {"image_to_text": metrics, "text_to_image": metrics},
        "recall_curve": {"image_to_text": [1.0], "text_to_image": [1.0]},
        "worst": {"image_to_text": [], "text_to_image": []},
    }
    seen = require_self_contained(retrieval_page(result, result["worst"]))
    assert seen.text.count("None.") == 2
    assert "1 image with 2 captions in <d>" in seen.text


def test_many_classes_are_shown_by_those_confused_most():
    from tf_clip.cli.evaluation_page import zero_shot_page

    names = [f"kind {number}" for number in range(60)]
    targets = np.repeat(np.arange(60), 4)
    answers = np.where(targets % 2, targets, (targets + 1) % 60)  # every second class is always wrong
    report = classification_report(np.eye(60)[answers], targets, names)
    result = {"model": "m", "data": "d", "images": 240, "templates": ["{}"], "worst": [], "skipped": []}
    page = zero_shot_page({**result, "metrics": report.metrics, "recall_curve": [0.5] * 60}, report, [])
    seen = Text(page)
    assert "The 30 most confused of 60 classes" in seen.text
    assert "kind 0 predicted as kind 1: 4 of 4" in seen.text
    assert "kind 0 predicted as all others: 0 of 4" in seen.text
    assert "kind 58" not in seen.text
    right = classification_report(np.eye(60)[targets], targets, names)
    page = zero_shot_page({**result, "metrics": right.metrics, "recall_curve": [1.0] * 60}, right, [])
    assert "All images of all 60 classes are right" in Text(page).text


def points(svg):
    """The line of a chart, as (x, y) pairs."""
    (line,) = re.findall(r'class="line" points="([^"]+)"', svg)
    return [tuple(map(float, pair.split(","))) for pair in line.split()]


def test_the_curve_is_drawn_where_its_numbers_are():
    from tf_clip.cli.charts import recall_chart

    line = points(recall_chart([("a", np.array([0.0, 0.25, 0.5, 1.0]))], 0.25))
    x, y = zip(*line, strict=True)
    assert np.diff(x)[0] == pytest.approx(np.diff(x)[1:].sum(), abs=0.2)  # 1 to 2 is as far as 2 to 4
    heights = (y[0] - np.array(y)) / (y[0] - y[3])
    np.testing.assert_allclose(heights, [0.0, 0.25, 0.5, 1.0], atol=0.001)
