"""Checkpoints that are broken, hostile, or not CLIP: each is refused with the reason and what to do."""

import json
import os
import pickle
import zipfile

import h5py
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from helpers.format_files import write_keras_hub, write_openclip
from helpers.torch_files import Raw, write_zip
from tf_clip import CheckpointError, CLIPModel

INDEX = "model.safetensors.index.json"


def rewrite(path, change):
    """Applies `change` to the tensors of a safetensors file."""
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def rewrite_json(path, change):
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def refused(path, match, kind=CheckpointError):
    with pytest.raises(kind, match=match) as error:
        CLIPModel.from_pretrained(path)
    return str(error.value)


@pytest.fixture
def sharded(tmp_path, tiny_model):
    tiny_model.save_pretrained(tmp_path / "sharded", max_shard_size="40KB")
    return tmp_path / "sharded"


@pytest.fixture
def bare(tiny_checkpoint):
    """A configuration and a tokenizer without weights."""
    (tiny_checkpoint / "model.safetensors").unlink()
    return tiny_checkpoint


@pytest.fixture
def openclip_checkpoint(tmp_path, tiny_model, tiny_config):
    tiny_model.save_pretrained(tmp_path / "source")
    folder = tmp_path / "openclip"
    folder.mkdir()
    write_openclip(folder, load_file(tmp_path / "source" / "model.safetensors"), tiny_config)
    return folder


# Shards


def test_an_index_names_a_missing_shard(sharded):
    shard = sorted(sharded.glob("*.safetensors"))[1]
    shard.unlink()
    refused(sharded, f"{INDEX} names {shard.name}, which is missing. Download all parts", FileNotFoundError)


@pytest.mark.parametrize("name", ["../x.safetensors", "/x.safetensors", "a/x.safetensors", "..\\x.safetensors"])
def test_an_index_names_a_file_elsewhere(sharded, name):
    rewrite_json(sharded / INDEX, lambda index: index["weight_map"].update(logit_scale=name))
    refused(sharded, "must name files beside it. Received: .*Do not trust this checkpoint")


@pytest.mark.parametrize("index", [{}, {"weight_map": {}}, {"weight_map": ["a"]}])
def test_an_index_without_a_map(sharded, index):
    (sharded / INDEX).write_text(json.dumps(index))
    refused(sharded, "must have a `weight_map` from tensors to files. Received none")


def test_a_shard_cut_short(sharded):
    shard = sorted(sharded.glob("*.safetensors"))[-1]
    shard.write_bytes(shard.read_bytes()[:-10])
    refused(sharded, f"{shard.name} is not a whole safetensors file")


# Files


def test_a_pickle_that_runs_code_is_not_run(bare, tmp_path):
    class Runs:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    operations = pickle.dumps({"logit_scale": Runs()}, protocol=2)[2:-1]
    write_zip(bare / "pytorch_model.bin", Raw(operations))
    refused(bare, "pytorch_model.bin .*system")
    assert not (tmp_path / "ran").exists()
    pickle.loads(zipfile.ZipFile(bare / "pytorch_model.bin").read("archive/data.pkl"))
    assert (tmp_path / "ran").exists()  # as it would have


def test_nan_weights_warn(tiny_checkpoint):
    weights = tiny_checkpoint / "model.safetensors"
    rewrite(weights, lambda tensors: tensors["visual_projection.weight"].__setitem__((3, 4), np.nan))
    with pytest.warns(UserWarning, match="NaN or infinite weights, .*: visual_projection.weight") as warned:
        model = CLIPModel.from_pretrained(tiny_checkpoint)
    assert sum(np.isnan(weight).sum() for weight in model.get_weights()) == 1
    assert len(warned) == 1


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "tf_model.h5", "flax_model.msgpack"])
def test_a_git_lfs_pointer(bare, name):
    (bare / name).write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 605247071\n")
    refused(bare, f"{name} is a Git LFS pointer, not the file itself. Run `git lfs pull`")


