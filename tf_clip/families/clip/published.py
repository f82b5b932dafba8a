"""The published checkpoints of CLIP, taken from OpenCLIP's list of pretrained models; licenses are the publishers'."""

from __future__ import annotations

from typing import Any

from tf_clip.families.published import KnownModel


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


def _config(architecture: str, hidden_act: str) -> dict[str, Any]:
    text, vision, projection_dim = ARCHITECTURES[architecture]
    activation = {} if "depths" in vision else {"hidden_act": hidden_act}
    return {
        "model_type": "clip",
        "text_config": {**text, "hidden_act": hidden_act},
        "vision_config": {**vision, **activation},
        "projection_dim": projection_dim,
    }


def _model(hub_id: str, architecture: str, hidden_act: str, *about: str, sha256: str | None = None) -> KnownModel:
    config = _config(architecture, hidden_act)
    layout, trained_on, licensed, publisher, *images = about
    return KnownModel(hub_id, architecture, config, layout, trained_on, licensed, publisher, "".join(images), sha256)


def _openai(hub_id: str, architecture: str, sha256: str) -> KnownModel:
    layout = "huggingface" if hub_id.startswith("openai/") else "openclip"
    return _model(hub_id, architecture, "quick_gelu", layout, "WIT-400M", "MIT", "OpenAI", sha256=sha256)


def _laion(name: str, architecture: str, trained_on: str, images: str = "") -> KnownModel:
    return _model(f"laion/{name}", architecture, "gelu", "openclip", trained_on, "MIT", "LAION", images)


def _laion_400m(name: str, architecture: str, hidden_act: str) -> KnownModel:
    return _model(f"timm/{name}.laion400m_e32", architecture, hidden_act, "openclip", "LAION-400M", "MIT", "LAION")


def _metaclip(name: str, architecture: str, trained_on: str, hidden_act: str = "quick_gelu") -> KnownModel:
    return _model(f"timm/{name}", architecture, hidden_act, "openclip", trained_on, "CC-BY-NC-4.0", "Meta")


def _dfn(name: str, architecture: str, trained_on: str, images: str = "", act: str = "quick_gelu") -> KnownModel:
    return _model(f"apple/{name}", architecture, act, "openclip", trained_on, "apple-amlr", "Apple", images)


_SQUASHED = "resized to a square, whatever their shape"
MODELS = (
    # OpenAI's nine. Its ResNets have no transformers repository; these hold OpenAI's weights in OpenCLIP's layout.
    _openai(
        "timm/resnet50_clip.openai",
        "RN50",
        "afeb0e10f9e5a86da6080e35cf09123aca3b358a0c3e3b6c78a7b63bc04b6762",
    ),
    _openai(
        "timm/resnet101_clip.openai",
        "RN101",
        "8fa8567bab74a42d41c5915025a8e4538c3bdbe8804a470a72f30b0d94fab599",
    ),
    _openai(
        "timm/resnet50x4_clip.openai",
        "RN50x4",
        "7e526bd135e493cef0776de27d5f42653e6b4c8bf9e0f653bb11773263205fdd",
    ),
    _openai(
        "timm/resnet50x16_clip.openai",
        "RN50x16",
        "52378b407f34354e150460fe41077663dd5b39c54cd0bfd2b27167a4a06ec9aa",
    ),
    _openai(
        "timm/resnet50x64_clip.openai",
        "RN50x64",
        "be1cfb55d75a9666199fb2206c106743da0f6468c9d327f3e0d0a543a9919d9c",
    ),
    _openai(
        "openai/clip-vit-base-patch32",
        "ViT-B/32",
        "40d365715913c9da98579312b702a82c18be219cc2a73407c4526f58eba950af",
    ),
    _openai(
        "openai/clip-vit-base-patch16",
        "ViT-B/16",
        "5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f",
    ),
    _openai(
        "openai/clip-vit-large-patch14",
        "ViT-L/14",
        "b8cca3fd41ae0c99ba7e8951adf17d267cdb84cd88be6f7c2e0eca1737a03836",
    ),
    _openai(
        "openai/clip-vit-large-patch14-336",
        "ViT-L/14-336",
        "3035c92b350959924f9f00213499208652fc7ea050643e8b385c2dac08641f02",
    ),
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
