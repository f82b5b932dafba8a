"""Folders with adapters: what is in them, what is read, and what is refused."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from helpers.adapted import METHODS, add, make
from tf_clip.adapters.composition import Fuse, Stack
from tf_clip.checkpoints.errors import CheckpointError


@pytest.fixture
def case(tiny_config, tiny_inputs):
    return make("CLIPModel", tiny_config, tiny_inputs)


def test_names_are_adapter_hubs(case, tmp_path):
    add(case.model, "mine", "lora[r=3]|seq_bn_inv[reduction_factor=4]|prefix_tuning[prefix_length=2,bottleneck_size=5]")
    case.model.save_adapter(tmp_path, "mine")
    tensors = load_file(tmp_path / "adapter.safetensors")
    for name, shape in {
        "text_model.encoder.layers.0.self_attn.q_proj.loras.mine.lora_A": (3, 24),
        "text_model.encoder.layers.1.self_attn.v_proj.loras.mine.lora_B": (24, 3),
        "vision_model.encoder.layers.2.output_adapters.adapters.mine.adapter_down.0.weight": (8, 32),
        "vision_model.encoder.layers.2.output_adapters.adapters.mine.adapter_up.bias": (32,),
        "text_model.invertible_adapters.mine.F.0.weight": (6, 12),
        "prefix_tuning.prefix_tunings.mine.clip_text_model_self_prefix.control_trans.2.weight": (96, 5),
        "prefix_tuning.prefix_tunings.mine.clip_vision_model_self_prefix.wte.weight": (2, 32),
    }.items():
        assert tensors[name].shape == shape
    content = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (
        content["name"] == "mine" and content["model_type"] == "clip" and content["config"]["architecture"] == "union"
    )
    assert content["version"].startswith("adapters.")
    assert content["config"]["configs"][1]["cross_adapter"] is False


def test_what_adapter_hub_does_not_know_is_kept_for_us(case, tmp_path):
    add(case.model, "a", "direft")
    add(case.model, "b", "lora[r=4,alpha=6,use_rslora=True]", 2)
    for name in ("a", "b"):
        case.model.save_adapter(tmp_path / name, name)
    content = json.loads((tmp_path / "b" / "adapter_config.json").read_text())
    assert content["config"]["alpha"] / content["config"]["r"] == 3 and "use_rslora" not in content["config"]
    for name in ("a", "b"):
        again = case.model.load_adapter(tmp_path / name, load_as=f"{name}2")
        assert case.model.adapters.state.configs[again] == case.model.adapters.state.configs[name]


def test_files_of_before_1_1_ignored_alpha(case, tmp_path):
    add(case.model, "a", "lora[r=4,alpha=8]")
    case.model.save_adapter(tmp_path, "a")
    path = tmp_path / "adapter_config.json"
    content = json.loads(path.read_text())
    del content["tf_clip"]
    path.write_text(json.dumps({**content, "version": "adapters.1.0.1"}))
    case.model.load_adapter(tmp_path, load_as="old")
    assert case.model.adapters.state.configs["old"].factor == 1


def test_all_of_them_and_compositions(case, tmp_path):
    for seed, name in enumerate(("a", "b")):
        add(case.model, name, METHODS["seq_bn"], seed)
    case.model.adapters.add_adapter_fusion(["a", "b"])
    case.model.active_adapters = Fuse("a", "b")
    expected = case.run()
    case.model.adapters.save_all_adapters(tmp_path / "all")
    assert {path.name for path in (tmp_path / "all").iterdir()} == {"a", "b"}
    case.model.adapters.save_adapter_setup(tmp_path / "setup")
    for name in ("a", "b"):
        case.model.delete_adapter(name)
    assert not case.model.adapters.state.fusions
    assert case.model.adapters.load_adapter_setup(tmp_path / "setup", set_active=True) == Fuse("a", "b")
    np.testing.assert_allclose(case.run(), expected, atol=1e-5)
    case.model.adapters.save_adapter_fusion(tmp_path / "fusion", ["a", "b"])
    case.model.adapters.delete_adapter_fusion(["a", "b"])
    assert case.model.adapters.load_adapter_fusion(tmp_path / "fusion", set_active=True) == "a,b"
    np.testing.assert_allclose(case.run(), expected, atol=1e-5)
    case.model.active_adapters = None
    with pytest.raises(ValueError, match="`setup` must name adapters"):
        case.model.adapters.save_adapter_setup(tmp_path / "none")


def test_more_layers_can_be_left_out(case, tmp_path):
    add(case.model, "a", "lora")
    case.model.save_adapter(tmp_path, "a")
    case.model.load_adapter(tmp_path, load_as="b", leave_out=[1, 3])
    assert set(case.model.adapters.get_adapter("b")) == {0, 2, 4}


def test_a_text_towers_adapter_goes_into_the_whole_model(tiny_config, tiny_inputs, case, tmp_path):
    tower = make("CLIPTextModel", tiny_config, tiny_inputs)
    add(tower.model, "a", "seq_bn[reduction_factor=4]")
    tower.model.save_adapter(tmp_path, "a")
    with pytest.raises(CheckpointError, match="missing vision_model"):
        case.model.load_adapter(tmp_path)
    assert not case.model.adapters.state.configs
    case.model.load_adapter(tmp_path, leave_out=[2, 3, 4], set_active=True)
    assert case.model.active_adapters == Stack("a")


@pytest.mark.parametrize("change", ["missing", "left over", "of shape"])
def test_weights_that_do_not_fit(case, tmp_path, change):
    add(case.model, "a", "lora")
    case.model.save_adapter(tmp_path, "a")
    file = tmp_path / "adapter.safetensors"
    tensors = load_file(file)
    first = next(iter(tensors))
    if change == "missing":
        del tensors[first]
    elif change == "left over":
        tensors["another"] = tensors[first]
    else:
        tensors[first] = np.zeros((1, 2), "float32")
    save_file(tensors, file)
    with pytest.raises(CheckpointError, match=change):
        case.model.load_adapter(tmp_path, load_as="b")
    case.model.active_adapters = "a"
    with pytest.raises(CheckpointError, match=change):
        case.model.load_adapter(tmp_path, overwrite_ok=True)
    assert list(case.model.adapters.state.configs) == ["a"]
    assert case.model.active_adapters == Stack("a")


def test_folders_without_an_adapter(case, tmp_path):
    with pytest.raises(FileNotFoundError, match="adapter_config.json"):
        case.model.load_adapter(tmp_path)
    add(case.model, "a", "lora")
    case.model.save_adapter(tmp_path, "a")
    (tmp_path / "adapter.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"adapter.safetensors or pytorch_adapter.bin"):
        case.model.load_adapter(tmp_path, load_as="b")
    (tmp_path / "adapter_config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="must hold a JSON object"):
        case.model.load_adapter(tmp_path, load_as="b")
    with pytest.raises(ValueError, match="`layout` must be one of"):
        case.model.save_adapter(tmp_path, "a", layout="npz")


@pytest.mark.parametrize("config", ["lora[r=3,alpha=6]", "lora[r=4,use_rslora=True,leave_out=[0,3]]", "dora[r=2]",
                                    "lora[attn_matrices=['o'],intermediate_lora=True]"])  # fmt: skip
def test_pefts_layout(case, tmp_path, config):
    add(case.model, "a", config, set_active=True)
    expected = case.run()
    case.model.save_adapter(tmp_path, "a", layout="peft")
    name = case.model.load_adapter(tmp_path, set_active=True)
    assert name == "default"
    assert case.model.adapters.state.configs[name] == case.model.adapters.state.configs["a"]
    np.testing.assert_allclose(case.run(), expected, atol=1e-5)


def test_pefts_files_that_are_not_read(case, tmp_path):
    add(case.model, "a", "lora")
    case.model.save_adapter(tmp_path, "a", layout="peft")
    path = tmp_path / "adapter_config.json"
    content = json.loads(path.read_text())
    for field, value in (("peft_type", "IA3"), ("rank_pattern", {"q_proj": 3}), ("bias", "all")):
        path.write_text(json.dumps({**content, field: value}))
        with pytest.raises(ValueError, match=f"`{field}` must be"):
            case.model.load_adapter(tmp_path)
    path.write_text(json.dumps(content))
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    save_file({**tensors, "base_model.model.visual_projection.lora_A.weight": np.zeros((8, 32), "float32")},
              tmp_path / "adapter_model.safetensors")  # fmt: skip
    with pytest.raises(CheckpointError, match="must hold LoRAs of a CLIP's layers"):
        case.model.load_adapter(tmp_path)
    add(case.model, "b", "ia3")
    with pytest.raises(ValueError, match="no LoRA or DoRA of PEFT's"):
        case.model.save_adapter(tmp_path, "b", layout="peft")