def test_a_file_of_another_suffix(bare):
    (bare / "model.onnx").write_bytes(b"1234")
    refused(bare / "model.onnx", "must be a .safetensors, .bin, .* or .msgpack file. Received: model.onnx")


def test_a_folder_without_weights(bare):
    refused(bare, "must hold one of model.safetensors, pytorch_model.bin, .*Download the weights", FileNotFoundError)


def test_an_openclip_folder_without_weights(openclip_checkpoint):
    (openclip_checkpoint / "open_clip_model.safetensors").unlink()
    refused(openclip_checkpoint, "must hold one of open_clip_model.safetensors, .*Download the", FileNotFoundError)


def test_an_empty_folder(tmp_path):
    refused(tmp_path, "must hold a config.json", FileNotFoundError)


# Configurations


def test_a_config_that_is_no_json(tiny_checkpoint):
    (tiny_checkpoint / "config.json").write_text('{"model_type": "clip",')
    refused(tiny_checkpoint, "config.json must be valid JSON. .*Download the file again")


def test_a_config_that_is_a_list(tiny_checkpoint):
    (tiny_checkpoint / "config.json").write_text("[1, 2]")
    refused(tiny_checkpoint, "config.json must hold a JSON object. Received: list")


def test_a_config_that_disagrees_with_the_tensors(tiny_checkpoint):
    rewrite_json(tiny_checkpoint / "config.json", lambda config: config["text_config"].update(vocab_size=600))
    refused(
        tiny_checkpoint,
        r"nothing was loaded.\n  shape: text_model.embeddings.token_embedding.weight is \[514, 24\], "
        r"the model needs \[600, 24\]$",
    )


@pytest.mark.parametrize(
    ("kind", "described"),
    [("siglip", "SigLIP, whose"), ("chinese_clip", "Chinese-CLIP, whose text tower is a BERT"), ("bert", "another")],
)
def test_the_config_of_another_model(tiny_checkpoint, kind, described):
    rewrite_json(tiny_checkpoint / "config.json", lambda config: config.update(model_type=kind))
    refused(tiny_checkpoint, f"Received: model_type='{kind}'.* describes {described}", ValueError)


@pytest.mark.parametrize(
    ("tensor", "model"),
    [
        ("vision_model.head.probe", "SigLIP"),
        ("text_model.encoder.layer.0.attention.self.query.weight", "Chinese-CLIP"),
        ("text_model.embeddings.word_embeddings.weight", "Chinese-CLIP"),
    ],
)
def test_the_tensors_of_another_model(tiny_checkpoint, tensor, model):
    weights = tiny_checkpoint / "model.safetensors"
    rewrite(weights, lambda tensors: tensors.update({tensor: np.zeros(2, "float32")}))
    refused(tiny_checkpoint, f"must hold a CLIP model. Received: {model}.*, by its tensor {tensor}")


def test_a_preset_of_another_keras_hub_model(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"class_name": "SigLIPBackbone", "config": {}}))
    refused(tmp_path, "must be a preset of CLIPBackbone. Received: SigLIPBackbone")


# OpenCLIP


@pytest.mark.parametrize(
    ("part", "fields", "match"),
    [
        ("vision_cfg", {"timm_model_name": "vit_base_patch16_siglip_224"}, "Received: timm_model_name='vit_base_patch"),
        ("text_cfg", {"hf_model_name": "roberta-base"}, "Received: hf_model_name='roberta-base'"),
        ("text_cfg", {"new_field": 3}, "`text_cfg` must describe CLIP's own towers. Received: new_field=3"),
        ("vision_cfg", {"pool_type": "avg"}, "`vision_cfg` must describe CLIP's own towers. Received: pool_type='avg'"),
        ("vision_cfg", {"act_kwargs": {"approximate": "none"}}, "`act_kwargs` must be .*Received: {'approximate': 'no"),
        ("text_cfg", {"norm_kwargs": {"rms": True}}, "`norm_kwargs` must .*Received: rms=True"),
        (None, {"multimodal_cfg": {"width": 8}}, "`model_cfg` must .*Received: multimodal_cfg="),
    ],
)
def test_an_openclip_architecture_that_is_not_here(openclip_checkpoint, part, fields, match):
    def change(described):
        model = described["model_cfg"]
        (model if part is None else model[part]).update(fields)

    rewrite_json(openclip_checkpoint / "open_clip_config.json", change)
    refused(openclip_checkpoint, match, ValueError)


