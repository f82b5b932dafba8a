"""The fast graphs against the Keras model, with towers of unequal widths and every kind of activation."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tf_clip import CLIPConfig, CLIPModel, CLIPTextEncoder
from tf_clip.inference.causal_text import WEIGHTS_OUTSIDE_OF_BLOCKS, encode_one_text, encode_texts, text_weights
from tf_clip.inference.text_plan import cut_texts, padded_plan, shared_plan
from tf_clip.inference.tower_weights import PANEL, has_other_weights
from tf_clip.inference.vision_transformer import encode_images, image_weights
from tf_clip.layers.transformer import EncoderLayer
from tf_clip.unit_length import unit_rows


def assert_close(ours, theirs):
    np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), atol=1e-5)


def pixel_values(count=5):
    return np.random.default_rng(0).normal(size=(count, 20, 20, 3)).astype("float32")


def cut(captions, mask=None):
    return cut_texts(captions, mask, (captions == 513).argmax(axis=1))


def traced_text(model):
    weights = text_weights(model.text_encoder)

    @tf.function(autograph=False)
    def encode(*arrays):
        *rows, visible = arrays
        return encode_texts(*rows, weights, visible=visible)

    return encode


@pytest.mark.parametrize("hidden_act", ["quick_gelu", "gelu", "gelu_new", "relu", "silu"])
def test_both_towers_compute_what_the_model_does(make_model, captions, hidden_act):
    model = make_model(hidden_act)
    weights = image_weights(model.image_encoder, None)
    encode = tf.function(lambda images: encode_images(images, weights), autograph=False)
    assert_close(encode(pixel_values()), model.get_image_features(pixel_values()))
    plan = shared_plan(cut(captions))
    assert_close(traced_text(model)(*plan), model.get_text_features(captions))


def test_one_block_alone_is_the_last(tiny_config, captions):
    text, vision = (
        dataclasses.replace(tower, num_hidden_layers=1)
        for tower in (tiny_config.text_config, tiny_config.vision_config)
    )
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=9))
    weights = image_weights(model.image_encoder, None)
    assert_close(encode_images(tf.constant(pixel_values()), weights), model.get_image_features(pixel_values()))
    plan = shared_plan(cut(captions))
    assert_close(traced_text(model)(*plan), model.get_text_features(captions))


def test_pixels_that_make_no_whole_patch_are_left_out(tiny_config):
    vision = dataclasses.replace(tiny_config.vision_config, image_size=23)
    model = CLIPModel(CLIPConfig(text_config=tiny_config.text_config, vision_config=vision, projection_dim=9))
    images = np.random.default_rng(0).normal(size=(2, 23, 23, 3)).astype("float32")
    weights = image_weights(model.image_encoder, None)
    assert_close(encode_images(tf.constant(images), weights), model.get_image_features(images))


@pytest.mark.parametrize("parts", [1, 2])
def test_bytes_are_read_as_they_are(small_model, tiny_processor, images, parts):
    process = tiny_processor.image_processor
    weights = image_weights(small_model.image_encoder, process.scale_and_shift(), parts)
    assert {dtype: len(products) for dtype, products in weights.patches.items()} == {tf.float32: parts, tf.uint8: parts}
    expected = small_model.get_image_features(process(images)["pixel_values"])
    assert_close(encode_images(tf.constant(images), weights), expected)


@pytest.mark.parametrize("parts", [2, 3, 64])
def test_blocks_in_parts_add_up(small_model, captions, parts):
    weights = image_weights(small_model.image_encoder, None, parts)
    assert len(weights.blocks[0].qkv) == min(parts, 4)
    assert_close(encode_images(tf.constant(pixel_values()), weights), small_model.get_image_features(pixel_values()))
    plan = shared_plan(cut(captions))
    features = encode_texts(*plan[:5], text_weights(small_model.text_encoder, parts))
    assert_close(features, small_model.get_text_features(captions))


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_kernels_in_panels_compute_the_same(make_model, captions, parts):
    model = make_model(hidden_size=128, intermediate_size=256, num_attention_heads=2)
    weights = text_weights(model.text_encoder, parts, in_panels=True)
    for block in weights.blocks:
        for product in (*block.qkv, *block.outputs, *block.fc1, *block.fc2, *(block.queries or ())):
            assert product.kernel.shape[-1] == PANEL and len(product.kernel.shape) == 3
    assert len(weights.project.kernel.shape) == 2, "28 columns are no panels"
    plan = shared_plan(cut(captions))
    # Of unit length, since those of wide layers are long.
    features, expected = encode_texts(*plan[:5], weights), model.get_text_features(captions)
    assert_close(unit_rows(features), unit_rows(expected))


def test_one_text_need_not_look_for_its_rows(small_model, captions):
    weights = text_weights(small_model.text_encoder)
    encode = tf.function(lambda tokens: encode_one_text(tokens, weights), autograph=False)
    signature = tf.TensorSpec([None], tf.int32)
    for caption in captions:
        tokens = cut(caption[np.newaxis]).input_ids[0]
        found = encode.get_concrete_function(signature)(tf.constant(tokens))
        assert_close(found, small_model.get_text_features(caption[np.newaxis]))
    assert operations(encode, signature).count("GatherV2") == 2, "tokens and positions"


@pytest.mark.parametrize("count", [0, 1, 2])
def test_any_number_of_images(small_model, count):
    weights = image_weights(small_model.image_encoder, None)
    encode = tf.function(lambda images: encode_images(images, weights), autograph=False)
    assert_close(encode(pixel_values()[:count]), np.asarray(small_model.get_image_features(pixel_values()))[:count])


def test_padding_to_a_fixed_size_changes_nothing(small_model, captions):
    plan = padded_plan(cut(captions), 8, 16)
    assert plan.arrangement.shape == (8, 16)
    assert_close(traced_text(small_model)(*plan)[:7], small_model.get_text_features(captions))


def test_texts_padded_on_the_left_or_hidden_altogether(small_model, captions):
    mask = np.ones_like(captions)
    mask[0, :2] = mask[3, 1] = mask[5] = 0
    plan = shared_plan(cut(captions, mask))
    assert_close(traced_text(small_model)(*plan), small_model.get_text_features(captions, mask))


def test_old_configurations_pool_at_the_highest_id(make_model, captions):
    model = make_model(eos_token_id=2)
    plan = shared_plan(cut_texts(captions, None, captions.argmax(axis=1)))
    assert_close(traced_text(model)(*plan), model.get_text_features(captions))


def test_half_precision_models_become_float32(tiny_config):
    model = CLIPModel(tiny_config, dtype="bfloat16")
    weights = image_weights(model.image_encoder, None)
    same = CLIPModel(tiny_config)
    for variable, half in zip(same.weights, model.weights, strict=True):
        variable.assign(tf.cast(half.value, "float32"))
    assert_close(encode_images(tf.constant(pixel_values()), weights), same.get_image_features(pixel_values()))


class WithMore(CLIPTextEncoder):
    """A tower with a weight of its own beside the transformer's, as adapters have."""

    def build(self, input_shape=None):
        if not self.built:
            self.more = self.add_weight(shape=(1,), name="more")
        super().build(input_shape)


