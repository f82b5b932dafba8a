"""The classifier: losses by problem type, training, and loading with a new head."""

import keras
import numpy as np
import pytest

from helpers.arrays import array, assert_close, assert_same
from tf_clip import CheckpointError, CLIPConfig, CLIPForImageClassification, CLIPModel
from tf_clip.losses import classification_loss

pytestmark = pytest.mark.backends

LOGITS = np.array([[2.0, -1.0, 0.5], [0.0, 1.0, -2.0]], "float32")


def softmax_loss(labels):
    exponentials = np.exp(LOGITS)
    return -np.log(exponentials[np.arange(2), labels] / exponentials.sum(axis=1))


def binary_loss(labels):
    probabilities = 1 / (1 + np.exp(-LOGITS))
    return -(labels * np.log(probabilities) + (1 - labels) * np.log(1 - probabilities)).mean(axis=1)


def test_whole_numbers_mean_one_right_class():
    assert_close(classification_loss(np.array([2, 0]), LOGITS), softmax_loss([2, 0]).astype("float32"), rtol=1e-5)


def test_fractions_mean_several_right_classes():
    labels = np.array([[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]], "float32")
    assert_close(classification_loss(labels, LOGITS), binary_loss(labels).astype("float32"), rtol=1e-5)


def test_one_label_means_regression():
    labels = np.array([1.0, 0.5], "float32")
    assert_close(classification_loss(labels, LOGITS[:, :1]), (LOGITS[:, 0] - labels) ** 2, rtol=1e-6)
    wide = np.zeros((2, 3), "float32")
    assert_close(classification_loss(wide, LOGITS, "regression"), (LOGITS**2).mean(axis=1), rtol=1e-6)


@pytest.mark.parametrize("labels", [np.zeros(2, "float32"), np.zeros((2, 2), "float32")])
def test_labels_of_another_width_are_refused(labels):
    with pytest.raises(ValueError, match=r"`labels` must have shape \[batch, 3\] for multi_label_classification"):
        classification_loss(labels, LOGITS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("problem_type", "num_labels", "labels"),
    [
        (None, 3, np.arange(60) % 3),
        ("multi_label_classification", 3, np.eye(3, dtype="float32")[np.arange(60) % 3]),
        (None, 1, (np.arange(60) % 3).astype("float32")),
    ],
)
def test_fit_learns(tiny_config, problem_type, num_labels, labels):
    images = np.random.default_rng(0).normal(size=(60, 20, 20, 3)).astype("float32")
    images += (np.arange(60) % 3)[:, None, None, None]
    config = CLIPConfig.from_dict({**tiny_config.to_dict(), "problem_type": problem_type})
    model = CLIPForImageClassification(config, num_labels=num_labels)
    metrics = [] if num_labels == 1 else [keras.metrics.MeanSquaredError(name="of_logits")]
    model.compile(keras.optimizers.Adam(1e-2), metrics=metrics if problem_type else None)
    history = model.fit(images, labels, batch_size=20, epochs=16, verbose=0).history
    assert history["loss"][-1] < 0.6 * history["loss"][0]
    assert model.predict(images, batch_size=20, verbose=0)["logits"].shape == (60, num_labels)
    loss = model.evaluate(images, labels, batch_size=60, verbose=0, return_dict=True)["loss"]
    assert float(array(model(images, labels=labels).loss)) == pytest.approx(loss, rel=1e-4)


def test_sample_weights_count(tiny_config):
    model = CLIPForImageClassification(tiny_config, num_labels=3)
    model.compile("sgd")
    images, labels = np.random.default_rng(0).normal(size=(4, 20, 20, 3)).astype("float32"), np.array([0, 1, 2, 0])
    weighted = model.evaluate(images, labels, sample_weight=np.array([1.0, 0, 0, 0]), verbose=0)
    alone = model.evaluate(images[:1], labels[:1], verbose=0)
    assert weighted == pytest.approx(alone / 4, rel=1e-5)


def test_a_loss_of_ones_own_is_used(tiny_config):
    model = CLIPForImageClassification(tiny_config, num_labels=3)
    model.compile("sgd", loss=keras.losses.MeanSquaredError(), metrics=["mse"])
    images, targets = np.zeros((2, 20, 20, 3), "float32"), np.ones((2, 3), "float32")
    result = model.evaluate(images, targets, verbose=0, return_dict=True)
    assert result["loss"] == pytest.approx(result["mse"], rel=1e-5)


def test_labels_are_needed(tiny_config):
    model = CLIPForImageClassification(tiny_config)
    model.compile("sgd")
    with pytest.raises(ValueError, match="`y` must hold the labels"):
        model.fit(np.zeros((2, 20, 20, 3), "float32"), verbose=0)


def test_a_new_head_on_a_clip_checkpoint(tiny_config, tmp_path):
    joint = CLIPModel(tiny_config)
    joint.save_pretrained(tmp_path / "joint")
    model = CLIPForImageClassification.from_pretrained(tmp_path / "joint", num_labels=4)
    assert model.config.num_labels == 4
    images = np.random.default_rng(0).normal(size=(2, 20, 20, 3)).astype("float32")
    assert_same(
        model.image_encoder(images).last_hidden_state,
        joint(np.ones((1, 3), "int32"), images).vision_model_output.last_hidden_state,
    )
    with pytest.raises(CheckpointError, match=r"missing: classifier.weight"):
        CLIPForImageClassification.from_pretrained(tmp_path / "joint")
    model.save_pretrained(tmp_path / "classifier")
    again = CLIPForImageClassification.from_pretrained(tmp_path / "classifier")
    assert_same(again.classifier.kernel, model.classifier.kernel)
    with pytest.raises(ValueError, match="`num_labels` must not be given"):
        CLIPForImageClassification.from_pretrained(tmp_path / "classifier", num_labels=4)


def test_labels_keep_their_names(tiny_config, tmp_path):
    config = CLIPConfig.from_dict({**tiny_config.to_dict(), "id2label": {"0": "cat", "1": "dog", "2": "owl"}})
    CLIPForImageClassification(config).save_pretrained(tmp_path)
    assert CLIPForImageClassification.from_pretrained(tmp_path).config.id2label == {0: "cat", 1: "dog", 2: "owl"}


def test_no_classes_leave_the_mean_state(tiny_config, tiny_inputs):
    model = CLIPForImageClassification(tiny_config, num_labels=0)
    states = model.image_encoder(tiny_inputs["pixel_values"]).last_hidden_state
    assert_close(model(tiny_inputs["pixel_values"]).logits, array(states)[:, 1:].mean(axis=1), atol=1e-6)
