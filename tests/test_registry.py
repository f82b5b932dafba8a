"""The table of published checkpoints: complete entries, valid configurations, search."""

import pytest

from tf_clip import known_models
from tf_clip.registry import ARCHITECTURES


@pytest.mark.parametrize("model", known_models(), ids=lambda model: model.hub_id)
def test_every_entry_is_whole(model):
    assert model.hub_id.count("/") == 1
    assert model.layout in ("huggingface", "openclip")
    assert model.licence and model.trained_on and model.publisher
    assert model.config.text_config.hidden_act == model.hidden_act
    assert str(model.config.vision_config.image_size) in model.hub_id or model.architecture not in ("ViT-H/14-378",)


def test_names_are_unique_and_every_architecture_is_used():
    models = known_models()
    assert len({model.hub_id for model in models}) == len(models)
    assert {model.architecture for model in models} == set(ARCHITECTURES)


def test_openais_nine_are_there():
    assert len(known_models("OpenAI")) == 9


def test_search_is_by_any_name():
    assert {model.publisher for model in known_models("metaclip")} == {"Meta"}
    assert {model.architecture for model in known_models("bigG")} == {"ViT-bigG/14"}
    assert known_models("no such thing") == []
