"""The linear probe: against scikit-learn alone, its search, its exports, and digits from frozen features."""

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from tf_clip import CLIPForImageClassification, CLIPModel, CLIPProcessor, class_probabilities
from tf_clip.training.probe import FEATURES, _search, image_features, linear_probe


@pytest.fixture(autouse=True)
def one_thread():
    """Small products are slower on several threads, and a hundred times so on a busy machine."""
    with threadpool_limits(1):
        yield


@pytest.fixture(scope="module")
def clouds():
    """Points around the center of their class, for training, validation and test."""
    generator = np.random.default_rng(0)
    centers = generator.normal(size=(3, 6))
    targets = np.arange(120) % 3
    features = (centers[targets] + generator.normal(size=(120, 6))).astype("float32")
    return [(features[start : start + 40], targets[start : start + 40]) for start in (0, 40, 80)]


@pytest.mark.parametrize("num_classes", [2, 3])
def test_it_is_scikit_learns_with_the_best_strength(clouds, num_classes):
    (train, classes), (valid, valid_classes), (test, _) = [
        (features[targets < num_classes], targets[targets < num_classes]) for features, targets in clouds
    ]
    probe = linear_probe(train, classes, valid, valid_classes, refit=False)
    assert len(probe.validation_accuracy) <= 15
    accuracies = {
        C: LogisticRegression(C=C, max_iter=1000).fit(train, classes).score(valid, valid_classes)
        for C in probe.validation_accuracy
        if C <= 1e2  # larger ones do not converge, of which scikit-learn warns
    }
    assert accuracies == {C: pytest.approx(probe.validation_accuracy[C]) for C in accuracies}
    assert probe.validation_accuracy[probe.C] == max(probe.validation_accuracy.values())
    reference = LogisticRegression(C=probe.C, max_iter=1000).fit(train, classes)
    logits = probe.logits(test)
    likelihoods = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.testing.assert_allclose(
        likelihoods / likelihoods.sum(axis=1, keepdims=True), reference.predict_proba(test), atol=1e-4
    )
    np.testing.assert_array_equal(probe.predict(test), reference.predict(test))


@pytest.mark.parametrize("peak", [0, 3, 40, 41, 96])
def test_the_search_finds_a_peak_in_15_trials(peak):
    tried = set()

    def score(index):
        tried.add(index)
        return -abs(index - peak)

    assert _search(score) == peak
    assert len(tried) <= 15


def test_refitting_uses_all_images(clouds):
    (train, classes), (valid, valid_classes), _ = clouds
    probe = linear_probe(train, classes, valid, valid_classes)
    everything = np.concatenate([train, valid]), np.concatenate([classes, valid_classes])
    reference = LogisticRegression(C=probe.C, max_iter=1000).fit(*everything)
    np.testing.assert_allclose(probe.weights.T, reference.coef_, atol=1e-3)


def test_a_probe_of_patches_is_an_image_classifier(tiny_model, tiny_processor, tmp_path):
    images = list(np.random.default_rng(0).integers(0, 256, (12, 20, 20, 3), dtype=np.uint8))
    targets = np.arange(12) % 3
    features = image_features(tiny_model, tiny_processor, images, "patch_mean", batch_size=5).values
    probe = linear_probe(features, targets, features, targets, ["ant", "bee", "cow"])
    probe.to_classifier(tiny_model).save_pretrained(tmp_path)
    classifier = CLIPForImageClassification.from_pretrained(tmp_path)
    assert dict(classifier.config.id2label) == {0: "ant", 1: "bee", 2: "cow"}
    pixel_values = tiny_processor(images=images, return_tensors="np")["pixel_values"]
    logits = classifier.predict(pixel_values, verbose=0)["logits"]
    np.testing.assert_allclose(logits, probe.logits(features), atol=1e-4)
    with pytest.raises(ValueError, match="`class_embeddings` must be asked of a probe without bias"):
        probe.class_embeddings()


def test_a_probe_of_embeddings_is_class_embeddings(tiny_model, tiny_processor):
    images = list(np.random.default_rng(0).integers(0, 256, (12, 20, 20, 3), dtype=np.uint8))
    targets = np.arange(12) % 3
    embeds = image_features(tiny_model, tiny_processor, images, "image_embeds").values
    np.testing.assert_allclose(np.linalg.norm(embeds, axis=1), 1.0, atol=1e-6)
    probe = linear_probe(embeds, targets, embeds, targets, bias=False)
    classes, scale = probe.class_embeddings()
    logits = probe.logits(embeds)
    likelihoods = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.testing.assert_allclose(
        class_probabilities(embeds, classes, scale), likelihoods / likelihoods.sum(axis=1, keepdims=True), atol=1e-4
    )
    with pytest.raises(ValueError, match="`model` must have the number of features of the probe, 28"):
        probe.to_classifier(tiny_model)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets": [0, 1]}, "`targets` must hold a class for each row of `features`"),
        ({"targets": [0.0, 1.0, 0.0, 1.0]}, "`targets` must be whole numbers"),
        ({"targets": [0, 0, 0, 0]}, "`targets` must be numbers of 2 classes"),
        ({"class_names": ["a", "b", "c"]}, r"without an image: \[2\]"),
        ({"features": np.full((4, 2), np.nan)}, "`features` must be finite"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    arguments = {"features": np.eye(4)[:, :2], "targets": [0, 1, 0, 1]}
    arguments |= {"validation_features": arguments["features"], "validation_targets": arguments["targets"]}
    with pytest.raises(ValueError, match=message):
        linear_probe(**{**arguments, **changes})


def test_unknown_features_are_refused(tiny_model, tiny_processor):
    with pytest.raises(ValueError, match="`features` must be one of"):
        image_features(tiny_model, tiny_processor, ["x"], "logits")
    with pytest.raises(ValueError, match="`images` must hold a readable image"):
        image_features(tiny_model, tiny_processor, [b"x", "/nowhere"], skip_unreadable=True)
    with pytest.raises(ValueError, match="must be whole images"):
        image_features(tiny_model, tiny_processor, [b"x"])


def test_bad_images_are_left_out(tiny_model, tiny_processor):
    images = list(np.random.default_rng(0).integers(0, 256, (3, 20, 20, 3), dtype=np.uint8))
    whole = image_features(tiny_model, tiny_processor, images)
    mixed = image_features(
        tiny_model, tiny_processor, [images[0], b"broken", *images[1:]], skip_unreadable=True, batch_size=2
    )
    np.testing.assert_allclose(mixed.values, whole.values, atol=1e-5)
    assert mixed.indices.tolist() == [0, 2, 3]
    assert set(mixed.failures) == {1}


@pytest.mark.slow
def test_digits_are_read_from_frozen_features():
    """The shipped model has never been trained on handwriting."""
    model, processor = CLIPModel.from_pretrained("pictogram-clip"), CLIPProcessor.from_pretrained("pictogram-clip")
    digits = load_digits()
    pixels = np.uint8(255 - digits.images * 15.9375)  # 16 levels of ink on black, to ink on white
    images = list(np.repeat(pixels[..., np.newaxis], 3, axis=3))
    features = image_features(model, processor, images, batch_size=300).values
    order = np.random.default_rng(0).permutation(len(images))
    train, valid, test = np.split(order, [900, 1200])
    targets = digits.target
    probe = linear_probe(features[train], targets[train], features[valid], targets[valid])
    accuracy = np.mean(probe.predict(features[test]) == targets[test])
    print(f"digits: {accuracy:.4f} with C={probe.C:.3g}")
    assert accuracy > 0.90
    assert "pooler_output" in FEATURES
