"""One contract for all layers: configuration, shapes, building, precision, saving."""

import inspect

import keras
import numpy as np
import pytest
from keras import ops

from tf_clip.layers.activations import ACTIVATIONS
from tf_clip.layers.embeddings import TextEmbeddings, VisionEmbeddings
from tf_clip.layers.transformer import MLP, Attention, EncoderLayer

STATES = np.random.default_rng(0).normal(size=(2, 5, 12)).astype("float32")
LAYERS = {
    "attention": (Attention, {"hidden_size": 12, "num_heads": 3, "dropout": 0.1}, STATES),
    "mlp": (MLP, {"hidden_size": 12, "intermediate_size": 20, "hidden_act": "gelu"}, STATES),
    "encoder_layer": (
        EncoderLayer,
        {"hidden_size": 12, "intermediate_size": 20, "num_heads": 3, "num_layers": 2, "attention_dropout": 0.1},
        STATES,
    ),
    "text_embeddings": (
        TextEmbeddings,
        {"vocab_size": 9, "max_position_embeddings": 6, "hidden_size": 12},
        np.array([[0, 3, 8], [1, 1, 2]], "int32"),
    ),
    "vision_embeddings": (
        VisionEmbeddings,
        {"image_size": 10, "patch_size": 4, "hidden_size": 12},
        np.random.default_rng(0).normal(size=(2, 10, 10, 3)).astype("float32"),
    ),
}


@pytest.fixture(params=LAYERS.values(), ids=LAYERS)
def case(request):
    return request.param


def test_config_holds_every_argument_and_rebuilds_the_layer(case):
    cls, arguments, _ = case
    layer = cls(**arguments)
    named = set(inspect.signature(cls.__init__).parameters) - {"self", "kwargs"}
    assert named <= set(layer.get_config())
    assert cls.from_config(layer.get_config()).get_config() == layer.get_config()


def test_output_shape_is_as_announced(case):
    cls, arguments, x = case
    layer = cls(**arguments)
    assert tuple(layer(x).shape) == tuple(layer.compute_output_shape(x.shape))
    symbolic = layer(keras.Input(x.shape[1:], dtype=str(x.dtype)))
    assert tuple(symbolic.shape) == (None, *layer(x).shape[1:])


def test_building_ahead_makes_all_variables(case):
    cls, arguments, x = case
    ahead, by_call = cls(**arguments), cls(**arguments)
    ahead.build(x.shape)
    by_call(x)
    assert [v.shape for v in ahead.variables] == [v.shape for v in by_call.variables]


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_half_precision_stays_close(case, policy):
    cls, arguments, x = case
    full, half = cls(**arguments), cls(**arguments, dtype=policy)
    full.build(x.shape)
    half.build(x.shape)
    half.set_weights(full.get_weights())
    output = half(x)
    assert keras.backend.standardize_dtype(output.dtype) == policy.removeprefix("mixed_")
    np.testing.assert_allclose(ops.convert_to_numpy(ops.cast(output, "float32")), full(x), atol=0.05, rtol=0.05)


def test_saves_inside_a_keras_model(case, tmp_path):
    cls, arguments, x = case
    inputs = keras.Input(x.shape[1:], dtype=str(x.dtype))
    model = keras.Model(inputs, cls(**arguments)(inputs))
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.saving.load_model(tmp_path / "model.keras")(x), model(x))


def test_attention_reads_only_visible_keys():
    layer = Attention(hidden_size=12, num_heads=3)
    hides_last = np.arange(5) < 4
    changed = STATES.copy()
    changed[:, 4] += 1.0
    before, after = (ops.convert_to_numpy(layer(x, visible=hides_last)) for x in (STATES, changed))
    np.testing.assert_array_equal(before[:, :4], after[:, :4])
    assert np.abs(before[:, :4] - ops.convert_to_numpy(layer(changed))[:, :4]).max() > 1e-4


def test_attention_dropout_acts_in_training_only():
    layer = Attention(hidden_size=12, num_heads=3, dropout=0.5)
    np.testing.assert_array_equal(layer(STATES), layer(STATES))
    assert np.abs(ops.convert_to_numpy(layer(STATES, training=True)) - ops.convert_to_numpy(layer(STATES))).max() > 1e-4


@pytest.mark.parametrize(
    ("name", "expected"),
    [("quick_gelu", 0.84579575), ("gelu", 0.8413447), ("gelu_new", 0.8411920), ("relu", 1.0), ("silu", 0.7310586)],
)
def test_activation_values_at_one(name, expected):
    assert float(ACTIVATIONS[name](ops.convert_to_tensor(1.0))) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("shape", [(3,), (2, 3, 4)])
def test_ids_of_another_rank_are_refused(shape):
    with pytest.raises(ValueError, match=r"`input_ids` must have shape \[batch, length\]"):
        TextEmbeddings(9, 6, 12)(np.zeros(shape, "int32"))


def test_texts_longer_than_the_positions_are_refused():
    with pytest.raises(ValueError, match="`input_ids` must hold at most 6 tokens"):
        TextEmbeddings(9, 6, 12)(np.zeros((1, 7), "int32"))


@pytest.mark.parametrize("shape", [(2, 3, 10, 10), (2, 11, 10, 3), (10, 10, 3)])
def test_pictures_of_another_size_are_refused(shape):
    with pytest.raises(ValueError, match=r"`pixel_values` must have shape \[batch, 10, 10, 3\]"):
        VisionEmbeddings(10, 4, 12)(np.zeros(shape, "float32"))
