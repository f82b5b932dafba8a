"""One contract for all models: configuration, saving, functional use, precision, the documented outputs."""

import json

import keras
import numpy as np
import pytest

import tf_clip
from helpers.arrays import array, assert_close, assert_same
from tf_clip import CLIPConfig, CLIPResNetConfig

pytestmark = pytest.mark.backends

RESNET = {"model_type": "clip_resnet_model", "depths": [1, 2, 1, 1], "embedding_size": 8, "num_attention_heads": 4}
RESNET = {**RESNET, "image_size": 64}
# From the class to what it reads, and the part of the joint configuration that it takes.
MODELS = {
    "CLIPModel": (("input_ids", "attention_mask", "pixel_values"), None),
    "CLIPTextModel": (("input_ids", "attention_mask"), "text_config"),
    "CLIPTextEncoder": (("input_ids", "attention_mask"), "text_config"),
    "CLIPVisionModel": (("pixel_values",), "vision_config"),
    "CLIPImageEncoder": (("pixel_values",), "vision_config"),
    "CLIPForImageClassification": (("pixel_values",), None),
    "CLIPResNetImageEncoder": (("pixel_values",), "vision_config"),
    "CLIPModel with a ResNet": (("input_ids", "attention_mask", "pixel_values"), None),
}


class Case:
    """A class, a configuration for it, and inputs."""

    def __init__(self, name, tiny_config, tiny_inputs):
        names, part = MODELS[name]
        self.cls = getattr(tf_clip, name.split()[0])
        self.inputs = {name: tiny_inputs[name] for name in names}
        config = tiny_config
        if "ResNet" in name:
            config = CLIPConfig.from_dict({**tiny_config.to_dict(), "vision_config": RESNET})
            self.inputs["pixel_values"] = np.random.default_rng(0).normal(size=(2, 64, 64, 3)).astype("float32")
        self.config = getattr(config, part) if part else config

    def model(self, **kwargs):
        return self.cls(self.config, **kwargs)

    def output(self, model):
        """Every tensor that the model returns, by its place."""
        return {"/".join(map(str, path)): value for path, value in leaves(model(**self.inputs))}


def leaves(output, path=()):
    for name, value in output.items():
        if isinstance(value, dict):
            yield from leaves(value, (*path, name))
        else:
            yield (*path, name), value


@pytest.fixture(params=MODELS)
def case(request, tiny_config, tiny_inputs):
    return Case(request.param, tiny_config, tiny_inputs)


def equal_outputs(case, ours, theirs, compare=assert_same, **tolerances):
    ours, theirs = case.output(ours), case.output(theirs)
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        compare(value, theirs[name], **tolerances)


def test_a_config_makes_the_model(case):
    assert case.cls.from_config(case.config).config == case.config
    assert case.cls(case.config.to_dict()).config == case.config
    with pytest.raises(TypeError, match="`config` must be a "):
        case.cls("openai/clip-vit-base-patch32")


def test_get_config_makes_it_again(case):
    model = case.model()
    described = json.loads(json.dumps(model.get_config(), default=keras.saving.serialize_keras_object))
    assert "config" in described
    again = case.cls.from_config(model.get_config())
    assert [(v.path, v.shape) for v in again.weights] == [(v.path, v.shape) for v in model.weights]
    assert again.get_config() == model.get_config()


def test_hugging_face_files_hold_everything(case, tmp_path):
    model = case.model()
    model.save_pretrained(tmp_path)
    again = case.cls.from_pretrained(tmp_path)
    assert again.config.to_dict() == json.loads((tmp_path / "config.json").read_text())
    equal_outputs(case, again, model)


@pytest.mark.slow
def test_so_do_several_small_files(case, tmp_path):
    model = case.model()
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) == len(list(tmp_path.glob("*.safetensors"))) > 2
    assert index["metadata"]["total_size"] == sum(4 * int(np.prod(v.shape)) for v in model.weights)
    equal_outputs(case, case.cls.from_pretrained(tmp_path), model)


@pytest.mark.slow
def test_keras_files_hold_everything(case, tmp_path):
    model = case.model()
    model.save(tmp_path / "model.keras")
    equal_outputs(case, keras.saving.load_model(tmp_path / "model.keras"), model)
    model.save_weights(tmp_path / "model.weights.h5")
    again = case.model()
    again.load_weights(tmp_path / "model.weights.h5")
    equal_outputs(case, again, model)


