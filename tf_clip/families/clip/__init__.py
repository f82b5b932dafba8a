"""CLIP with a vision transformer, as OpenAI, OpenCLIP and Hugging Face publish it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from tf_clip.families.clip import openclip
from tf_clip.families.clip.config import CLIPConfig, CLIPTextConfig, CLIPVisionConfig
from tf_clip.families.clip.cost import COST
from tf_clip.families.clip.layouts import LAYOUTS
from tf_clip.families.clip.tensor_names import TENSOR_NAMES
from tf_clip.families.clip.text_ends import LEGACY_EOS_TOKEN_ID, TEXT_ENDS
from tf_clip.families.family import Family

_HERE = "tf_clip.families.clip"
_TEXT_TOWER = f"{_HERE}.text_tower:CLIPTextEncoder"
_IMAGE_TOWER = f"{_HERE}.image_tower:CLIPImageEncoder"


def _class_of(model_type: str, names: Collection[str]) -> str:
    if model_type == CLIPTextConfig.model_type:
        return _TEXT_TOWER if "text_projection.weight" in names else f"{_HERE}.text_tower:CLIPTextModel"
    if model_type == CLIPVisionConfig.model_type:
        return _IMAGE_TOWER if "visual_projection.weight" in names else f"{_HERE}.image_tower:CLIPVisionModel"
    if "classifier.weight" in names:
        return f"{_HERE}.image_classification:CLIPForImageClassification"
    return f"{_HERE}.model:CLIPModel"


def _published() -> tuple[Any, ...]:
    from tf_clip.families.clip.published import MODELS

    return MODELS


def _oddities(config: Mapping[str, Any]) -> list[str]:
    found = []
    if (config.get("text_config") or {}).get("eos_token_id") == LEGACY_EOS_TOKEN_ID:
        found.append("eos_token_id is 2, as in old files: texts are pooled at their highest id")
    if "text_config_dict" in config or "vision_config_dict" in config:
        found.append("text_config_dict or vision_config_dict, as in old files, win over text_config and vision_config")
    return found


FAMILY = Family(
    name="CLIP",
    config=CLIPConfig,
    text_config=CLIPTextConfig,
    image_config=CLIPVisionConfig,
    model=f"{_HERE}.model:CLIPModel",
    text_tower=_TEXT_TOWER,
    image_tower=_IMAGE_TOWER,
    processor=f"{_HERE}.processing:CLIPProcessor",
    class_of=_class_of,
    padding="longest",
    text_is_causal=True,
    pooling="end",
    text_ends=TEXT_ENDS,
    scores="softmax",
    rewritings={_TEXT_TOWER: "causal_text", _IMAGE_TOWER: "vision_transformer"},
    tensor_names=TENSOR_NAMES,
    layouts=LAYOUTS,
    write_openclip=openclip.write,
    cost=COST,
    published=_published,
    oddities=_oddities,
)
"""What CLIP is; see `Family`."""
