"""Hugging Face files: strict both ways, all failures at once, broken files refused."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from tf_clip import CheckpointError, CLIPConfig, CLIPImageEncoder, CLIPModel, CLIPTextEncoder
from tf_clip.checkpoints import assign
from tf_clip.families.clip.tensor_names import TENSOR_NAMES


def rewrite(folder, change):
    """Applies `change` to the tensors of a checkpoint."""
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_a_round_trip_is_exact(tiny_checkpoint, tiny_model, tiny_inputs):
    restored = CLIPModel.from_pretrained(tiny_checkpoint)
    np.testing.assert_array_equal(restored(**tiny_inputs).logits_per_image, tiny_model(**tiny_inputs).logits_per_image)
    assert restored.config == tiny_model.config


def test_names_and_layout_are_hugging_faces(tiny_checkpoint):
    tensors = load_file(tiny_checkpoint / "model.safetensors")
    assert tensors["vision_model.embeddings.patch_embedding.weight"].shape == (32, 3, 5, 5)
    assert tensors["text_model.encoder.layers.1.mlp.fc1.weight"].shape == (40, 24)
    assert tensors["text_projection.weight"].shape == (28, 24)
    assert tensors["logit_scale"].shape == ()
    # 1 + (2 + 16 x 2 + 2 + 1) + (3 + 4 + 16 x 3 + 1), as transformers 5 writes for 2 + 3 layers
    assert len(tensors) == 94
    assert "vision_model.pre_layrnorm.weight" in tensors


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("logit_scale", "logit_scale"),
        ("text_encoder/text_projection/kernel", "text_projection.weight"),
        ("image_encoder/layers_11/mlp/fc2/bias", "vision_model.encoder.layers.11.mlp.fc2.bias"),
        ("text_encoder/layers_0/layer_norm1/gamma", "text_model.encoder.layers.0.layer_norm1.weight"),
        ("image_encoder/embeddings/class_embedding", "vision_model.embeddings.class_embedding"),
        ("image_encoder/post_layernorm/beta", "vision_model.post_layernorm.bias"),
    ],
)
def test_the_table(path, name):
    assert TENSOR_NAMES(path).name == name


def test_half_the_space(tiny_checkpoint, tiny_model, tiny_inputs):
    tiny_model.save_pretrained(tiny_checkpoint, dtype="float16")
    assert load_file(tiny_checkpoint / "model.safetensors")["logit_scale"].dtype == np.float16
    restored = CLIPModel.from_pretrained(tiny_checkpoint)
    assert restored.weights[0].dtype == "float32"
    np.testing.assert_allclose(restored(**tiny_inputs).text_embeds, tiny_model(**tiny_inputs).text_embeds, atol=2e-3)
    with pytest.raises(ValueError, match="`dtype` must be one of .* Received: dtype='int8'"):
        tiny_model.save_pretrained(tiny_checkpoint, dtype="int8")


@pytest.mark.parametrize(("cls", "root"), [(CLIPTextEncoder, "text_encoder"), (CLIPImageEncoder, "image_encoder")])
def test_a_tower_loads_from_a_full_checkpoint_and_alone(tiny_checkpoint, tiny_model, tmp_path, cls, root):
    tower = cls.from_pretrained(tiny_checkpoint)
    tower.save_pretrained(tmp_path / "alone")
    alone = cls.from_pretrained(tmp_path / "alone")
    for expected, *got in zip(
        getattr(tiny_model, root).get_weights(), tower.get_weights(), alone.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(got, [expected, expected])
    assert json.loads((tmp_path / "alone" / "config.json").read_text())["projection_dim"] == 28


def test_old_position_ids_are_ignored(tiny_checkpoint):
    rewrite(
        tiny_checkpoint, lambda tensors: tensors.update({"text_model.embeddings.position_ids": np.arange(16)[None]})
    )
    CLIPModel.from_pretrained(tiny_checkpoint)


def test_a_temperature_with_a_dimension_is_read(tiny_checkpoint):
    rewrite(tiny_checkpoint, lambda tensors: tensors.update(logit_scale=np.array([1.5], "float32")))
    assert float(CLIPModel.from_pretrained(tiny_checkpoint).logit_scale.numpy()) == 1.5


def test_every_failure_is_listed_and_nothing_is_returned(tiny_checkpoint):
    def spoil(tensors):
        del tensors["text_model.final_layer_norm.weight"]
        tensors["text_model.new"] = np.zeros(2, "float32")
        tensors["visual_projection.weight"] = np.zeros((28, 31), "float32")

    rewrite(tiny_checkpoint, spoil)
    with pytest.raises(CheckpointError) as error:
        CLIPModel.from_pretrained(tiny_checkpoint)
    message = str(error.value)
    assert "missing: text_model.final_layer_norm.weight (for text_encoder/final_layer_norm/gamma)" in message
    assert "left over: text_model.new" in message
    assert "shape: visual_projection.weight is [28, 31], the model needs [28, 32]" in message
    assert "model.safetensors" in message


@pytest.mark.parametrize("keep", [0, 4, 200, -10])
def test_a_file_cut_short_is_refused(tiny_checkpoint, keep):
    path = tiny_checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        CLIPModel.from_pretrained(tiny_checkpoint)


def test_large_weights_take_over_the_memory_they_were_read_into(tiny_checkpoint, tiny_model, tiny_inputs, monkeypatch):
    monkeypatch.setattr(assign, "_LARGE", 0)
    model = CLIPModel.from_pretrained(tiny_checkpoint)
    for ours, theirs in zip(model.weights, tiny_model.weights, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    table = model.text_encoder.embeddings.token_embedding.embeddings
    # TensorFlow copies a variable at every reading once a part of it was assigned.
    readings = [table.value.read_value() for _ in range(2)]
    assert len({reading.numpy().ctypes.data for reading in readings}) == 1
    table.assign(table * 2)
    np.testing.assert_array_equal(table.numpy(), 2 * readings[0].numpy())


def test_a_header_that_claims_gigabytes_is_refused(tiny_checkpoint):
    (tiny_checkpoint / "model.safetensors").write_bytes((2**31).to_bytes(8, "little") + b"{}")
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        CLIPModel.from_pretrained(tiny_checkpoint)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(tiny_checkpoint, name):
    (tiny_checkpoint / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        CLIPModel.from_pretrained(tiny_checkpoint)


def test_a_config_that_cannot_be_honored_is_refused(tiny_checkpoint):
    config = json.loads((tiny_checkpoint / "config.json").read_text())
    config["text_config"]["hidden_act"] = "swoosh"
    (tiny_checkpoint / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="`hidden_act` must be one of .* Received: hidden_act='swoosh'"):
        CLIPModel.from_pretrained(tiny_checkpoint)


def test_a_named_or_nested_model_maps_the_same(tiny_config):
    assert set(CLIPModel(tiny_config, name="another")._variables_by_path()) == set(
        CLIPModel(tiny_config)._variables_by_path()
    )


def test_a_default_config_maps_every_weight():
    model = CLIPModel(CLIPConfig(text_config={"num_hidden_layers": 1}, vision_config={"num_hidden_layers": 1}))
    names = [source.name for source in model._sources_of(model._variables_by_path()).values()]
    assert len(set(names)) == len(names) == len(model.weights)
