"""AdamW: its rule, which variables decay, a rate for each, the average; and that Keras's own options work with it."""

import keras
import numpy as np
import pytest

from helpers.eager import EAGER
from tf_clip import CLIPModel
from tf_clip.training.optimizers import AdamW, averaged_weights, layerwise_rates
from tf_clip.training.recipes import Recipe, full, layerwise, lit


def by_the_book(weights, gradients, rate, decay, beta_1, beta_2, epsilon):
    """Loshchilov & Hutter 2019, algorithm 2, in float64."""
    first, second = np.zeros_like(weights), np.zeros_like(weights)
    for step, gradient in enumerate(gradients, start=1):
        first = beta_1 * first + (1 - beta_1) * gradient
        second = beta_2 * second + (1 - beta_2) * gradient**2
        corrected = first / (1 - beta_1**step), second / (1 - beta_2**step)
        weights = weights - rate * decay * weights
        weights = weights - rate * corrected[0] / (np.sqrt(corrected[1]) + epsilon)
    return weights


@pytest.mark.parametrize("shape", [(3, 4), (4,), ()])
def test_it_follows_the_paper_and_only_matrices_decay(shape):
    generator = np.random.default_rng(0)
    start, gradients = generator.normal(size=shape), 1e-4 * generator.normal(size=(7, *shape))
    variable = keras.Variable(start.astype("float32"), name="anything")
    optimizer = AdamW(0.01, weight_decay=0.2, epsilon=1e-5)
    for gradient in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(gradient.astype("float32"))], [variable])
    decay = 0.2 if len(shape) > 1 else 0.0
    expected = by_the_book(start, gradients, 0.01, decay, 0.9, 0.98, 1e-5)
    np.testing.assert_allclose(keras.ops.convert_to_numpy(variable), expected, atol=2e-6)


def test_rows_that_were_looked_up_twice_count_once_with_their_sum():
    table = np.ones((3, 2), "float32")
    looked_up, dense = keras.layers.Embedding(3, 2), keras.Variable(table)
    looked_up.build()
    looked_up.embeddings.assign(table)
    import tensorflow as tf

    with tf.GradientTape() as tape:
        loss = keras.ops.sum(looked_up(np.array([1, 1, 1, 0])) * np.array([[1.0], [2.0], [-5.0], [1.0]], "float32"))
    sparse = tape.gradient(loss, looked_up.embeddings.value)
    assert isinstance(sparse, tf.IndexedSlices)
    updates = {}
    for name, gradient, variable in (
        ("sparse", sparse, looked_up.embeddings),
        ("dense", tf.constant([[1.0, 1.0], [-2.0, -2.0], [0.0, 0.0]]), dense),
    ):
        optimizer = AdamW(0.1, weight_decay=0.0, epsilon=0.1, global_clipnorm=1.0)
        for _ in range(2):
            optimizer.apply([gradient], [variable])
        updates[name] = keras.ops.convert_to_numpy(variable)
    np.testing.assert_allclose(updates["sparse"], updates["dense"], atol=1e-6)
    assert np.abs(updates["sparse"] - table).max() > 0.01


def test_layers_slow_down_with_their_depth(tiny_model):
    rates = layerwise_rates(tiny_model, 0.5)
    assert set(rates) == {variable.path for variable in tiny_model.trainable_variables}
    assert rates["image_encoder/visual_projection/kernel"] == rates["image_encoder/post_layernorm/beta"] == 1.0
    assert [rates[f"image_encoder/layers_{index}/mlp/fc1/kernel"] for index in range(3)] == [0.125, 0.25, 0.5]
    assert rates["image_encoder/pre_layernorm/beta"] == rates["image_encoder/embeddings/class_embedding"] == 0.0625
    assert [rates[f"text_encoder/layers_{index}/mlp/fc1/kernel"] for index in range(2)] == [0.25, 0.5]
    assert rates["text_encoder/embeddings/token_embedding/embeddings"] == 0.125
    assert rates[tiny_model.logit_scale.path] == 1.0


def test_rates_scale_steps_and_decay(tiny_model, random_pairs):
    """A first step of Adam moves each weight by its rate, whatever the gradient."""
    before = {variable.path: keras.ops.convert_to_numpy(variable) for variable in tiny_model.trainable_variables}
    recipe = Recipe(learning_rate=1e-3, warmup_steps=0, layer_decay=0.5, epsilon=1e-12, weight_decay=10.0)
    recipe.compile(tiny_model, steps=10**6, **EAGER)
    tiny_model.fit(random_pairs, batch_size=24, verbose=0)
    for path, rate in layerwise_rates(tiny_model, 0.5).items():
        if not path.endswith("fc1/kernel"):
            continue
        (variable,) = (variable for variable in tiny_model.trainable_variables if variable.path == path)
        moved = keras.ops.convert_to_numpy(variable) - before[path] * (1 - 0.01 * rate)
        np.testing.assert_allclose(np.median(np.abs(moved)), 1e-3 * rate, rtol=1e-2)


def test_rates_for_what_is_not_trained_are_refused(tiny_model, random_pairs):
    optimizer = AdamW(1e-3, rates=layerwise_rates(tiny_model, 0.5))
    tiny_model.image_encoder.trainable = False
    tiny_model.compile(optimizer)
    with pytest.raises(ValueError, match="`rates` must name variables that are trained"):
        tiny_model.fit(random_pairs, verbose=0)


