"""Training with `fit`: it learns, the temperature stays in range, and wrong calls are refused."""

import keras
import numpy as np
import pytest

from helpers.arrays import assert_close, assert_same
from helpers.eager import EAGER
from tf_clip import CLIPModel

pytestmark = pytest.mark.backends


@pytest.fixture(scope="module")
def pairs():
    """200 random images, each with its own random caption."""
    generator = np.random.default_rng(1)
    input_ids = generator.integers(0, 512, (200, 6)).astype("int32")
    input_ids[:, 0], input_ids[:, -1] = 512, 513
    return {"input_ids": input_ids, "pixel_values": generator.normal(size=(200, 20, 20, 3)).astype("float32")}


def test_fit_learns_random_pairs_from_chance(tiny_model, pairs):
    tiny_model.compile(keras.optimizers.Adam(3e-3))
    before = tiny_model.evaluate(pairs, batch_size=50, verbose=0, return_dict=True)
    history = tiny_model.fit(pairs, batch_size=50, epochs=30, verbose=0).history
    after = tiny_model.evaluate(pairs, batch_size=50, verbose=0, return_dict=True)
    assert before["accuracy"] < 0.1
    assert after["accuracy"] > 0.9
    assert history["loss"][-1] < 0.3 < np.log(50) - 0.5 < history["loss"][0]


def test_temperature_is_clamped_in_training(tiny_model, pairs):
    tiny_model.compile(keras.optimizers.SGD(0.01), **EAGER)
    tiny_model.logit_scale.assign(6.0)
    tiny_model.fit(pairs, batch_size=100, verbose=0)
    assert 4.5 < float(tiny_model.logit_scale.numpy()) <= np.log(100.0) + 1e-6


def test_labels_are_refused(tiny_model, pairs):
    tiny_model.compile("sgd")
    with pytest.raises(ValueError, match="`y` and `sample_weight` must be None"):
        tiny_model.fit(pairs, np.zeros(200), verbose=0)


def test_what_is_no_loss_of_pairs_is_refused_rather_than_ignored(tiny_model):
    with pytest.raises(TypeError, match="`loss` must be None or a loss of pairs"):
        tiny_model.compile("sgd", loss="mse")
    with pytest.raises(ValueError, match="`metrics` must be None"):
        tiny_model.compile("sgd", metrics=["accuracy"])


@pytest.mark.slow
def test_training_goes_on_after_saving(tiny_config, tiny_model, pairs, tmp_path):
    tiny_model.compile(keras.optimizers.Adam(1e-3), **EAGER)
    tiny_model.fit(pairs, batch_size=50, shuffle=False, verbose=0)
    tiny_model.save(tmp_path / "model.keras")
    restored = keras.saving.load_model(tmp_path / "model.keras")
    losses = [
        model.fit(pairs, batch_size=50, shuffle=False, verbose=0).history["loss"][0] for model in (tiny_model, restored)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize(("frozen", "trained"), [("image_encoder", "text_encoder"), ("text_encoder", "image_encoder")])
def test_a_frozen_tower_stays(tiny_config, pairs, frozen, trained):
    model = CLIPModel(tiny_config)
    getattr(model, frozen).trainable = False
    model.compile(keras.optimizers.Adam(1e-2), **EAGER)
    weights = {name: getattr(model, name).get_weights() for name in (frozen, trained)}
    model.fit(pairs, batch_size=100, verbose=0)
    for before, after in zip(weights[frozen], getattr(model, frozen).get_weights(), strict=True):
        assert_same(before, after)
    assert any(
        np.abs(a - b).max() > 1e-4 for a, b in zip(weights[trained], getattr(model, trained).get_weights(), strict=True)
    )


@pytest.mark.slow
def test_recomputing_blocks_trains_the_same(tiny_config, tiny_model, pairs):
    frugal = CLIPModel(tiny_config, gradient_checkpointing=True)
    frugal.set_weights(tiny_model.get_weights())
    for model in (tiny_model, frugal):
        model.compile(keras.optimizers.SGD(0.1))
        model.fit(pairs, batch_size=100, shuffle=False, verbose=0)
    for plain, recomputed in zip(tiny_model.get_weights(), frugal.get_weights(), strict=True):
        assert_close(recomputed, plain, atol=1e-5)


def test_recomputing_with_dropout_is_refused(tiny_config):
    """Keras draws other weights the second time (seen on TensorFlow), so that the gradients would be wrong."""
    text_config = {**tiny_config.text_config.to_dict(), "attention_dropout": 0.3}
    with pytest.raises(ValueError, match="`gradient_checkpointing` must be False"):
        CLIPModel({**tiny_config.to_dict(), "text_config": text_config}, gradient_checkpointing=True)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_trains(tiny_config, pairs, policy):
    model = CLIPModel(tiny_config, dtype=policy)
    model.compile(keras.optimizers.Adam(3e-3))
    losses = model.fit(pairs, batch_size=50, epochs=15, verbose=0).history["loss"]
    assert losses[-1] < 0.6 * losses[0]
