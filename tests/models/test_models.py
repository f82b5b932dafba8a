"""The towers and the joint model: outputs, saving, use inside Keras, training protocol."""

import keras
import numpy as np
import pytest

from helpers.arrays import array, assert_close, assert_same
from tf_clip import CLIPConfig, CLIPModel, CLIPTextEncoder, contrastive_loss

pytestmark = pytest.mark.backends


def test_outputs_have_their_shapes_and_names(tiny_model, tiny_inputs):
    output = tiny_model(**tiny_inputs)
    shapes = {name: tuple(value.shape) for name, value in output.items() if name.endswith(("embeds", "image", "text"))}
    assert shapes == {
        "logits_per_image": (2, 3),
        "logits_per_text": (3, 2),
        "text_embeds": (3, 28),
        "image_embeds": (2, 28),
    }
    assert output.text_model_output.last_hidden_state.shape == (3, 7, 24)
    assert output.vision_model_output["pooler_output"].shape == (2, 32)
    assert output["logits_per_image"] is output.logits_per_image
    with pytest.raises(AttributeError, match="no 'loss'. It holds: logits_per_image"):
        _ = output.loss


def test_logits_are_scaled_cosine_similarities(tiny_model, tiny_inputs):
    output = tiny_model(**tiny_inputs)
    texts, images = (array(output[name]) for name in ("text_embeds", "image_embeds"))
    assert_close(np.linalg.norm(texts, axis=1), np.ones(3), rtol=1e-6)
    assert_close(output.logits_per_text, np.exp(2.6592) * texts @ images.T, rtol=1e-5, atol=1e-5)
    assert_same(output.logits_per_image, array(output.logits_per_text).T)


def test_features_are_the_embeddings_before_normalization(tiny_model, tiny_inputs):
    output = tiny_model(**tiny_inputs)
    features = array(tiny_model.get_text_features(tiny_inputs["input_ids"], tiny_inputs["attention_mask"]))
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    assert np.abs(lengths - 1.0).max() > 1e-3
    assert_close(features / lengths, output.text_embeds, atol=1e-6)


def test_loss_pairs_row_with_row(tiny_model, tiny_inputs):
    inputs = {
        **tiny_inputs,
        "input_ids": tiny_inputs["input_ids"][:2],
        "attention_mask": tiny_inputs["attention_mask"][:2],
    }
    output = tiny_model(**inputs, return_loss=True)
    logits = array(output.logits_per_image)
    by_image = np.mean(np.log(np.exp(logits).sum(axis=1)) - np.diag(logits))
    by_text = np.mean(np.log(np.exp(logits).sum(axis=0)) - np.diag(logits))
    assert float(array(output.loss)) == pytest.approx((by_image + by_text) / 2, rel=1e-5)


def test_unequal_counts_have_no_loss(tiny_model, tiny_inputs):
    with pytest.raises(ValueError, match="`logits_per_text` must be square"):
        tiny_model(**tiny_inputs, return_loss=True)


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_loss_of_a_model_that_knows_nothing_is_ln_batch(value):
    assert float(array(contrastive_loss(np.full((8, 8), value, "float32")))) == pytest.approx(np.log(8.0), rel=1e-6)


@pytest.mark.parametrize("missing", ["input_ids", "pixel_values"])
def test_a_missing_side_is_named(tiny_model, tiny_inputs, missing):
    with pytest.raises(ValueError, match=f"`{missing}` must be given"):
        tiny_model(**{name: value for name, value in tiny_inputs.items() if name != missing})


def test_an_unknown_input_is_named(tiny_model, tiny_inputs):
    with pytest.raises(ValueError, match=r"Received also: \['labels'\]"):
        tiny_model({**tiny_inputs, "labels": np.zeros(2)})


def test_right_padding_changes_nothing(tiny_model, tiny_inputs):
    ids, mask = tiny_inputs["input_ids"], tiny_inputs["attention_mask"]
    with_mask = tiny_model.get_text_features(ids, mask)
    assert_close(with_mask, tiny_model.get_text_features(ids), atol=1e-6)
    assert_close(with_mask[2:], tiny_model.get_text_features(ids[2:, :3]), atol=1e-6)


