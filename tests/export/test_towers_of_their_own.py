"""Towers that this package does not know are exported as Keras computes them: a subclass, a family of Keras layers."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import keras
import numpy as np
import pytest
from keras import ops

import tf_clip
from helpers.served_models import encoded, signatures_of
from tf_clip.export import LiteRTModel
from tf_clip.export.text_inputs import text_inputs_of
from tf_clip.export.tflite.runtime import LiteRTFile
from tf_clip.export.weights import StoredWeights
from tf_clip.families import family as families
from tf_clip.families.config import TowerConfig, TwoTowerConfig
from tf_clip.models.two_towers import TwoTowerModel

pytestmark = pytest.mark.slow

TEXTS = ["an owl", "a red bus and a", "", "é"]
LABELS = ["owl", "bus", "rocket"]
LONGEST = 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToyTextConfig(TowerConfig):
    model_type: ClassVar[str] = "toy_text"
    part: ClassVar[str] = "text_config"
    vocab_size: int = 514
    max_position_embeddings: int = LONGEST
    projection_dim: int = 12


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToyImageConfig(TowerConfig):
    model_type: ClassVar[str] = "toy_image"
    part: ClassVar[str] = "vision_config"
    image_size: int = 20
    projection_dim: int = 12


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToyConfig(TwoTowerConfig):
    model_type: ClassVar[str] = "toy"
    text_config_class: ClassVar[type[TowerConfig]] = ToyTextConfig
    vision_config_class: ClassVar[type[TowerConfig]] = ToyImageConfig
    projection_dim: int = 12
    logit_bias_init_value: float | None = -2.0


class ToyTower(keras.Model):
    init_options = call_options = ()

    def __init__(self, config, projection_dim=12, **kwargs):
        super().__init__(**kwargs)
        self.config, self.projection_dim = config, projection_dim


class ToyTextTower(ToyTower):
    """Every token reads every other one that is none of the padding, and the last place stands for the text."""

    def __init__(self, config, **kwargs):
        super().__init__(config, **kwargs)
        self.table = keras.layers.Embedding(config.vocab_size, 8)
        self.attention = keras.layers.MultiHeadAttention(2, 5)
        self.head = keras.layers.Dense(self.projection_dim)
        self(np.zeros((1, LONGEST), "int32"))

    def call(self, input_ids, attention_mask=None, position_ids=None, adapter_ids=None, training=None):
        x = self.table(input_ids)
        mask = None if attention_mask is None else ops.cast(attention_mask, "bool")[:, None, :]
        x = x + self.attention(x, x, attention_mask=mask)
        return {"text_embeds": self.head(x[:, -1])}


class ToyImageTower(ToyTower):
    def __init__(self, config, **kwargs):
        super().__init__(config, **kwargs)
        self.patches = keras.layers.Conv2D(6, 5, strides=5, activation="relu")
        self.pool = keras.layers.GlobalAveragePooling2D()
        self.head = keras.layers.Dense(self.projection_dim)
        self(np.zeros((1, 20, 20, 3), "float32"))

    def call(self, pixel_values, training=None):
        return {"image_embeds": self.head(self.pool(self.patches(pixel_values)))}


FAMILY = families.Family(
    name="Toy",
    config=ToyConfig,
    text_config=ToyTextConfig,
    image_config=ToyImageConfig,
    text_tower=f"{__name__}:ToyTextTower",
    image_tower=f"{__name__}:ToyImageTower",
    padding="max_length",
    text_is_causal=False,
    pooling="last",
    scores="sigmoid",
)


@pytest.fixture(scope="module")
def toy(tiny_processor):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(families, "_registered", [FAMILY])
        model = TwoTowerModel(ToyConfig())
        model.logit_scale.assign(1.0)
        yield model, tiny_processor


class MeanPooled(tf_clip.CLIPTextEncoder):
    """Pools all of a text, which its family's towers never do."""

    def call(self, input_ids, attention_mask=None, **options):
        output = super().call(input_ids, attention_mask=attention_mask, **options)
        weights = ops.cast(attention_mask, "float32")[..., None]
        mean = ops.sum(output.last_hidden_state * weights, axis=1) / ops.sum(weights, axis=1)
        output["text_embeds"] = self.projection(mean)
        return output


@pytest.fixture(scope="module")
def pooled_by_mask(tiny_config, tiny_processor):
    """A model whose text tower is a subclass."""
    model = tf_clip.CLIPModel(tiny_config)
    model.text_encoder.__class__ = MeanPooled
    return model, tiny_processor


def unit(rows):
    rows = np.asarray(rows)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def tokens_of(processor, padding):
    return processor.tokenizer(TEXTS, padding=padding, max_length=LONGEST, return_tensors="np")


