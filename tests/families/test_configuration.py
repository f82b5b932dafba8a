"""Configurations: defaults, old spellings, and values that cannot be honored."""

import dataclasses
import json

import pytest

from tf_clip import CLIPConfig, CLIPResNetConfig, CLIPTextConfig, CLIPVisionConfig
from tf_clip.families.config import HIDDEN_ACTIVATIONS


def test_defaults_are_those_of_transformers():
    config = CLIPConfig()
    assert (config.projection_dim, config.logit_scale_init_value) == (512, 2.6592)
    text, vision = config.text_config, config.vision_config
    assert (text.vocab_size, text.hidden_size, text.intermediate_size, text.num_attention_heads) == (
        49408,
        512,
        2048,
        8,
    )
    assert (text.pad_token_id, text.bos_token_id, text.eos_token_id) == (1, 49406, 49407)
    assert (vision.hidden_size, vision.image_size, vision.patch_size, vision.num_patches) == (768, 224, 32, 49)
    assert text.layer_norm_eps == vision.layer_norm_eps == 1e-5


def test_round_trip_through_a_folder(tmp_path, tiny_config):
    tiny_config.save_pretrained(tmp_path)
    assert CLIPConfig.from_pretrained(tmp_path) == tiny_config
    assert CLIPTextConfig.from_pretrained(tmp_path) == tiny_config.text_config
    assert CLIPVisionConfig.from_pretrained(tmp_path) == tiny_config.vision_config


def test_unknown_fields_of_a_file_are_left_out():
    config = CLIPConfig.from_dict({"torch_dtype": "float32", "text_config": {"top_k": 50, "hidden_size": 64}})
    assert config.text_config.hidden_size == 64


def test_old_text_config_dict_wins_with_its_defaults():
    config = CLIPConfig.from_dict(
        {"text_config": {"hidden_size": 128, "vocab_size": 9}, "text_config_dict": {"hidden_size": 64}}
    )
    assert config.text_config == CLIPTextConfig(hidden_size=64)


def test_a_configuration_cannot_be_changed(tiny_config):
    with pytest.raises(dataclasses.FrozenInstanceError):
        tiny_config.projection_dim = 3


@pytest.mark.parametrize(
    ("tower", "values", "argument"),
    [
        (CLIPTextConfig, {"hidden_act": "mish"}, "hidden_act"),
        (CLIPVisionConfig, {"hidden_act": None}, "hidden_act"),
        (CLIPTextConfig, {"hidden_size": 30, "num_attention_heads": 8}, "hidden_size"),
        (CLIPTextConfig, {"num_hidden_layers": 0}, "num_hidden_layers"),
        (CLIPTextConfig, {"vocab_size": 10.5}, "vocab_size"),
        (CLIPTextConfig, {"eos_token_id": [1, 2]}, "eos_token_id"),
        (CLIPVisionConfig, {"image_size": [224, 224]}, "image_size"),
        (CLIPVisionConfig, {"patch_size": 225}, "patch_size"),
        (CLIPTextConfig, {"attention_dropout": 1.0}, "attention_dropout"),
        (CLIPTextConfig, {"layer_norm_eps": 0.0}, "layer_norm_eps"),
        (CLIPConfig, {"projection_dim": -1}, "projection_dim"),
    ],
)
def test_bad_values_are_named(tower, values, argument):
    with pytest.raises(ValueError, match=f"`{argument}` must be .* Received: {argument}="):
        tower(**values)


def test_a_tower_of_another_type_is_refused():
    with pytest.raises(TypeError, match="`text_config` must be a CLIPTextConfig"):
        CLIPConfig(text_config=CLIPVisionConfig())


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "must be valid JSON"), (json.dumps({"model_type": "siglip"}), "'siglip'")],
)
def test_a_broken_or_foreign_file_is_refused(tmp_path, content, message):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        CLIPConfig.from_pretrained(tmp_path)


def test_every_activation_has_a_function():
    from tf_clip.layers.transformer import ACTIVATIONS

    assert set(ACTIVATIONS) == set(HIDDEN_ACTIVATIONS)


def test_from_two_towers(tiny_config):
    text, vision = tiny_config.text_config, tiny_config.vision_config
    config = CLIPConfig.from_text_vision_configs(text, vision, projection_dim=28)
    assert config == tiny_config
    assert CLIPConfig.from_dict({"text_config": text, "vision_config": vision, "projection_dim": 28}) == tiny_config


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"text_config": [1]}, "`text_config` must be a dictionary of a tower's fields"),
        ({"id2label": {"0": "cat", "2": "dog"}}, "`id2label` must be numbered from 0 without gaps"),
        ({"problem_type": "ranking"}, "`problem_type` must be None or one of regression"),
        ({"vision_config": {"model_type": "clip_resnet_model", "image_size": 225}}, "`image_size` must be a multiple"),
        ({"vision_config": {"model_type": "clip_resnet_model", "depths": [3, 4, 6]}}, "`depths` must be four positive"),
        ({"vision_config": {"model_type": "clip_resnet_model", "num_attention_heads": 7}}, "must be a divisor of"),
    ],
)
def test_more_bad_values_are_named(values, message):
    with pytest.raises((TypeError, ValueError), match=message):
        CLIPConfig.from_dict(values)


def test_what_most_models_do_not_have_is_not_written(tiny_config):
    assert not {"id2label", "problem_type", "logit_bias_init_value"} & set(tiny_config.to_dict())
    named = CLIPConfig.from_dict({**tiny_config.to_dict(), "id2label": {"1": "dog", "0": "cat"}})
    assert named.to_dict()["id2label"] == {"0": "cat", "1": "dog"}
    assert named.to_dict()["label2id"] == {"cat": 0, "dog": 1}
    assert named.num_labels == 2


def test_a_resnet_comes_back_from_its_file(tmp_path):
    config = CLIPConfig(vision_config=CLIPResNetConfig(depths=(3, 4, 23, 3)))
    config.save_pretrained(tmp_path)
    assert CLIPConfig.from_pretrained(tmp_path) == config
    assert CLIPResNetConfig.from_pretrained(tmp_path) == config.vision_config
    with pytest.raises(ValueError, match="the other kind of image tower"):
        CLIPVisionConfig.from_pretrained(tmp_path)
