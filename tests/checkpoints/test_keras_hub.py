"""KerasHub's presets: in parts, and pooled where KerasHub pools."""

import json
import re

import h5py
import numpy as np
import pytest
from safetensors.numpy import load_file

from helpers.format_files import write_keras_hub
from tf_clip import CLIPModel
from tf_clip.checkpoints import files
from tf_clip.checkpoints.errors import CheckpointError
from tf_clip.checkpoints.source import read_checkpoint


@pytest.fixture
def tensors(tmp_path, tiny_model):
    tiny_model.save_pretrained(tmp_path / "source")
    return load_file(tmp_path / "source" / "model.safetensors")


@pytest.fixture
def preset(tmp_path, tensors, tiny_config):
    folder = tmp_path / "preset"
    folder.mkdir()
    write_keras_hub(folder, tensors, tiny_config)
    return folder


@pytest.fixture
def parts(preset):
    """The preset as KerasHub writes one above its limit: the index has a list of files, or one, for each layer."""
    arrays = {}
    with h5py.File(preset / "model.weights.h5") as file:
        file.visititems(lambda name, part: arrays.update({name: part[()]} if isinstance(part, h5py.Dataset) else {}))
    (preset / "model.weights.h5").unlink()
    weight_map = {}
    for number, names in enumerate(np.array_split(sorted(arrays), 3)):
        part = f"model_{number:05d}.weights.h5"
        with h5py.File(preset / part, "w") as file:
            file.create_group("vars")
            for name in names:
                file[str(name)] = arrays[str(name)]
                weight_map.setdefault("/" + str(name).rpartition("/")[0], []).append(part)
    weight_map = {name: value if number % 2 else value[-1] for number, (name, value) in enumerate(weight_map.items())}
    (preset / "model.weights.json").write_text(json.dumps({"metadata": {"total_size": 1.0}, "weight_map": weight_map}))
    return preset


def test_a_preset_in_parts(parts, tensors):
    loaded = read_checkpoint(parts).tensors
    assert loaded.keys() == tensors.keys()
    for name, tensor in loaded.items():
        np.testing.assert_array_equal(tensor.load(), tensors[name])
    CLIPModel.from_pretrained(parts)


def test_a_preset_in_parts_is_downloaded_whole(parts):
    present = [path.name for path in parts.iterdir()]
    assert sorted(files.needed(present, {})) == sorted(present)


@pytest.mark.parametrize("name", ["../model_00000.weights.h5", "/model.weights.h5", "a\\b.weights.h5"])
def test_an_index_that_names_a_file_elsewhere(parts, name):
    (parts / "model.weights.json").write_text(json.dumps({"weight_map": {"/vars": [name]}}))
    with pytest.raises(CheckpointError, match=f"must name files beside it. Received: {re.escape(repr(name))}"):
        read_checkpoint(parts)


@pytest.mark.parametrize("index", [{}, {"weight_map": []}, {"weight_map": {"/vars": []}}, {"weight_map": {"/a": 5}}])
def test_an_index_without_a_map(parts, index):
    (parts / "model.weights.json").write_text(json.dumps(index))
    with pytest.raises(CheckpointError, match="must have a `weight_map`"):
        read_checkpoint(parts)


def test_an_index_that_names_a_missing_part(parts):
    (parts / "model_00001.weights.h5").unlink()
    with pytest.raises(FileNotFoundError, match="names model_00001.weights.h5, which is missing. Download all parts"):
        read_checkpoint(parts)


def test_texts_are_pooled_at_their_highest_id(preset, tensors, tiny_config):
    # Their end token is not the last row of the table, as where a table is padded to a round size.
    end = tiny_config.text_config.vocab_size - 5
    ids = np.array([[3, 4, end, 1, 1], [3, end, 1, 1, 1]], "int32")
    model = CLIPModel.from_pretrained(preset)
    states = np.asarray(model.text_encoder(ids).last_hidden_state)
    expected = states[[0, 1], [2, 1]] @ tensors["text_projection.weight"].T
    np.testing.assert_allclose(np.asarray(model.get_text_features(ids)), expected, atol=1e-5)
