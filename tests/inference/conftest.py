"""Models whose every weight matters: fresh ones have norms that do nothing and biases of zero."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from helpers.adapted import disturb
from tf_clip import CLIPConfig, CLIPModel, CLIPResNetConfig, CLIPTextConfig


@pytest.fixture(autouse=True)
def seeded():
    """Leaves TensorFlow's seed alone: setting it makes each traced function start anew."""


@pytest.fixture(scope="session")
def make_model(tiny_config):
    """Makes a small model with an activation, its weights all away from what they begin as."""

    def make(hidden_act="quick_gelu", **text):
        config = CLIPConfig(
            text_config=dataclasses.replace(tiny_config.text_config, hidden_act=hidden_act, **text),
            vision_config=dataclasses.replace(tiny_config.vision_config, hidden_act=hidden_act),
            projection_dim=tiny_config.projection_dim,
        )
        model = CLIPModel(config)
        # Not the temperature, by which logits would grow.
        disturb([variable for variable in model.weights if variable.shape], 0.2, seed=3)
        return model

    return make


@pytest.fixture(scope="session")
def small_model(make_model):
    return make_model()


@pytest.fixture(scope="session")
def resnet_model():
    """A model whose image tower is a ResNet."""
    tower = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = CLIPTextConfig(**tower, vocab_size=514, bos_token_id=512, eos_token_id=513)
    vision = CLIPResNetConfig(depths=(1, 1, 1, 1), embedding_size=4, num_attention_heads=4, image_size=32)
    return CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=12))


@pytest.fixture(scope="session")
def images():
    """Pixels as bytes, of the small model's size."""
    return np.random.default_rng(1).integers(0, 256, (5, 20, 20, 3), dtype=np.uint8)


@pytest.fixture(scope="session")
def captions():
    """Texts that begin alike, of several lengths, one twice; what follows their ends is noise."""
    input_ids = np.random.default_rng(2).integers(0, 4, (7, 12)).astype("int32")
    input_ids[:, 0] = 512
    input_ids[1:4, 1:3] = (7, 8)
    input_ids[np.arange(7), [8, 5, 5, 3, 2, 1, 7]] = 513
    input_ids[6] = input_ids[0]
    return input_ids
