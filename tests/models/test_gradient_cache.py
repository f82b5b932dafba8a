"""Training in chunks: the weights of a plain step, in the memory of a chunk, and with all that `fit` can do."""

import keras
import numpy as np
import pytest

from helpers.adapted import parameters
from helpers.arrays import array
from helpers.eager import EAGER
from helpers.memory import measured
from helpers.seeds import seed
from tf_clip import CLIPConfig, CLIPModel, CLIPResNetConfig
from tf_clip.adapters.composition import BatchSplit, Parallel, Switch

pytestmark = pytest.mark.backends


def make_pairs(count, seed=1):
    generator = np.random.default_rng(seed)
    input_ids = generator.integers(0, 512, (count, 6)).astype("int32")
    input_ids[:, 0], input_ids[:, -1] = 512, 513
    return {
        "input_ids": input_ids,
        "attention_mask": np.ones_like(input_ids),
        "pixel_values": generator.normal(size=(count, 20, 20, 3)).astype("float32"),
    }


def trained(config, weights, pairs, chunk_size, *, optimizer=None, frozen=None, steps=EAGER, **arguments):
    """Returns a model after an epoch of batches of 12, and its history."""
    model = CLIPModel(config, **arguments)
    model.set_weights(weights)
    if frozen:
        getattr(model, frozen).trainable = False
    model.compile(optimizer or keras.optimizers.SGD(1.0), encode_chunk_size=chunk_size, **steps)
    history = model.fit(pairs, batch_size=12, shuffle=False, verbose=0).history
    return model, history


@pytest.fixture(scope="module")
def weights(tiny_config):
    seed()
    return CLIPModel(tiny_config).get_weights()


@pytest.fixture(scope="module")
def plain(tiny_config, weights):
    """A model after one plain step. That of SGD with a rate of 1 is the gradient."""
    return trained(tiny_config, weights, make_pairs(12), None)


def assert_same_training(first, second, before, rtol=1e-5, rounding=2e-7):
    """The steps away from the weights before differ by no more than `rtol` of the longest of their variable."""
    steps = [[after - start for after, start in zip(m, before, strict=True)] for m in (first, second)]
    longest = max(np.abs(step).max() for step in steps[1])
    assert longest > 1e-2
    for ours, theirs, start in zip(*steps, before, strict=True):
        # The biases of keys change no softmax: their true gradient is zero, and rounding is all there is.
        allowed = rtol * np.abs(theirs).max() + rounding * (np.abs(start).max() + longest)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=allowed)


@pytest.mark.parametrize("chunk_size", [3, 5, 20], ids="chunks of {}".format)
def test_the_gradients_are_those_of_the_whole_batch(tiny_config, weights, plain, chunk_size):
    steps = {} if chunk_size == 5 else EAGER
    model, history = trained(tiny_config, weights, make_pairs(12), chunk_size, steps=steps)
    assert_same_training(model.get_weights(), plain[0].get_weights(), weights)
    assert history["loss"] == pytest.approx(plain[1]["loss"], rel=1e-5)
    assert history["accuracy"] == pytest.approx(plain[1]["accuracy"])


@pytest.mark.parametrize("frozen", ["image_encoder", "text_encoder"])
def test_a_frozen_tower_stays(tiny_config, weights, plain, frozen):
    model, _ = trained(tiny_config, weights, make_pairs(12), 5, frozen=frozen)
    still = [variable.path for variable in getattr(model, frozen).weights]
    paths = [variable.path for variable in model.weights]
    wanted = [
        before if path in still else after
        for path, before, after in zip(paths, weights, plain[0].get_weights(), strict=True)
    ]
    assert len(still) > 10
    assert_same_training([array(variable) for variable in model.weights], wanted, weights)


OPTIMIZERS = {
    "clipping, weight decay, averages": {"global_clipnorm": 0.1, "weight_decay": 0.1, "use_ema": True},
    "accumulation": {"gradient_accumulation_steps": 2},
}


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_what_optimizers_do_goes_on_working(tiny_config, weights, options):
    results = []
    for chunk_size in (5, None):
        optimizer = keras.optimizers.SGD(1.0, **options)
        # On TensorFlow, Keras clips a token table's gradient by a norm in which a token's rows are not added up, in a
        # plain step; here they are. Without the text tower both are the same.
        frozen = {"frozen": "text_encoder", "optimizer": optimizer, "steps": {}}
        model, _ = trained(tiny_config, weights, make_pairs(24), chunk_size, **frozen)
        results.append(model.get_weights())
    assert_same_training(*results, weights, rtol=1e-4)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision(tiny_config, weights, plain, policy):
    # Keras begins with a scale of 32768 in float16, finds that too much here, and skips the step.
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(1.0), initial_scale=64.0)
    optimizer = optimizer if policy == "mixed_float16" else None
    model, history = trained(tiny_config, weights, make_pairs(12), 5, dtype=policy, optimizer=optimizer)
    assert history["loss"] == pytest.approx(plain[1]["loss"], rel=0.02)
    # Half precision keeps two or three digits.
    assert_same_training(model.get_weights(), plain[0].get_weights(), weights, rtol=0.1, rounding=2e-3)


