"""One model in every format that other libraries write: each loads, bit by bit."""

import dataclasses

import h5py
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from helpers.format_files import (
    write_bin,
    write_flax,
    write_keras_hub,
    write_openai_names,
    write_openclip,
    write_tf_h5,
    write_tf_safetensors,
)
from tf_clip import CLIPConfig, CLIPModel
from tf_clip.checkpoints.readers.stored import StoredTensor, numpy_dtype
from tf_clip.checkpoints.source import read_checkpoint
from tf_clip.families.clip import openai
from tf_clip.models import pretrained

RESNET = CLIPConfig(
    text_config={
        "vocab_size": 514,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "max_position_embeddings": 16,
        "pad_token_id": 0,
        "bos_token_id": 512,
        "eos_token_id": 513,
        "projection_dim": 28,
    },
    vision_config={
        "model_type": "clip_resnet_model",
        "depths": [1, 2, 1, 1],
        "embedding_size": 16,
        "num_attention_heads": 8,
        "image_size": 64,
        "projection_dim": 28,
    },
    projection_dim=28,
)


def randomized(model):
    """Gives every weight values of its own; many start as zeros or ones, which would hide a mix-up."""
    generator = np.random.default_rng(0)
    model.set_weights([generator.normal(size=weight.shape).astype("float32") for weight in model.weights])
    return model


@pytest.fixture(scope="module")
def model(tiny_config):
    return randomized(CLIPModel(tiny_config))


@pytest.fixture(scope="module")
def tensors(model, tmp_path_factory):
    """The model's arrays, by Hugging Face's names."""
    folder = tmp_path_factory.mktemp("reference")
    model.save_pretrained(folder)
    return load_file(folder / "model.safetensors")


@pytest.fixture(scope="module")
def resnet():
    return randomized(CLIPModel(RESNET))


@pytest.fixture(scope="module")
def resnet_tensors(resnet, tmp_path_factory):
    folder = tmp_path_factory.mktemp("resnet")
    resnet.save_pretrained(folder)
    return load_file(folder / "model.safetensors")


@pytest.fixture
def folder(tmp_path, tiny_config):
    """A folder with nothing but Hugging Face's config.json."""
    tiny_config.save_pretrained(tmp_path)
    return tmp_path