def test_left_padding_needs_the_mask(tiny_model):
    padded = np.array([[513, 513, 512, 5, 9, 513]], "int32")
    hidden = np.array([[0, 0, 1, 1, 1, 1]], "int32")
    state = tiny_model.text_encoder(padded, attention_mask=hidden).last_hidden_state
    other = padded.copy()
    other[0, :2] = 7
    assert_close(
        state[:, 2:], tiny_model.text_encoder(other, attention_mask=hidden).last_hidden_state[:, 2:], atol=1e-6
    )
    assert np.abs(array(state[:, 2:]) - array(tiny_model.text_encoder(other).last_hidden_state[:, 2:])).max() > 1e-3


@pytest.mark.parametrize(("eos_token_id", "position"), [(513, 2), (2, 3), (400, 0)])
def test_texts_are_pooled_at_their_end(tiny_config, eos_token_id, position):
    config = {**tiny_config.text_config.to_dict(), "eos_token_id": eos_token_id, "vocab_size": 600}
    encoder = CLIPTextEncoder(config)
    output = encoder(np.array([[512, 5, 513, 599, 513]], "int32"))
    assert_same(output.pooler_output, output.last_hidden_state[:, position])


def test_image_tower_pools_the_normed_class_token(tiny_model, tiny_inputs):
    output = tiny_model.image_encoder(tiny_inputs["pixel_values"])
    expected = tiny_model.image_encoder.post_layernorm(output.last_hidden_state[:, 0])
    assert_close(output.pooler_output, expected, atol=1e-6)


def test_the_model_is_a_layer_of_functional_models(tiny_model, tiny_inputs, tmp_path):
    inputs = {
        "input_ids": keras.Input((7,), dtype="int32", name="input_ids"),
        "pixel_values": keras.Input((20, 20, 3), name="pixel_values"),
    }
    joint = tiny_model(inputs)
    model = keras.Model(inputs, {"logits": joint.logits_per_text, "head": keras.layers.Dense(2)(joint.image_embeds)})
    values = {name: tiny_inputs[name] for name in inputs}
    output = model(values)
    assert output["head"].shape == (2, 2)
    assert_close(output["logits"], tiny_model(values).logits_per_text, atol=1e-6)
    model.save(tmp_path / "model.keras")
    restored = keras.saving.load_model(tmp_path / "model.keras")
    assert_close(restored(values)["head"], output["head"], atol=1e-6)


def test_a_tower_is_a_layer_of_functional_models(tiny_model, tiny_inputs, tmp_path):
    ids, mask = keras.Input((7,), dtype="int32"), keras.Input((7,), dtype="int32")
    features = tiny_model.text_encoder(ids, attention_mask=mask).text_embeds
    model = keras.Model([ids, mask], keras.layers.Dense(2)(features))
    values = [tiny_inputs["input_ids"], tiny_inputs["attention_mask"]]
    model.save(tmp_path / "model.keras")
    assert_close(keras.saving.load_model(tmp_path / "model.keras")(values), model(values), atol=1e-6)


def test_predict_is_refused_and_towers_predict(tiny_model, tiny_inputs):
    with pytest.raises(NotImplementedError, match="get_image_features and get_text_features"):
        tiny_model.predict(tiny_inputs)
    rows = tiny_model.image_encoder.predict(tiny_inputs["pixel_values"], batch_size=1, verbose=0)
    assert_close(rows["image_embeds"], tiny_model.get_image_features(tiny_inputs["pixel_values"]), atol=1e-5)


def test_fresh_weights_have_the_reference_spread():
    model = CLIPModel(
        CLIPConfig(text_config={"vocab_size": 1000, "num_hidden_layers": 2}, vision_config={"num_hidden_layers": 2})
    )
    spread = {name: float(np.std(variable.numpy())) for name, variable in model._variables_by_path().items()}
    assert spread["text_encoder/embeddings/token_embedding/embeddings"] == pytest.approx(0.02, rel=0.02)
    assert spread["image_encoder/embeddings/class_embedding"] == pytest.approx(768**-0.5, rel=0.1)
    assert spread["image_encoder/layers_0/self_attn/q_proj/kernel"] == pytest.approx(768**-0.5 * 4**-0.5, rel=0.02)
    assert spread["text_encoder/layers_1/self_attn/out_proj/kernel"] == pytest.approx(512**-0.5, rel=0.02)
    assert spread["text_encoder/layers_1/mlp/fc1/kernel"] == pytest.approx(1024**-0.5, rel=0.02)
    assert spread["image_encoder/layers_1/mlp/fc2/kernel"] == pytest.approx(768**-0.5 * 4**-0.5, rel=0.02)
    assert spread["text_encoder/text_projection/kernel"] == pytest.approx(512**-0.5, rel=0.02)
    assert spread["text_encoder/layers_0/mlp/fc1/bias"] == 0.0


