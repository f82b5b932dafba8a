"""Ranks of images and captions, against the formula on all similarities at once."""

from __future__ import annotations

import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_clip import retrieval_metrics, retrieval_report
from tf_clip.evaluation.ranks import rank_metrics, recall_curve

METRICS = ("R@1", "R@5", "R@10", "MRR", "mean_rank", "median_rank")


def naive_ranks(similarities, owners):
    """Both directions' ranks, one query at a time, from the whole matrix `[images, texts]`."""
    image_ranks, text_ranks = [], []
    for image, row in enumerate(similarities):
        best = max(s for s, owner in zip(row, owners, strict=True) if owner == image)
        rivals = sum(s >= best for s, owner in zip(row, owners, strict=True) if owner != image)
        image_ranks.append(1 + rivals)
    for text, owner in enumerate(owners):
        column = [row[text] for row in similarities]
        text_ranks.append(1 + sum(s >= column[owner] for image, s in enumerate(column) if image != owner))
    return image_ranks, text_ranks


def exact_cosine(a, b):
    """A number that orders as the cosine of two whole-number vectors does, without rounding."""
    dot = sum(int(x) * int(y) for x, y in zip(a, b, strict=True))
    square = Fraction(dot * dot, sum(int(x) ** 2 for x in a) * sum(int(y) ** 2 for y in b))
    return square if dot >= 0 else -square


@st.composite
def captioned(draw):
    """Images, captions and who owns whom; of few whole numbers, so that ties are common."""
    vector = st.tuples(*[st.integers(-2, 2)] * 3).filter(any)
    images = draw(st.lists(vector, min_size=1, max_size=9))
    extra = draw(st.lists(st.integers(0, len(images) - 1), max_size=9))
    owners = draw(st.permutations([*range(len(images)), *extra]))
    texts = draw(st.lists(vector, min_size=len(owners), max_size=len(owners)))
    return np.array(images), np.array(texts), np.array(owners)


@settings(max_examples=150, deadline=None)
@given(captioned(), st.integers(1, 12))
def test_ranks_are_those_of_the_whole_matrix_ties_included(data, chunk_size):
    images, texts, owners = data
    report = retrieval_report(images, texts, owners, chunk_size=chunk_size)
    similarities = [[exact_cosine(image, text) for text in texts] for image in images]
    image_ranks, text_ranks = naive_ranks(similarities, owners)
    assert report.image_ranks.tolist() == image_ranks
    assert report.text_ranks.tolist() == text_ranks
    assert report.image_to_text == rank_metrics(np.array(image_ranks))
    assert report.text_to_image == rank_metrics(np.array(text_ranks))


@pytest.mark.parametrize("chunk_size", [1, 7, 64, 1000])
def test_random_features_of_several_captions(chunk_size):
    generator = np.random.default_rng(0)
    images = generator.normal(size=(60, 16)).astype("float32")
    owners = generator.permutation(np.repeat(np.arange(60), 5))
    texts = images[owners] + 1.5 * generator.normal(size=(300, 16)).astype("float32")
    report = retrieval_report(images, texts, owners, chunk_size=chunk_size)
    unit = [rows / np.linalg.norm(rows.astype("float64"), axis=1, keepdims=True) for rows in (images, texts)]
    image_ranks, text_ranks = naive_ranks((unit[0] @ unit[1].T).tolist(), owners.tolist())
    assert report.image_ranks.tolist() == image_ranks
    assert report.text_ranks.tolist() == text_ranks
    assert 0.1 < report.text_to_image["R@1"] < report.image_to_text["R@1"] < 1.0  # any of five is easier to find


def test_equal_captions_tie_wherever_they_lie():
    generator = np.random.default_rng(1)
    caption = generator.normal(size=(1, 512)).astype("float32")
    texts = np.repeat(caption, 67, axis=0)  # the last chunk is of a single one
    images = generator.normal(size=(67, 512)).astype("float32")
    report = retrieval_report(images, texts, chunk_size=33)
    assert set(report.image_ranks.tolist()) == {67}
    assert sorted(report.text_ranks.tolist()) == list(range(1, 68))


def test_lengths_do_not_count():
    generator = np.random.default_rng(2)
    images, texts = generator.normal(size=(2, 20, 8))
    scaled = retrieval_report(images * generator.uniform(0.01, 100, (20, 1)), texts * 3)
    assert scaled.image_to_text == retrieval_report(images, texts).image_to_text