@pytest.mark.parametrize("part", ["embed_dim", "text_cfg", "vision_cfg"])
def test_an_openclip_config_without_a_part(openclip_checkpoint, part):
    rewrite_json(openclip_checkpoint / "open_clip_config.json", lambda described: described["model_cfg"].pop(part))
    refused(openclip_checkpoint, f"`{part}` must be in ", ValueError)


def test_openclip_weights_alone(openclip_checkpoint):
    (openclip_checkpoint / "open_clip_config.json").unlink()
    refused(
        openclip_checkpoint / "open_clip_model.safetensors", "must have an open_clip_config.json beside it.*activation"
    )


def test_hugging_face_weights_alone(tiny_checkpoint):
    (tiny_checkpoint / "config.json").unlink()
    refused(tiny_checkpoint / "model.safetensors", "must have a config.json beside it.*or pass config=CLIPConfig")


def test_openclip_weights_of_another_architecture(openclip_checkpoint):
    weights = openclip_checkpoint / "open_clip_model.safetensors"
    rewrite(weights, lambda tensors: tensors.update({"visual.trunk.norm.weight": np.zeros(2, "float32")}))
    refused(
        openclip_checkpoint, "CLIP's own towers. Received also: visual.trunk.norm.weight. It is another architecture"
    )


def test_every_failure_of_an_openclip_file_is_listed(openclip_checkpoint):
    def spoil(tensors):
        del tensors["ln_final.weight"]
        tensors["visual.proj"] = np.zeros((31, 28), "float32")
        tensors["logit_scale"] = np.zeros(2, "float32")
        for kind in ("weight", "bias"):  # a block more than the configuration has
            name = f"transformer.resblocks.{{}}.ln_1.{kind}"
            tensors[name.format(2)] = tensors[name.format(1)]

    rewrite(openclip_checkpoint / "open_clip_model.safetensors", spoil)
    message = refused(openclip_checkpoint, "does not fit the model; nothing was loaded")
    assert sorted(message.splitlines()[1:]) == [
        "  left over: text_model.encoder.layers.2.layer_norm1.bias",
        "  left over: text_model.encoder.layers.2.layer_norm1.weight",
        "  missing: text_model.final_layer_norm.weight (for text_encoder/final_layer_norm/gamma)",
        "  shape: logit_scale is [2], the model needs []",
        "  shape: visual_projection.weight is [28, 31], the model needs [28, 32]",
    ]


@pytest.mark.parametrize("rows", [71, 73, 1])
def test_queries_keys_and_values_that_are_no_three_parts(openclip_checkpoint, rows):
    def spoil(tensors):
        tensors["transformer.resblocks.1.attn.in_proj_weight"] = np.zeros((rows, 24), "float32")

    rewrite(openclip_checkpoint / "open_clip_model.safetensors", spoil)
    message = refused(openclip_checkpoint, "does not fit the model")
    assert [line.split()[1] for line in message.splitlines()[1:]] == [
        f"text_model.encoder.layers.1.self_attn.{part}.weight" for part in ("q_proj", "k_proj", "v_proj")
    ]


@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4)])
@pytest.mark.parametrize("name", ["visual.proj", "text_projection", "transformer.resblocks.0.attn.in_proj_weight"])
def test_openclip_tensors_with_other_axes(openclip_checkpoint, name, shape):
    weights = openclip_checkpoint / "open_clip_model.safetensors"
    rewrite(weights, lambda tensors: tensors.update({name: np.zeros(shape, "float32")}))
    message = refused(openclip_checkpoint, "does not fit the model; nothing was loaded")
    assert all(line.startswith("  shape: ") for line in message.splitlines()[1:])


