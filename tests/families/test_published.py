"""The table of published checkpoints: complete entries, valid configurations, search."""

import pytest

from tf_clip import known_models
from tf_clip.families.clip.published import ARCHITECTURES
from tf_clip.families.published import find


@pytest.mark.parametrize("model", known_models(), ids=lambda model: model.hub_id)
def test_every_entry_is_whole(model):
    assert model.hub_id.count("/") == 1
    assert model.layout in ("huggingface", "openclip")
    assert model.license and model.trained_on and model.publisher
    assert model.config.text_config.hidden_act in ("gelu", "quick_gelu")
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


def test_find_is_by_the_whole_id():
    assert find("OpenAI/clip-vit-base-patch32").architecture == "ViT-B/32"
    assert find("clip-vit-base-patch32") is None


def test_only_openais_models_have_a_file_with_a_digest():
    with_file = [model for model in known_models() if model.url]
    assert {model.publisher for model in with_file} == {"OpenAI"}
    assert len({model.sha256 for model in with_file}) == 9
    for model in with_file:
        assert len(bytes.fromhex(model.sha256)) == 32
        assert f"/{model.sha256}/" in model.url
    assert find("openai/clip-vit-large-patch14-336").url.endswith("/ViT-L-14-336px.pt")