@pytest.mark.slow
def test_it_is_a_layer_of_functional_models(case, tmp_path):
    model = case.model()
    inputs = {
        name: keras.Input(value.shape[1:], dtype=str(value.dtype), name=name) for name, value in case.inputs.items()
    }
    is_joint = case.cls is tf_clip.CLIPModel
    output = model(inputs) if is_joint else model(**inputs)
    names = [name for name in ("text_embeds", "image_embeds", "pooler_output", "logits") if name in output]
    functional = keras.Model(inputs, {name: output[name] for name in names})
    functional.save(tmp_path / "model.keras")
    expected = model(**case.inputs)
    for whole in (functional, keras.saving.load_model(tmp_path / "model.keras")):
        for name, value in whole(case.inputs).items():
            assert_close(value, expected[name], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", "bfloat16", "float16"])
def test_half_precision_runs_and_stays_close(case, policy):
    full, half = case.model(), case.model(dtype=policy)
    half.set_weights([array(value) for value in full.get_weights()])
    for name, value in case.output(half).items():
        assert keras.backend.standardize_dtype(value.dtype) == policy.removeprefix("mixed_")
        reach = 1.0 + np.abs(array(case.output(full)[name])).max()
        assert np.abs(array(value) - array(case.output(full)[name])).max() < 0.05 * reach, name


def test_right_sizes_are_asked_for(case):
    if "pixel_values" not in case.inputs:
        pytest.skip("reads no images")
    wrong = {**case.inputs, "pixel_values": np.zeros((2, 15, 15, 3), "float32")}
    with pytest.raises(ValueError, match="`pixel_values` must have shape"):
        case.model()(**wrong)


def test_aliases_are_the_classes():
    for alias, name in {
        "CLIPTextModelWithProjection": "CLIPTextEncoder",
        "CLIPVisionModelWithProjection": "CLIPImageEncoder",
        "CLIPImageConfig": "CLIPVisionConfig",
        "CLIPEncoder": "CLIPModel",
        "CLIPFeatureExtractor": "CLIPFeatureExtractorTF",
    }.items():
        assert getattr(tf_clip, alias) is getattr(tf_clip, name)


def test_a_resnet_has_no_attentions_and_one_size(tiny_config, tiny_inputs):
    case = Case("CLIPModel with a ResNet", tiny_config, tiny_inputs)
    assert isinstance(case.config.vision_config, CLIPResNetConfig)
    for option in ("output_attentions", "interpolate_pos_encoding"):
        with pytest.raises(ValueError, match=f"`{option}` must be left out: the image tower, a CLIPResNet"):
            case.model()(**case.inputs, **{option: True})
    states = case.model()(**case.inputs, output_hidden_states=True).vision_model_output.hidden_states
    assert [state.shape[1:] for state in states] == [(16, 16, 8), (16, 16, 32), (8, 8, 64), (4, 4, 128), (2, 2, 256)]


def test_the_other_image_tower_is_named(tiny_config, tmp_path):
    tf_clip.CLIPResNetImageEncoder(RESNET).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="describes the other kind of image tower"):
        tf_clip.CLIPImageEncoder.from_pretrained(tmp_path)


def test_towers_come_out_of_a_joint_checkpoint(tiny_config, tiny_inputs, tmp_path):
    joint = tf_clip.CLIPModel(tiny_config)
    joint.save_pretrained(tmp_path)
    text = tf_clip.CLIPTextModel.from_pretrained(tmp_path)
    image = tf_clip.CLIPVisionModel.from_pretrained(tmp_path)
    whole = joint(**tiny_inputs)
    texts = {name: tiny_inputs[name] for name in ("input_ids", "attention_mask")}
    assert_same(text(**texts).pooler_output, whole.text_model_output.pooler_output)
    assert_same(image(tiny_inputs["pixel_values"]).pooler_output, whole.vision_model_output.pooler_output)
    with pytest.raises(ValueError, match="`projection_dim` must be None for CLIPTextModel"):
        tf_clip.CLIPTextModel(tiny_config.text_config, projection_dim=3)
