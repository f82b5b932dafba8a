"""Embedding in batches, zero-shot classification."""

import numpy as np
import pytest

from tf_clip import CLIPModel, class_embeddings, class_probabilities, embed_images, embed_texts


@pytest.fixture(scope="module")
def model(tiny_config):
    return CLIPModel(tiny_config)


@pytest.fixture(scope="module")
def images():
    generator = np.random.default_rng(0)
    return [generator.integers(0, 256, (10 + i, 12, 3), dtype=np.uint8) for i in range(5)]


def test_batches_do_not_change_embeddings(model, tiny_processor, images):
    done = []
    in_twos = embed_images(model, tiny_processor, images, batch_size=2, on_progress=done.append)
    at_once = embed_images(model, tiny_processor, images)
    np.testing.assert_allclose(in_twos.embeds, at_once.embeds, atol=1e-5)
    assert done == [2, 2, 1]
    assert in_twos.indices.tolist() == [0, 1, 2, 3, 4]
    texts = ["a cat", "a much longer dog", "x"]
    np.testing.assert_allclose(
        embed_texts(model, tiny_processor, texts, batch_size=1), embed_texts(model, tiny_processor, texts), atol=1e-5
    )


def test_bad_images_raise_or_are_skipped(model, tiny_processor, images):
    mixed = [images[0], b"no image", images[1]]
    with pytest.raises(ValueError, match="not an image"):
        embed_images(model, tiny_processor, mixed)
    embedded = embed_images(model, tiny_processor, mixed, skip_unreadable=True)
    assert embedded.indices.tolist() == [0, 2]
    assert list(embedded.failures) == [1]


def test_nothing_gives_no_rows(model, tiny_processor):
    assert embed_images(model, tiny_processor, []).embeds.shape == (0, 28)
    assert embed_texts(model, tiny_processor, []).shape == (0, 28)


def test_templates_are_averaged_on_the_sphere(model, tiny_processor):
    embeds = class_embeddings(model, tiny_processor, ["cat", "dog"], ["a {}", "the {}"])
    parts = embed_texts(model, tiny_processor, ["a cat", "the cat"])
    expected = parts.mean(axis=0) / np.linalg.norm(parts.mean(axis=0))
    np.testing.assert_allclose(embeds[0], expected, atol=1e-6)


def test_probabilities_are_a_softmax():
    images, classes = np.eye(2, 3, dtype="float32"), np.eye(3, dtype="float32")
    probabilities = class_probabilities(images, classes, np.log(2.0))
    np.testing.assert_allclose(probabilities[0], np.exp([2, 0, 0]) / np.exp([2, 0, 0]).sum(), rtol=1e-6)
    assert np.isfinite(class_probabilities(images, classes, 20.0)).all()


def test_probabilities_may_be_a_sigmoid_of_each_pair():
    images, classes = np.eye(2, 3, dtype="float32"), np.eye(3, dtype="float32")
    probabilities = class_probabilities(images, classes, np.log(2.0), scores="sigmoid", logit_bias=-1.0)
    np.testing.assert_allclose(probabilities[0], 1 / (1 + np.exp([-1.0, 1.0, 1.0])), rtol=1e-6)
    far = class_probabilities(images, classes, 20.0, scores="sigmoid", logit_bias=-1e9)
    assert np.isfinite(far).all() and far[0, 1] == 0
    with pytest.raises(ValueError, match="`scores` must be 'softmax' or 'sigmoid'. Received: scores='max'"):
        class_probabilities(images, classes, 1.0, scores="max")
