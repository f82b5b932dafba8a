"""The published CLIP checkpoints that tf_clip can load: what each is, where it lies, what it may be used for.

Nothing is downloaded here. The table was taken from OpenCLIP's list of pretrained models; licences are the
publishers'.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from tf_clip.configuration import CLIPConfig


@dataclasses.dataclass(frozen=True)
class KnownModel:
    """One published checkpoint.

    Args:
        hub_id: its repository on the Hugging Face Hub, which `from_pretrained` takes.
        architecture: a key of `ARCHITECTURES`.
        hidden_act: the activation it was trained with.
        layout: how its files are laid out, `"huggingface"` or `"openclip"`.
        trained_on: its training data.
        licence: its licence, by its usual short name.
        publisher: who trained it.
        pictures: how its pictures are prepared, where it is not as OpenAI's.
    """

    hub_id: str
    architecture: str
    hidden_act: str
    layout: str
    trained_on: str
    licence: str
    publisher: str
    pictures: str = ""

    @property
    def config(self) -> CLIPConfig:
        """The model's configuration."""
        text, vision, projection_dim = ARCHITECTURES[self.architecture]
        towers = {"text_config": {**text, "hidden_act": self.hidden_act}, "vision_config": dict(vision)}
        if "depths" not in vision:
            towers["vision_config"]["hidden_act"] = self.hidden_act
        return CLIPConfig.from_dict({**towers, "projection_dim": projection_dim})


def known_models(containing: str = "") -> list[KnownModel]:
    """Lists the known checkpoints, or those that have a word in their id, architecture, training data or publisher.

    Args:
        containing: the word, in any case; empty for all.
    """
    word = containing.lower()
    return [
        model
        for model in _MODELS
        if any(word in part.lower() for part in (model.hub_id, model.architecture, model.trained_on, model.publisher))
    ]


def _text(width: int, layers: int, heads: int) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
    }


def _vit(
    width: int, layers: int, patch_size: int, image_size: int = 224, heads: int = 0, mlp: int = 0
) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "intermediate_size": mlp or 4 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": heads or width // 64,
        "patch_size": patch_size,
        "image_size": image_size,
    }


def _resnet(depths: tuple[int, ...], width: int, image_size: int) -> dict[str, Any]:
    return {
        "model_type": "clip_resnet_model",
        "depths": depths,
        "embedding_size": width,
        "num_attention_heads": width // 2,
        "image_size": image_size,
    }


ARCHITECTURES: dict[str, tuple[dict[str, Any], dict[str, Any], int]] = {
    "RN50": (_text(512, 12, 8), _resnet((3, 4, 6, 3), 64, 224), 1024),
    "RN101": (_text(512, 12, 8), _resnet((3, 4, 23, 3), 64, 224), 512),
    "RN50x4": (_text(640, 12, 10), _resnet((4, 6, 10, 6), 80, 288), 640),
    "RN50x16": (_text(768, 12, 12), _resnet((6, 8, 18, 8), 96, 384), 768),
    "RN50x64": (_text(1024, 12, 16), _resnet((3, 15, 36, 10), 128, 448), 1024),
    "ViT-B/32": (_text(512, 12, 8), _vit(768, 12, 32), 512),
    "ViT-B/32-256": (_text(512, 12, 8), _vit(768, 12, 32, 256), 512),
    "ViT-B/16": (_text(512, 12, 8), _vit(768, 12, 16), 512),
    "ViT-L/14": (_text(768, 12, 12), _vit(1024, 24, 14), 768),
    "ViT-L/14-336": (_text(768, 12, 12), _vit(1024, 24, 14, 336), 768),
    "ViT-H/14": (_text(1024, 24, 16), _vit(1280, 32, 14, heads=16), 1024),
    "ViT-H/14-378": (_text(1024, 24, 16), _vit(1280, 32, 14, 378, heads=16), 1024),
    "ViT-g/14": (_text(1024, 24, 16), _vit(1408, 40, 14, heads=16, mlp=6144), 1024),
    "ViT-bigG/14": (_text(1280, 32, 20), _vit(1664, 48, 14, heads=16, mlp=8192), 1280),
}
"""From an architecture's name to its text tower, its image tower and the width of the joint space."""


def _openai(hub_id: str, architecture: str) -> KnownModel:
    layout = "huggingface" if hub_id.startswith("openai/") else "openclip"
    return KnownModel(hub_id, architecture, "quick_gelu", layout, "WIT-400M", "MIT", "OpenAI")


def _laion(name: str, architecture: str, trained_on: str, pictures: str = "") -> KnownModel:
    return KnownModel(f"laion/{name}", architecture, "gelu", "openclip", trained_on, "MIT", "LAION", pictures)


def _laion_400m(name: str, architecture: str, hidden_act: str) -> KnownModel:
    return KnownModel(f"timm/{name}.laion400m_e32", architecture, hidden_act, "openclip", "LAION-400M", "MIT", "LAION")