def test_a_saved_model_of_a_family_of_keras_layers(toy, tmp_path):
    model, processor = toy
    served = signatures_of(tf_clip.export.saved_model(model, processor, tmp_path, labels=LABELS))
    tokens = tokens_of(processor, "max_length")
    files = [encoded(shape=(20, 20, 3), seed=seed) for seed in range(2)]
    texts = unit(model.text_encoder(**tokens)["text_embeds"])
    images = unit(model.image_encoder(processor(images=files)["pixel_values"])["image_embeds"])
    np.testing.assert_allclose(served["encode_text"](text=TEXTS)["text_embeds"], texts, atol=1e-5)
    # A short text alone is as long as any.
    np.testing.assert_allclose(served["encode_text"](text=TEXTS[:1])["text_embeds"], texts[:1], atol=1e-5)
    np.testing.assert_allclose(served["encode_tokens"](**tokens)["text_embeds"], texts, atol=1e-5)
    logits = np.exp(1.0) * images @ texts.T - 2.0
    found = served["similarity"](image_bytes=files, text=TEXTS)
    np.testing.assert_allclose(found["logits_per_image"], logits, atol=1e-5)
    np.testing.assert_allclose(found["probabilities"], 1 / (1 + np.exp(-logits)), atol=1e-5)
    classes = tf_clip.class_embeddings(model, processor, LABELS)
    wanted = 1 / (1 + np.exp(2.0 - np.exp(1.0) * images @ classes.T))
    np.testing.assert_allclose(served["classify"](image_bytes=files)["probabilities"], wanted, atol=1e-5)


@pytest.mark.parametrize("quantization", ["float32", "dynamic_int8"])
def test_files_of_a_family_of_keras_layers(toy, tmp_path, quantization):
    model, processor = toy
    options = {"labels": LABELS, "quantization": quantization}
    files = tf_clip.export.litert(model, processor, tmp_path, **options)
    atol = 1e-5 if quantization == "float32" else 0.1
    runtime = LiteRTModel(tmp_path)
    texts = unit(model.text_encoder(**tokens_of(processor, "max_length"))["text_embeds"])
    np.testing.assert_allclose(runtime.encode_texts(TEXTS), texts, atol=atol)
    ids = processor.tokenizer(TEXTS, padding=False, max_length=LONGEST, return_tensors=None)["input_ids"]
    np.testing.assert_allclose(runtime.encode_ids(ids), texts, atol=atol)
    pixels = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    images = unit(model.image_encoder(processor(images=pixels)["pixel_values"])["image_embeds"])
    np.testing.assert_allclose(runtime.encode_images([pixels]), images, atol=atol)
    wanted = 1 / (1 + np.exp(2.0 - np.exp(1.0) * images @ tf_clip.class_embeddings(model, processor, LABELS).T))
    found = LiteRTFile(files["classify"])("classify_pixels", image_pixels=pixels[np.newaxis])
    np.testing.assert_allclose(found["probabilities"], wanted, atol=atol)


def test_a_length_that_the_family_does_not_read_is_refused(toy, tmp_path):
    with pytest.raises(ValueError, match="`text_lengths` must be left out for a model that reads every text at 16"):
        tf_clip.export.litert(*toy, tmp_path / "mobile", parts=["text"], text_lengths=[8])


def test_a_subclassed_tower_is_exported_as_its_own_call_computes(pooled_by_mask, tmp_path):
    model, processor = pooled_by_mask
    tokens = tokens_of(processor, "longest")
    wanted = unit(model.get_text_features(**tokens))
    served = signatures_of(tf_clip.export.saved_model(model, processor, tmp_path / "served"))
    np.testing.assert_allclose(served["encode_text"](text=TEXTS)["text_embeds"], wanted, atol=1e-5)
    np.testing.assert_allclose(served["encode_tokens"](**tokens)["text_embeds"], wanted, atol=1e-5)
    # Without labels there are no classes, and images are encoded.
    assert "classify" not in served
    assert set(served["serving_default"](image_bytes=np.zeros(0, "S1"))) == {"image_embeds", "status"}
    options = {"parts": ["text"], "text_lengths": [], "quantization": "float16"}
    tf_clip.export.litert(model, processor, tmp_path / "mobile", **options)
    ids = processor.tokenizer(TEXTS, padding=False, max_length=LONGEST, return_tensors=None)["input_ids"]
    np.testing.assert_allclose(LiteRTModel(tmp_path / "mobile").encode_ids(ids), wanted, atol=1e-2)


def test_a_subclassed_tower_that_is_not_made_again_is_refused(tiny_config):
    model = tf_clip.CLIPModel(tiny_config, dtype="mixed_bfloat16")
    model.text_encoder.__class__ = MeanPooled
    with pytest.raises(ValueError, match="`model` must be made again in float32 by from_config"):
        StoredWeights(model, "float32")


def test_a_tower_that_passes_on_whatever_it_is_given_is_told_what_is_padding(tiny_config, tiny_processor):
    class PassesOn(tf_clip.CLIPTextEncoder):
        def call(self, *args, **kwargs):
            return super().call(*args, **kwargs)

    model = tf_clip.CLIPModel(tiny_config)
    assert not text_inputs_of(model, tiny_processor).takes_mask
    model.text_encoder.__class__ = PassesOn
    assert text_inputs_of(model, tiny_processor).takes_mask