class OtherBlock(EncoderLayer):
    """A block that may compute something else."""


def test_every_weight_and_block_must_be_one_that_is_rewritten(tiny_config):
    config = tiny_config.text_config
    assert not has_other_weights(CLIPTextEncoder(config), WEIGHTS_OUTSIDE_OF_BLOCKS)
    assert has_other_weights(WithMore(config), WEIGHTS_OUTSIDE_OF_BLOCKS)
    tower = CLIPTextEncoder(config)
    tower.encoder_layers[1].__class__ = OtherBlock
    assert has_other_weights(tower, WEIGHTS_OUTSIDE_OF_BLOCKS)


def operations(function, *arguments):
    graph = function.get_concrete_function(*arguments).graph
    return [operation.type for operation in graph.get_operations()]


def test_the_graph_has_no_product_that_tensorflow_does_not_fuse(small_model):
    weights = image_weights(small_model.image_encoder, None)
    encode = tf.function(lambda images: encode_images(images, weights), autograph=False)
    found = operations(encode, tf.TensorSpec([4, 20, 20, 3]))
    # Three blocks of four products, the last with one more for its queries; patches and projection.
    assert found.count("MatMul") == found.count("BiasAdd") == 3 * 4 + 1 + 2
    assert found.count("BatchMatMulV2") == 3 * 2
    assert found.count("Conv2D") == 0
