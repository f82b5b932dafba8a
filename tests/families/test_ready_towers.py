"""A model of ready towers: of other classes, of other families, and replaced."""

from __future__ import annotations

import warnings

import keras
import numpy as np
import pytest

from helpers.toy_family import ToyImageTower, ToyTextTower
from tf_clip import CLIPConfig, CLIPModel, CLIPTextEncoder
from tf_clip.models.load import load_model

TOWER = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 20}
CONFIG = CLIPConfig(
    text_config={**TOWER, "vocab_size": 514, "max_position_embeddings": 10, "eos_token_id": 513},
    vision_config={**TOWER, "image_size": 16, "patch_size": 4},
    projection_dim=6,
)


@keras.saving.register_keras_serializable(package="tests")
class FirstState(CLIPTextEncoder):
    """Pools the first state in place of the last."""

    def call(self, *args, **kwargs):
        output = super().call(*args, **kwargs)
        output["text_embeds"] = self.projection(output["last_hidden_state"][:, 0])
        return output


@pytest.fixture(scope="module")
def inputs():
    generator = np.random.default_rng(0)
    ids = generator.integers(0, 512, (3, 10)).astype("int32")
    ids[:, -1] = 513
    return {"input_ids": ids, "pixel_values": generator.normal(size=(2, 16, 16, 3)).astype("float32")}


def test_towers_of_different_families(inputs, tmp_path):
    model = CLIPModel(text_encoder=CLIPTextEncoder(CONFIG.text_config, projection_dim=6), image_encoder=ToyImageTower())
    assert (model.config.projection_dim, model.config.vision_config) == (6, ToyImageTower().config)
    logits = model(**inputs).logits_per_image
    model.save_pretrained(tmp_path)  # no warning: both families make these towers
    restored = load_model(tmp_path)
    assert type(restored.image_encoder) is ToyImageTower
    np.testing.assert_array_equal(restored(**inputs).logits_per_image, logits)


def test_one_ready_tower_beside_a_configuration():
    model = CLIPModel(CONFIG, image_encoder=ToyImageTower())
    assert type(model.text_encoder) is CLIPTextEncoder and type(model.image_encoder) is ToyImageTower


def test_a_tower_is_replaced_and_leaves_nothing_behind(inputs):
    model = CLIPModel(CONFIG)
    before = model(**inputs)
    others = sum(weight.path.startswith("image_encoder") for weight in model.weights)
    model.text_encoder = FirstState(CONFIG.text_config, projection_dim=6, name="text_encoder")
    after = model(**inputs)
    expected = model.text_encoder(inputs["input_ids"])["text_embeds"]
    np.testing.assert_allclose(after.text_embeds, expected / np.linalg.norm(expected, axis=1, keepdims=True), atol=1e-6)
    np.testing.assert_array_equal(after.image_embeds, before.image_embeds)
    model.image_encoder = ToyImageTower()
    assert len(model.weights) == len(CLIPModel(CONFIG).weights) - others + len(ToyImageTower().weights)
    model.compile("adam")
    assert np.isfinite(
        model.fit({**inputs, "pixel_values": inputs["pixel_values"][[0, 1, 0]]}, verbose=0).history["loss"]
    )


def test_a_subclassed_tower_is_saved_as_keras_has_it(inputs, tmp_path):
    model = CLIPModel(CONFIG, text_encoder=FirstState(CONFIG.text_config, projection_dim=6))
    logits = model(**inputs).logits_per_image
    model.save(tmp_path / "model.keras")
    restored = keras.models.load_model(tmp_path / "model.keras")
    assert type(restored.text_encoder) is FirstState
    np.testing.assert_array_equal(restored(**inputs).logits_per_image, logits)
    with pytest.warns(UserWarning, match="is a FirstState, of which the files .* hold the weights alone"):
        model.save_pretrained(tmp_path / "files")
    tower = FirstState(CONFIG.text_config, projection_dim=6)
    restored = CLIPModel.from_pretrained(tmp_path / "files", text_encoder=tower)
    np.testing.assert_array_equal(restored(**inputs).logits_per_image, logits)


@pytest.mark.parametrize(
    ("tower", "message"),
    [
        (lambda: object(), "`text_encoder` must be a Keras layer. Received: object"),
        (lambda: keras.layers.Dense(6), "whose `config` is a family's `text_config`. Received: config=None"),
        (ToyImageTower, "whose `config` is a family's `text_config`"),
        (lambda: ToyTextTower(projection_dim=7), "of a `projection_dim` of 6, .* Received: projection_dim=7"),
    ],
)
def test_what_does_not_fit_is_said_and_changes_nothing(tower, message):
    model = CLIPModel(CONFIG)
    old, count = model.text_encoder, len(model.weights)
    with pytest.raises(ValueError, match=message):
        model.text_encoder = tower()
    with pytest.raises(ValueError, match=message):
        CLIPModel(CONFIG, text_encoder=tower())
    assert model.text_encoder is old and len(model.weights) == count


def test_a_model_with_adapters_keeps_its_towers():
    model = CLIPModel(CONFIG)
    model.add_adapter("mine", "lora")
    with pytest.raises(ValueError, match="must be given before there are adapters. Received: .*mine"):
        model.text_encoder = CLIPTextEncoder(CONFIG.text_config, projection_dim=6)


def test_few_public_attributes():
    own = {name for name in set(dir(CLIPModel(CONFIG))) - set(dir(keras.Model())) if not name.startswith("_")}
    assert len(own) <= 25, sorted(own)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert own <= set(dir(CLIPModel(CONFIG)))
