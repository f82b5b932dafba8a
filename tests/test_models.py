"""The towers and the joint model: outputs, saving, use inside Keras, training protocol."""

import keras
import numpy as np
import pytest
from keras import ops

from tf_clip import CLIPConfig, CLIPImageEncoder, CLIPModel, CLIPTextEncoder, contrastive_loss


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
    texts, images = (ops.convert_to_numpy(output[name]) for name in ("text_embeds", "image_embeds"))
    np.testing.assert_allclose(np.linalg.norm(texts, axis=1), 1.0, rtol=1e-6)
    np.testing.assert_allclose(output.logits_per_text, np.exp(2.6592) * texts @ images.T, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(output.logits_per_image, np.transpose(output.logits_per_text))


def test_features_are_the_embeddings_before_normalisation(tiny_model, tiny_inputs):
    output = tiny_model(**tiny_inputs)
    features = tiny_model.get_text_features(tiny_inputs["input_ids"], tiny_inputs["attention_mask"])
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    assert np.abs(lengths - 1.0).max() > 1e-3
    np.testing.assert_allclose(features / lengths, output.text_embeds, atol=1e-6)


def test_loss_pairs_row_with_row(tiny_model, tiny_inputs):
    inputs = {
        **tiny_inputs,
        "input_ids": tiny_inputs["input_ids"][:2],
        "attention_mask": tiny_inputs["attention_mask"][:2],
    }
    output = tiny_model(**inputs, return_loss=True)
    logits = ops.convert_to_numpy(output.logits_per_image)
    by_image = np.mean(np.log(np.exp(logits).sum(axis=1)) - np.diag(logits))
    by_text = np.mean(np.log(np.exp(logits).sum(axis=0)) - np.diag(logits))
    assert float(output.loss) == pytest.approx((by_image + by_text) / 2, rel=1e-5)


def test_unequal_counts_have_no_loss(tiny_model, tiny_inputs):
    with pytest.raises(ValueError, match="`logits_per_text` must be square"):
        tiny_model(**tiny_inputs, return_loss=True)


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_loss_of_a_model_that_knows_nothing_is_ln_batch(value):
    assert float(contrastive_loss(np.full((8, 8), value, "float32"))) == pytest.approx(np.log(8.0), rel=1e-6)


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
    np.testing.assert_allclose(with_mask, tiny_model.get_text_features(ids), atol=1e-6)
    np.testing.assert_allclose(with_mask[2:], tiny_model.get_text_features(ids[2:, :3]), atol=1e-6)


def test_left_padding_needs_the_mask(tiny_model):
    padded = np.array([[513, 513, 512, 5, 9, 513]], "int32")
    hidden = np.array([[0, 0, 1, 1, 1, 1]], "int32")
    state = tiny_model.text_encoder(padded, attention_mask=hidden).last_hidden_state
    other = padded.copy()
    other[0, :2] = 7
    np.testing.assert_allclose(
        state[:, 2:], tiny_model.text_encoder(other, attention_mask=hidden).last_hidden_state[:, 2:], atol=1e-6
    )
    assert np.abs(state[:, 2:] - tiny_model.text_encoder(other).last_hidden_state[:, 2:]).max() > 1e-3


@pytest.mark.parametrize(("eos_token_id", "position"), [(513, 2), (2, 3), (400, 0)])
def test_texts_are_pooled_at_their_end(tiny_config, eos_token_id, position):
    config = {**tiny_config.text_config.to_dict(), "eos_token_id": eos_token_id, "vocab_size": 600}
    encoder = CLIPTextEncoder(config)
    output = encoder(np.array([[512, 5, 513, 599, 513]], "int32"))
    np.testing.assert_array_equal(output.pooler_output, output.last_hidden_state[:, position])


def test_image_tower_pools_the_normed_class_token(tiny_model, tiny_inputs):
    output = tiny_model.image_encoder(tiny_inputs["pixel_values"])
    expected = tiny_model.image_encoder.post_layernorm(output.last_hidden_state[:, 0])
    np.testing.assert_allclose(output.pooler_output, expected, atol=1e-6)


@pytest.mark.parametrize("extension", [".keras", ".weights.h5"])
def test_saving_in_keras_formats(tiny_model, tiny_config, tiny_inputs, tmp_path, extension):
    path = tmp_path / f"model{extension}"
    if extension == ".keras":
        tiny_model.save(path)
        restored = keras.saving.load_model(path)
    else:
        tiny_model.save_weights(path)
        restored = CLIPModel(tiny_config)
        restored.load_weights(path)
    np.testing.assert_array_equal(restored(**tiny_inputs).logits_per_image, tiny_model(**tiny_inputs).logits_per_image)


@pytest.mark.parametrize("cls", [CLIPModel, CLIPTextEncoder, CLIPImageEncoder])
def test_a_config_rebuilds_the_model(cls, tiny_model):
    model = {
        CLIPModel: tiny_model,
        CLIPTextEncoder: tiny_model.text_encoder,
        CLIPImageEncoder: tiny_model.image_encoder,
    }[cls]
    again = cls.from_config(model.get_config())
    assert [v.shape for v in again.weights] == [v.shape for v in model.weights]


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
    np.testing.assert_allclose(output["logits"], tiny_model(values).logits_per_text, atol=1e-6)
    model.save(tmp_path / "model.keras")
    restored = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(restored(values)["head"], output["head"], atol=1e-6)


def test_a_tower_is_a_layer_of_functional_models(tiny_model, tiny_inputs, tmp_path):
    ids, mask = keras.Input((7,), dtype="int32"), keras.Input((7,), dtype="int32")
    features = tiny_model.text_encoder(ids, attention_mask=mask).text_embeds
    model = keras.Model([ids, mask], keras.layers.Dense(2)(features))
    values = [tiny_inputs["input_ids"], tiny_inputs["attention_mask"]]
    model.save(tmp_path / "model.keras")
    np.testing.assert_allclose(keras.saving.load_model(tmp_path / "model.keras")(values), model(values), atol=1e-6)


def test_predict_is_refused_and_towers_predict(tiny_model, tiny_inputs):
    with pytest.raises(NotImplementedError, match="get_image_features and get_text_features"):
        tiny_model.predict(tiny_inputs)
    rows = tiny_model.image_encoder.predict(tiny_inputs["pixel_values"], batch_size=1, verbose=0)
    np.testing.assert_allclose(
        rows["image_embeds"], tiny_model.get_image_features(tiny_inputs["pixel_values"]), atol=1e-5
    )


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "bfloat16"])
def test_half_precision_runs_and_stays_close(tiny_config, tiny_model, tiny_inputs, policy):
    half = CLIPModel(tiny_config, dtype=policy)
    half.set_weights(tiny_model.get_weights())
    logits = ops.convert_to_numpy(ops.cast(half(**tiny_inputs).logits_per_image, "float32"))
    np.testing.assert_allclose(logits, tiny_model(**tiny_inputs).logits_per_image, atol=0.4)


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