def test_memory_is_of_a_chunk_not_of_all_similarities():
    generator = np.random.default_rng(0)
    images, texts = generator.normal(size=(2, 20_000, 4)).astype("float32")
    tracemalloc.start()
    try:
        retrieval_report(images[:2000], texts, np.arange(20_000) % 2000, chunk_size=256)
        small = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        retrieval_report(images, texts, chunk_size=256)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    whole = 20_000 * 20_000 * 4
    assert peak < whole / 400
    # Ten times as many images: a few numbers for each more, and nothing for each pair.
    assert peak - small < 18_000 * 64


def test_random_features_have_the_ranks_of_chance():
    images, texts = np.random.default_rng(0).normal(size=(2, 1000, 32))
    report = retrieval_report(images, texts)
    for figures in (report.image_to_text, report.text_to_image):
        assert tuple(figures) == METRICS
        assert figures["mean_rank"] == pytest.approx(500.5, abs=40)
        assert figures["median_rank"] == pytest.approx(500.5, abs=60)


@pytest.mark.parametrize(
    ("shapes", "owners", "message"),
    [
        (((3, 4), (2, 4)), None, "`image_of_text` must be given"),
        (((2, 4), (2, 5)), None, "`text_embeds` must be as wide"),
        (((2, 4), (2,)), None, r"`text_embeds` must have shape \[rows, projection_dim\]"),
        (((0, 4), (0, 4)), None, "`image_embeds` must have shape .* at least one row"),
        (((2, 4), (3, 4)), [0, 1], "`image_of_text` must be 3 integers"),
        (((2, 4), (2, 4)), [0.0, 1.0], "`image_of_text` must be 2 integers"),
        (((2, 4), (2, 4)), [0, 2], "`image_of_text` must be indices below 2"),
        (((2, 4), (2, 4)), [-1, 0], "`image_of_text` must be indices below 2"),
        (((3, 4), (3, 4)), [0, 0, 2], "without a caption, the first at index 1"),
    ],
)
def test_what_does_not_fit_is_refused(shapes, owners, message):
    with pytest.raises(ValueError, match=message):
        retrieval_report(np.ones(shapes[0]), np.ones(shapes[1]), owners)


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
@pytest.mark.parametrize("name", ["image_embeds", "text_embeds"])
def test_embeddings_without_a_direction_are_refused(name, value):
    embeds = {"image_embeds": np.eye(3), "text_embeds": np.eye(3)}
    embeds[name][1] = value
    with pytest.raises(ValueError, match=f"`{name}` must have a direction"):
        retrieval_report(**embeds)


def test_chunks_must_hold_something():
    with pytest.raises(ValueError, match="`chunk_size` must be positive"):
        retrieval_report(np.eye(2), np.eye(2), chunk_size=0)


def test_ranks_are_counted():
    similarities = np.array([[0.9, 0.1, 0.2], [0.5, 0.4, 0.3], [0.1, 0.2, 0.0]])
    metrics = retrieval_metrics(similarities, np.array([0, 1, 2]))
    assert metrics == {
        "R@1": pytest.approx(1 / 3),
        "R@5": 1.0,
        "R@10": 1.0,
        "MRR": pytest.approx((1 + 1 / 2 + 1 / 3) / 3),
        "mean_rank": 2.0,
        "median_rank": 2.0,
    }


def test_ties_count_against():
    assert retrieval_metrics(np.zeros((4, 20)), np.arange(4))["R@10"] == 0.0


@pytest.mark.parametrize(
    ("shape", "targets"), [((2, 3), [0]), ((2, 3), [0, 3]), ((2, 3), [-1, 0]), ((0, 3), []), ((3,), [0, 1, 2])]
)
def test_bad_targets_are_refused(shape, targets):
    with pytest.raises(ValueError, match="`targets` must"):
        retrieval_metrics(np.zeros(shape), np.array(targets, dtype=int))


def test_similarities_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match="`scores` must be numbers"):
        retrieval_metrics(np.array([[np.nan, 1.0]]), np.array([1]))


@settings(max_examples=50)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=40), st.integers(1, 35))
def test_the_curve_passes_through_the_recalls(ranks, longest):
    ranks = np.array(ranks)
    assert recall_curve(ranks, longest) == pytest.approx([np.mean(ranks <= k) for k in range(1, longest + 1)])