def same(model, path, **kwargs):
    """Loads a checkpoint and checks that it has the model's weights; returns it."""
    loaded = CLIPModel.from_pretrained(path, **kwargs)
    for variable, got, expected in zip(model.weights, loaded.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(got, expected, err_msg=variable.path)
    return loaded


@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("write", [write_bin, write_tf_h5])
def test_whole_and_in_parts(folder, model, tensors, write, parts):
    write(folder, tensors, parts)
    same(model, folder)
    assert ("3 parts" in read_checkpoint(folder).layout) == (parts == 3)


def test_tensorflow_safetensors(folder, model, tensors):
    write_tf_safetensors(folder, tensors)
    same(model, folder)


@pytest.mark.parametrize("chunk", [None, 500])
def test_flax(folder, model, tensors, chunk):
    write_flax(folder, tensors, chunk)
    same(model, folder)


def test_openai_with_a_configuration(tmp_path, model, tensors, tiny_config):
    write_openai_names(tmp_path / "ViT.pt", tensors)
    same(model, tmp_path / "ViT.pt", config=tiny_config)


def test_openai_alone_has_heads_of_64(tmp_path, tensors):
    write_openai_names(tmp_path / "ViT.pt", tensors)
    checkpoint = read_checkpoint(tmp_path / "ViT.pt")
    config = CLIPConfig.from_dict(checkpoint.config)
    assert (config.text_config.num_attention_heads, config.vision_config.num_attention_heads) == (1, 1)
    assert (config.text_config.num_hidden_layers, config.vision_config.num_hidden_layers) == (2, 3)
    assert (config.vision_config.image_size, config.text_config.hidden_act) == (20, "quick_gelu")
    assert "the configuration was read from the weights' shapes, with heads of 64" in checkpoint.notes
    CLIPModel.from_pretrained(tmp_path / "ViT.pt")


@pytest.mark.parametrize("custom_text", [False, True])
@pytest.mark.parametrize("file", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
def test_openclip(tmp_path, model, tensors, tiny_config, file, custom_text):
    write_openclip(tmp_path, tensors, tiny_config, file, custom_text)
    for path in (tmp_path, tmp_path / file):
        loaded = same(model, path)
        assert loaded.config.vision_config == dataclasses.replace(tiny_config.vision_config, projection_dim=28)


def test_keras_hub(tmp_path, model, tensors, tiny_config):
    write_keras_hub(tmp_path, tensors, tiny_config)
    for path in (tmp_path, tmp_path / "model.weights.h5"):
        loaded = same(model, path)
        assert loaded.config.text_config.num_attention_heads == 3


def test_keras_hub_with_positions_that_were_never_set(tmp_path, tensors, tiny_config):
    write_keras_hub(tmp_path, tensors, tiny_config)
    with h5py.File(tmp_path / "model.weights.h5", "a") as file:
        file["layers/clip_vision_encoder/layers/clip_vision_embedding/vars/1"][...] = 0
    name = "vision_model.embeddings.position_embedding.weight"
    got = read_checkpoint(tmp_path).tensors[name].load()
    np.testing.assert_array_equal(got, np.broadcast_to(tensors[name][0], got.shape))


def test_hugging_face_in_shards(tmp_path, model):
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    shards = sorted(tmp_path.glob("*.safetensors"))
    assert len(shards) > 3 and not (tmp_path / "model.safetensors").exists()
    # One tensor alone is larger than the limit: the tokens' embeddings.
    assert sum(shard.stat().st_size > 30_000 for shard in shards) == 1
    same(model, tmp_path)


def test_a_whole_file_replaces_shards(tmp_path, model):
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    model.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    same(model, tmp_path)


def test_openclip_as_saved_here(tmp_path, model, tiny_config):
    pretrained.write_openclip(model, tmp_path)
    same(model, tmp_path)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_the_space_is_rounded_once(tmp_path, model, dtype):
    model.save_pretrained(tmp_path, dtype=dtype)
    assert f"weights are stored as {dtype}" in read_checkpoint(tmp_path).notes
    for got, expected in zip(CLIPModel.from_pretrained(tmp_path).get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(got, expected.astype(numpy_dtype(dtype)).astype("float32"))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("write", [write_bin, write_flax])
def test_half_the_space_in_other_formats(folder, tensors, write, dtype):
    write(folder, {name: array.astype(numpy_dtype(dtype)) for name, array in tensors.items()})
    got = CLIPModel.from_pretrained(folder).logit_scale
    assert float(got.numpy()) == float(tensors["logit_scale"].astype(numpy_dtype(dtype)))


def test_a_bias_of_the_logits_is_found_in_the_weights(tmp_path, tensors, tiny_config):
    with_bias = {**tensors, "logit_bias": np.array(-10.0, "float32")}
    write_openclip(tmp_path, with_bias, tiny_config)
    assert float(CLIPModel.from_pretrained(tmp_path).logit_bias.numpy()) == -10.0


def test_resnet_in_hugging_faces_layout(tmp_path, resnet):
    resnet.save_pretrained(tmp_path)
    same(resnet, tmp_path)


def test_resnet_in_openclip(tmp_path, resnet, resnet_tensors):
    write_openclip(tmp_path, resnet_tensors, RESNET)
    loaded = same(resnet, tmp_path)
    assert loaded.config.vision_config == RESNET.vision_config


def test_resnet_in_openclip_as_saved_here(tmp_path, resnet):
    pretrained.write_openclip(resnet, tmp_path)
    same(resnet, tmp_path)


def test_resnet_in_openais_file(tmp_path, resnet, resnet_tensors):
    write_openai_names(tmp_path / "RN.pt", resnet_tensors)
    loaded = same(resnet, tmp_path / "RN.pt")
    assert loaded.config.text_config == RESNET.text_config
    assert loaded.config.vision_config == RESNET.vision_config


def test_counters_of_batch_norms_are_ignored(tmp_path, resnet, resnet_tensors):
    arrays = openai.from_hugging_face(resnet_tensors)
    assert "visual.layer2.1.bn3.running_var" in arrays and "visual.attnpool.c_proj.weight" in arrays
    arrays["visual.bn1.num_batches_tracked"] = np.array(7)
    save_file(arrays, tmp_path / "RN.safetensors")
    same(resnet, tmp_path / "RN.safetensors", config=RESNET)


@pytest.mark.parametrize("name", ["attn_mask", "text.attn_mask", "transformer.resblocks.0.attn_mask"])
def test_a_mask_among_the_weights_is_no_weight(name):
    """Scripted modules carry along tensors that are no parameters."""
    tensor = StoredTensor((2, 2), "float32", lambda: np.zeros((2, 2), "float32"))
    assert openai.to_hugging_face({name: tensor}, "a file") == {}