@pytest.mark.parametrize(
    ("part", "fields"),
    [
        (None, {"embed_dim": None}),
        (None, {"vision_cfg": 5}),
        ("vision_cfg", {"head_width": 0}),
        ("text_cfg", {"width": "wide"}),
        ("text_cfg", {"norm_kwargs": 3}),
    ],
)
def test_openclip_fields_of_other_kinds(openclip_checkpoint, part, fields):
    def change(described):
        model = described["model_cfg"]
        (model if part is None else model[part]).update(fields)

    rewrite_json(openclip_checkpoint / "open_clip_config.json", change)
    refused(openclip_checkpoint, "open_clip_config.json must describe a CLIP model. Received: .*Download it again")


# OpenAI


@pytest.mark.parametrize("name", ["token_embedding.weight", "text_projection", "visual.conv1.weight"])
def test_an_openai_file_without_a_tensor(tmp_path, openclip_checkpoint, name):
    arrays = load_file(openclip_checkpoint / "open_clip_model.safetensors")
    del arrays[name]
    save_file({**arrays, "input_resolution": np.array(20)}, tmp_path / "ViT.safetensors")
    refused(tmp_path / "ViT.safetensors", "must hold all of OpenAI's tensors, in their shapes. Received: .*Download it")


# KerasHub


@pytest.fixture
def preset(tmp_path, tiny_model, tiny_config):
    tiny_model.save_pretrained(tmp_path / "source")
    folder = tmp_path / "preset"
    folder.mkdir()
    write_keras_hub(folder, load_file(tmp_path / "source" / "model.safetensors"), tiny_config)
    return folder


@pytest.mark.parametrize("part", ["vision_encoder", "text_encoder", "projection_dim"])
def test_a_preset_without_a_part(preset, part):
    rewrite_json(preset / "config.json", lambda described: described["config"].pop(part))
    refused(preset, f"must describe KerasHub's CLIPBackbone. Received: KeyError: '{part}'")


def test_a_preset_whose_heads_contradict_its_tensors(preset):
    # As many weights, divided otherwise: only KerasHub's layout shows it.
    rewrite_json(preset / "config.json", lambda file: file["config"]["text_encoder"]["config"].update(num_heads=4))
    refused(preset, "must have 4 heads in its text encoder. Received: .*query_dense/vars/0 of shape .24, 3, 8.")


def test_a_preset_with_a_strange_tensor(preset):
    with h5py.File(preset / "model.weights.h5", "a") as file:
        name = "layers/clip_text_encoder/layers/clip_encoder_layer/attention/query_dense/vars/1"
        del file[name]
        file[name] = np.zeros(3, "float32")
        file["layers/clip_head/vars/7"] = np.zeros(3, "float32")
    refused(preset, "Received also: layers/clip_head/vars/7")
    with h5py.File(preset / "model.weights.h5", "a") as file:
        del file["layers/clip_head/vars/7"]
    refused(preset, r"shape: text_model.encoder.layers.0.self_attn.q_proj.bias is \[3\], the model needs \[24\]")


@pytest.mark.parametrize("ids", [np.array([[1, 2]]), np.arange(1, 18), np.arange(-1, 16), np.zeros(17)])
def test_a_preset_that_numbers_positions_wrongly(preset, ids):
    with h5py.File(preset / "model.weights.h5", "a") as file:
        name = "layers/clip_vision_encoder/layers/clip_vision_embedding/vars/1"
        del file[name]
        file[name] = ids
    refused(preset, "must number 17 positions. Received: ")


def test_a_preset_without_weights(preset):
    (preset / "model.weights.h5").unlink()
    refused(preset, "must hold model.weights.h5", FileNotFoundError)
