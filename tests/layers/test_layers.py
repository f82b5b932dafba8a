"""One contract for all layers: configuration, shapes, building, precision, saving."""

import inspect

import keras
import numpy as np
import pytest
from keras import ops

from helpers.arrays import array, assert_close, assert_same
from tf_clip.families.clip.image_tower import VisionEmbeddings
from tf_clip.families.clip.text_tower import TextEmbeddings
from tf_clip.families.clip_resnet.layers import AttentionPool, Bottleneck, Stem
from tf_clip.layers.interpolation import resize_positions
from tf_clip.layers.transformer import ACTIVATIONS, MLP, Attention, EncoderLayer

pytestmark = pytest.mark.backends

GENERATOR = np.random.default_rng(1)
PIXELS = GENERATOR.normal(size=(2, 32, 32, 3)).astype("float32")
MAPS = GENERATOR.normal(size=(2, 4, 4, 12)).astype("float32")
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
    "stem": (Stem, {"embedding_size": 8}, PIXELS),
    "bottleneck": (Bottleneck, {"width": 3}, MAPS),
    "halving_bottleneck": (Bottleneck, {"width": 4, "stride": 2, "has_shortcut_projection": True}, MAPS),
    "attention_pool": (AttentionPool, {"hidden_size": 12, "num_heads": 3, "num_places": 16}, MAPS),
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
    assert_close(array(output), array(full(x)), atol=0.05, rtol=0.05)


def test_saves_inside_a_keras_model(case, tmp_path):
    cls, arguments, x = case
    inputs = keras.Input(x.shape[1:], dtype=str(x.dtype))
    model = keras.Model(inputs, cls(**arguments)(inputs))
    model.save(tmp_path / "model.keras")
    assert_same(array(keras.saving.load_model(tmp_path / "model.keras")(x)), array(model(x)))


def test_attention_reads_only_visible_keys():
    layer = Attention(hidden_size=12, num_heads=3)
    hides_last = np.arange(5) < 4
    changed = STATES.copy()
    changed[:, 4] += 1.0
    before, after = (array(layer(x, visible=hides_last)) for x in (STATES, changed))
    assert_same(before[:, :4], after[:, :4])
    assert np.abs(before[:, :4] - array(layer(changed))[:, :4]).max() > 1e-4


def test_attention_dropout_acts_in_training_only():
    layer = Attention(hidden_size=12, num_heads=3, dropout=0.5)
    assert_same(array(layer(STATES)), array(layer(STATES)))
    assert np.abs(array(layer(STATES, training=True)) - array(layer(STATES))).max() > 1e-4


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
def test_images_of_another_size_are_refused(shape):
    with pytest.raises(ValueError, match=r"`pixel_values` must have shape \[batch, 10, 10, 3\]"):
        VisionEmbeddings(10, 4, 12)(np.zeros(shape, "float32"))


def test_larger_images_are_read_with_stretched_positions():
    layer = VisionEmbeddings(10, 4, 12)
    larger = GENERATOR.normal(size=(2, 13, 18, 3)).astype("float32")
    assert layer(larger, interpolate_pos_encoding=True).shape == (2, 1 + 3 * 4, 12)
    own = GENERATOR.normal(size=(2, 10, 10, 3)).astype("float32")
    assert_same(array(layer(own, interpolate_pos_encoding=True)), array(layer(own)))
    with pytest.raises(ValueError, match=r"must have shape \[batch, height, width, 3\], each side at least 4"):
        layer(np.zeros((1, 3, 20, 3), "float32"), interpolate_pos_encoding=True)


def test_stretched_positions_pass_through_the_old_ones():
    """Of an odd stretch every second place falls on an old one, where a cubic kernel is exact."""
    positions = GENERATOR.normal(size=(6, 2)).astype("float32")
    stretched = array(resize_positions(positions, (2, 3), (6, 9))).reshape(6, 9, 2)
    assert_close(stretched[1::3, 1::3], positions.reshape(2, 3, 2), atol=1e-6)
    constant = array(resize_positions(np.ones((6, 2), "float32"), (2, 3), (5, 4)))
    assert_close(constant, np.ones((20, 2)), atol=1e-6)  # the weights of each place sum to 1


def test_given_positions_are_taken():
    layer = TextEmbeddings(9, 6, 12)
    ids = np.array([[1, 2, 3]], "int32")
    shifted = array(layer(ids, position_ids=np.array([[3, 4, 5]], "int32")))
    table = array(layer.position_embedding.embeddings)
    assert_close(shifted - array(layer(ids)), table[None, 3:6] - table[None, :3], atol=1e-6)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("visible", [None, np.array([[True] * 5, [False, False, True, True, True]])[:, None, None]])
def test_fused_attention_is_the_same(causal, visible):
    eager, fused = Attention(12, 3), Attention(12, 3, attn_implementation="sdpa")
    eager.build(STATES.shape)
    fused.build(STATES.shape)
    fused.set_weights(eager.get_weights())
    ours, weights = eager(STATES, visible=visible, causal=causal, output_attentions=True)
    # Tokens that see nothing at all, as padding on the left does, have no defined result.
    seen = np.s_[:, 2:] if visible is not None else np.s_[:]
    assert_close(array(fused(STATES, visible=visible, causal=causal))[seen], array(ours)[seen], atol=1e-6)
    assert weights.shape == (2, 3, 5, 5)
    assert_close(array(weights).sum(axis=-1), np.ones((2, 3, 5)), atol=1e-6)


def test_fused_attention_has_no_weights_to_show():
    with pytest.raises(ValueError, match='`attn_implementation` must be "eager" for `output_attentions`'):
        Attention(12, 3, attn_implementation="sdpa")(STATES, output_attentions=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"attn_implementation": "fast"}, "must be one of eager, sdpa, flash"),
        ({"attn_implementation": "sdpa", "dropout": 0.1}, "must be eager for a model with `attention_dropout`"),
    ],
)
def test_attention_that_cannot_be_had_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Attention(12, 3, **arguments)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the others may have the kernel")
def test_tensorflow_has_no_flash_attention():
    with pytest.raises(ValueError, match="on TensorFlow, which has no flash kernel"):
        Attention(12, 3, attn_implementation="flash")


def test_a_new_bottleneck_is_its_shortcut():
    x = np.abs(MAPS)
    assert_close(array(Bottleneck(3)(x)), x, atol=1e-6)


def test_norms_of_a_resnet_learn_the_batch_in_training_only():
    stem = Stem(8)
    before = array(stem(PIXELS))
    stem(PIXELS, training=False)
    assert_same(array(stem(PIXELS)), before)
    stem(PIXELS, training=True)
    assert np.abs(array(stem(PIXELS)) - before).max() > 1e-4