def test_recomputed_blocks_inside_of_chunks(tiny_config, weights, plain):
    frugal, _ = trained(tiny_config, weights, make_pairs(12), 5, gradient_checkpointing=True)
    assert_same_training(frugal.get_weights(), plain[0].get_weights(), weights)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["lora[r=2]", "prefix_tuning[prefix_length=2,bottleneck_size=4]", "vera", "Switch"])
def test_adapters_in_chunks(tiny_config, weights, family):
    """Of prefix tuning and VeRA a part is neither tower's own."""
    pairs, results = make_pairs(12), []
    for chunk_size in (5, None):
        model = CLIPModel(tiny_config)
        model.set_weights(weights)
        for name in ("a", "b"):
            model.add_adapter(name, "lora[r=2]" if family == "Switch" else family)
        generator = np.random.default_rng(0)
        for name in ("a", "b"):
            for variable in parameters(model, name):
                variable.assign(0.2 * generator.normal(size=variable.shape))
        before = model.get_weights()
        if family == "Switch":
            model.train_adapter(Switch("a", "b"))
            pairs["text_adapter_ids"] = pairs["image_adapter_ids"] = np.arange(12, dtype="int32") % 3 - 1
        else:
            model.train_adapter("a")
        model.compile(keras.optimizers.SGD(1.0), encode_chunk_size=chunk_size)
        model.fit(pairs, batch_size=12, shuffle=False, verbose=0)
        results.append(model.get_weights())
    moved = [np.abs(after - start).max() > 1e-4 for after, start in zip(results[0], before, strict=True)]
    assert sum(moved) >= len(model.trainable_variables) / 2
    for ours, theirs in zip(*results, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_adapters_that_need_the_whole_batch_are_refused(tiny_model):
    tiny_model.compile("sgd", encode_chunk_size=4)
    tiny_model.add_adapter("a", "lora[r=2]")
    tiny_model.add_adapter("b", "lora[r=2]")
    for setup, message in (
        (BatchSplit("a", "b", batch_sizes=[6, 6]), "where BatchSplit counts the rows"),
        (Parallel("a", "b"), "must have no Parallel where a loss"),
    ):
        tiny_model.active_adapters = setup
        with pytest.raises(ValueError, match=message):
            tiny_model.fit(make_pairs(12), batch_size=12, verbose=0)
    tiny_model.add_adapter("c", "lora[r=2,dropout=0.1]", set_active=True)
    with pytest.raises(ValueError, match="for a model with dropout"):
        tiny_model.fit(make_pairs(12), batch_size=12, verbose=0)


@pytest.mark.process
def test_a_large_batch_takes_the_memory_of_a_small_one():
    """512 pairs in chunks of 16, against 512 pairs at once, which hold 32 times as many activations."""
    found = measured("fit")
    assert found["in chunks"] < found["at once"] / 4


@pytest.mark.slow
def test_a_ragged_last_batch_and_evaluation(tiny_model):
    pairs = make_pairs(17)
    tiny_model.compile(keras.optimizers.SGD(0.1), encode_chunk_size=4, **EAGER)
    tiny_model.fit(pairs, batch_size=12, shuffle=False, verbose=0)
    chunked = tiny_model.evaluate(pairs, batch_size=17, verbose=0, return_dict=True)
    tiny_model.compile("sgd", **EAGER)
    plain = tiny_model.evaluate(pairs, batch_size=17, verbose=0, return_dict=True)
    assert chunked["loss"] == pytest.approx(plain["loss"], rel=1e-5)


def test_rows_that_are_not_on_their_own_are_refused(tiny_config):
    text_config = {**tiny_config.text_config.to_dict(), "attention_dropout": 0.3}
    model = CLIPModel({**tiny_config.to_dict(), "text_config": text_config})
    with pytest.raises(ValueError, match="`encode_chunk_size` must be None for a model with dropout"):
        model.compile("sgd", encode_chunk_size=4)
    resnet = CLIPResNetConfig(depths=(1, 1, 1, 1), embedding_size=8, num_attention_heads=4, image_size=32)
    model = CLIPModel(CLIPConfig(text_config=tiny_config.text_config, vision_config=resnet, projection_dim=28))
    with pytest.raises(ValueError, match="`encode_chunk_size` must be None for a ResNet that trains"):
        model.compile("sgd", encode_chunk_size=4)
    model.image_encoder.trainable = False
    model.compile("sgd", encode_chunk_size=4)