def _metaclip(name: str, architecture: str, trained_on: str, hidden_act: str = "quick_gelu") -> KnownModel:
    return KnownModel(f"timm/{name}", architecture, hidden_act, "openclip", trained_on, "CC-BY-NC-4.0", "Meta")


def _dfn(name: str, architecture: str, trained_on: str, pictures: str = "", act: str = "quick_gelu") -> KnownModel:
    return KnownModel(f"apple/{name}", architecture, act, "openclip", trained_on, "apple-amlr", "Apple", pictures)


_SQUASHED = "resized to a square, whatever their shape"
_MODELS = (
    # OpenAI's nine. Its ResNets have no transformers repository; these hold OpenAI's weights in OpenCLIP's layout.
    _openai("timm/resnet50_clip.openai", "RN50"),
    _openai("timm/resnet101_clip.openai", "RN101"),
    _openai("timm/resnet50x4_clip.openai", "RN50x4"),
    _openai("timm/resnet50x16_clip.openai", "RN50x16"),
    _openai("timm/resnet50x64_clip.openai", "RN50x64"),
    _openai("openai/clip-vit-base-patch32", "ViT-B/32"),
    _openai("openai/clip-vit-base-patch16", "ViT-B/16"),
    _openai("openai/clip-vit-large-patch14", "ViT-L/14"),
    _openai("openai/clip-vit-large-patch14-336", "ViT-L/14-336"),
    _laion_400m("vit_base_patch32_clip_224", "ViT-B/32", "quick_gelu"),
    _laion_400m("vit_base_patch16_clip_224", "ViT-B/16", "gelu"),
    _laion_400m("vit_large_patch14_clip_224", "ViT-L/14", "gelu"),
    _laion("CLIP-ViT-B-32-laion2B-s34B-b79K", "ViT-B/32", "LAION-2B"),
    _laion("CLIP-ViT-B-16-laion2B-s34B-b88K", "ViT-B/16", "LAION-2B"),
    _laion("CLIP-ViT-L-14-laion2B-s32B-b82K", "ViT-L/14", "LAION-2B", "mean and standard deviation 0.5"),
    _laion("CLIP-ViT-H-14-laion2B-s32B-b79K", "ViT-H/14", "LAION-2B"),
    _laion("CLIP-ViT-g-14-laion2B-s12B-b42K", "ViT-g/14", "LAION-2B"),
    _laion("CLIP-ViT-g-14-laion2B-s34B-b88K", "ViT-g/14", "LAION-2B"),
    _laion("CLIP-ViT-bigG-14-laion2B-39B-b160k", "ViT-bigG/14", "LAION-2B"),
    _laion("CLIP-ViT-B-32-DataComp.XL-s13B-b90K", "ViT-B/32", "DataComp-1B"),
    _laion("CLIP-ViT-B-32-256x256-DataComp-s34B-b86K", "ViT-B/32-256", "DataComp-1B"),
    _laion("CLIP-ViT-B-16-DataComp.XL-s13B-b90K", "ViT-B/16", "DataComp-1B"),
    _laion("CLIP-ViT-L-14-DataComp.XL-s13B-b90K", "ViT-L/14", "DataComp-1B"),
    _metaclip("vit_base_patch32_clip_224.metaclip_400m", "ViT-B/32", "MetaCLIP-400M"),
    _metaclip("vit_base_patch32_clip_224.metaclip_2pt5b", "ViT-B/32", "MetaCLIP-2.5B"),
    _metaclip("vit_base_patch16_clip_224.metaclip_400m", "ViT-B/16", "MetaCLIP-400M"),
    _metaclip("vit_base_patch16_clip_224.metaclip_2pt5b", "ViT-B/16", "MetaCLIP-2.5B"),
    _metaclip("vit_large_patch14_clip_224.metaclip_400m", "ViT-L/14", "MetaCLIP-400M"),
    _metaclip("vit_large_patch14_clip_224.metaclip_2pt5b", "ViT-L/14", "MetaCLIP-2.5B"),
    _metaclip("vit_huge_patch14_clip_224.metaclip_2pt5b", "ViT-H/14", "MetaCLIP-2.5B"),
    _metaclip("vit_huge_patch14_clip_224.metaclip_altogether", "ViT-H/14", "MetaCLIP Altogether", "gelu"),
    _metaclip("vit_gigantic_patch14_clip_224.metaclip_2pt5b", "ViT-bigG/14", "MetaCLIP-2.5B"),
    _dfn("DFN2B-CLIP-ViT-B-16", "ViT-B/16", "DFN-2B"),
    _dfn("DFN2B-CLIP-ViT-L-14", "ViT-L/14", "DFN-2B"),
    _dfn("DFN2B-CLIP-ViT-L-14-39B", "ViT-L/14", "DFN-2B", act="gelu"),
    _dfn("DFN5B-CLIP-ViT-H-14", "ViT-H/14", "DFN-5B", _SQUASHED),
    _dfn("DFN5B-CLIP-ViT-H-14-378", "ViT-H/14-378", "DFN-5B", _SQUASHED),
)