def test_inside_states_are_those_of_each_block(tiny_model, tiny_inputs):
    output = tiny_model(**tiny_inputs, output_hidden_states=True, output_attentions=True)
    texts, images = output.text_model_output, output.vision_model_output
    assert [state.shape for state in texts.hidden_states] == [(3, 7, 24)] * 3
    assert [state.shape for state in images.hidden_states] == [(2, 17, 32)] * 4
    assert [weights.shape for weights in texts.attentions] == [(3, 3, 7, 7)] * 2
    assert [weights.shape for weights in images.attentions] == [(2, 4, 17, 17)] * 3
    assert_same(images.hidden_states[-1], images.last_hidden_state)
    assert_close(tiny_model.text_encoder.final_layer_norm(texts.hidden_states[-1]), texts.last_hidden_state, atol=1e-6)
    # The image tower's first block reads what it stores first.
    assert_close(
        tiny_model.image_encoder.encoder_layers[0](images.hidden_states[0]), images.hidden_states[1], atol=1e-6
    )
    ahead = np.triu(np.ones((7, 7)), 1).astype(bool)
    assert array(texts.attentions[0])[..., ahead].max() == 0.0


def test_larger_images_in_the_joint_model(tiny_model, tiny_inputs):
    larger = {**tiny_inputs, "pixel_values": np.ones((2, 31, 26, 3), "float32")}
    with pytest.raises(ValueError, match="or pass interpolate_pos_encoding=True"):
        tiny_model(**larger)
    output = tiny_model(**larger, interpolate_pos_encoding=True)
    assert output.vision_model_output.last_hidden_state.shape == (2, 1 + 6 * 5, 32)
    features = tiny_model.get_image_features(larger["pixel_values"], interpolate_pos_encoding=True)
    assert features.shape == (2, 28)


def test_positions_may_be_given(tiny_model, tiny_inputs):
    counted = {**tiny_inputs, "position_ids": np.arange(7, dtype="int32")[None]}
    assert_close(tiny_model(**counted).logits_per_text, tiny_model(**tiny_inputs).logits_per_text, atol=1e-6)
    shifted = {**tiny_inputs, "position_ids": np.arange(7, dtype="int32")[None] + 5}
    assert np.abs(array(tiny_model(**shifted).text_embeds) - array(tiny_model(**tiny_inputs).text_embeds)).max() > 1e-3


def test_fused_attention_in_the_joint_model(tiny_config, tiny_model, tiny_inputs):
    fused = CLIPModel(tiny_config, attn_implementation="sdpa")
    fused.set_weights(tiny_model.get_weights())
    assert_close(fused(**tiny_inputs).logits_per_text, tiny_model(**tiny_inputs).logits_per_text, atol=1e-5)


def test_a_bias_on_the_logits(tiny_config, tiny_model, tiny_inputs):
    biased = CLIPModel(CLIPConfig.from_dict({**tiny_config.to_dict(), "logit_bias_init_value": -3.0}))
    biased.text_encoder.set_weights(tiny_model.text_encoder.get_weights())
    biased.image_encoder.set_weights(tiny_model.image_encoder.get_weights())
    expected = array(tiny_model(**tiny_inputs).logits_per_text) - 3.0
    assert_close(biased(**tiny_inputs).logits_per_text, expected, atol=1e-5)


def test_dropout_acts_in_training_only(tiny_config, tiny_inputs):
    config = tiny_config.to_dict()
    for tower in ("text_config", "vision_config"):
        config[tower]["attention_dropout"] = 0.5
    model = CLIPModel(config)
    assert_same(model(**tiny_inputs).logits_per_text, model(**tiny_inputs).logits_per_text)
    trained = array(model(**tiny_inputs, training=True).logits_per_text)
    assert np.abs(trained - array(model(**tiny_inputs).logits_per_text)).max() > 1e-4