def test_lit_moves_the_text_tower_alone(tiny_model, random_pairs):
    towers = {name: getattr(tiny_model, name).get_weights() for name in ("image_encoder", "text_encoder")}
    lit(warmup_steps=0).compile(tiny_model, steps=10, **EAGER)
    tiny_model.fit(random_pairs, batch_size=8, verbose=0)
    changed = {
        name: any(np.any(old != new) for old, new in zip(weights, getattr(tiny_model, name).get_weights(), strict=True))
        for name, weights in towers.items()
    }
    assert changed == {"image_encoder": False, "text_encoder": True}


def test_warm_up_and_cosine():
    schedule = Recipe(learning_rate=1e-3, warmup_steps=10).schedule(110)
    rates = [float(schedule(step)) for step in (0, 5, 10, 60, 110)]
    np.testing.assert_allclose(rates, [0.0, 5e-4, 1e-3, 5e-4, 0.0], atol=1e-8)
    assert float(full(warmup_steps=0).schedule(10)(0)) == pytest.approx(1e-5)
    assert layerwise().layer_decay < 1


@pytest.mark.parametrize("momentum", [0.5, None])
def test_the_average_follows_the_weights(tiny_config, random_pairs, momentum):
    model = CLIPModel(tiny_config)
    full(learning_rate=1e-2, warmup_steps=0, ema_momentum=momentum).compile(model, steps=100, **EAGER)
    if momentum is None:
        with pytest.raises(ValueError, match="must have been trained with an average"), averaged_weights(model):
            pass
        return
    name = "text_encoder/text_projection/kernel"
    (kernel,) = (variable for variable in model.trainable_variables if variable.path == name)
    expected = None
    for _ in range(3):
        model.fit(random_pairs, batch_size=24, verbose=0)
        value = keras.ops.convert_to_numpy(kernel)
        expected = value if expected is None else 0.5 * expected + 0.5 * value
    with averaged_weights(model):
        np.testing.assert_allclose(keras.ops.convert_to_numpy(kernel), expected, atol=1e-6)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(kernel), value)


def test_accumulated_batches_make_one_step(tiny_config, random_pairs):
    """Two halves of a batch that are alike: their mean gradient is that of either."""
    half = {name: values[:8] for name, values in random_pairs.items()}
    twice = {name: np.concatenate([values, values]) for name, values in half.items()}
    models = [CLIPModel(tiny_config) for _ in range(2)]
    models[1].set_weights(models[0].get_weights())
    for model, data, steps in ((models[0], half, 1), (models[1], twice, 2)):
        Recipe(learning_rate=1e-3, warmup_steps=0, gradient_accumulation_steps=steps).compile(
            model, steps=10**6, **EAGER
        )
        model.fit(data, batch_size=8, shuffle=False, verbose=0)
    for one, other in zip(models[0].get_weights(), models[1].get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-6)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_learns(tiny_config, random_pairs, policy):
    model = CLIPModel(tiny_config, dtype=policy)
    full(learning_rate=3e-3, ema_momentum=0.9).compile(model, steps=60)
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer) == (policy == "mixed_float16")
    losses = model.fit(random_pairs, batch_size=12, epochs=30, verbose=0).history["loss"]
    assert losses[-1] < 0.5 * losses[0]
    with averaged_weights(model):
        assert model.evaluate(random_pairs, batch_size=12, verbose=0, return_dict=True)["loss"] < losses[0]


def test_it_is_saved_with_the_model(tiny_model, random_pairs, tmp_path):
    layerwise(ema_momentum=0.9).compile(tiny_model, steps=10, **EAGER)
    tiny_model.fit(random_pairs, batch_size=12, verbose=0)
    tiny_model.save(tmp_path / "model.keras")
    restored = keras.saving.load_model(tmp_path / "model.keras")
    assert restored.optimizer.get_config() == tiny_model.optimizer.get_config()
    assert int(restored.optimizer.iterations) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"learning_rate": 0}, "`learning_rate` must be above 0"),
        ({"layer_decay": 1.5}, "`layer_decay` must be above 0 and at most 1"),
        ({"locked": ("image_encoder", "text_encoder")}, "`locked` must be one of"),
        ({"locked": ("logit_scale",)}, "`locked` must be one of"),
        ({"global_clipnorm": 0}, "`global_clipnorm` must be None or above 0"),
        ({"gradient_accumulation_steps": 0}, "`gradient_accumulation_steps` must be at least 1"),
        ({"warmup_steps": -1}, "`warmup_steps` must be None or at least 0"),
        ({"weight_decay": -0.1}, "`weight_decay` must be at least 0"),
    ],
)
def test_bad_recipes_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Recipe(**arguments)


def test_bad_averages_and_long_warm_ups_are_refused(tiny_model):
    with pytest.raises(ValueError, match="`ema_momentum` must be at least 0 and below 1"):
        AdamW(1e-3, ema_momentum=1.0)
    with pytest.raises(ValueError, match="`use_ema` must not be given"):
        AdamW(1e-3, use_ema=True)
    with pytest.raises(ValueError, match="`warmup_steps` must be below the number of batches"):
        full(warmup_steps=10).compile(tiny_model, steps=10)
    with pytest.raises(ValueError, match="`decay` must be above 0"):
        layerwise_rates(tiny_model, 0.0)
