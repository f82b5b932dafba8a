"""Translates between OpenAI's tensor names, which OpenCLIP shares, and Hugging Face's.

OpenAI keeps q, k and v in one matrix and its two projections transposed; all else is renaming.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from tf_clip.checkpoints.errors import refuse_unknown
from tf_clip.checkpoints.readers.stored import Array, StoredTensor, StoredTensors

HEAD_WIDTH = 64
"""Width of an attention head in every model that OpenAI published; their files do not say it."""

# From OpenAI's prefix to Hugging Face's, the longer first.
_TOWERS = {
    "visual.transformer.resblocks.": "vision_model.encoder.layers.",
    "transformer.resblocks.": "text_model.encoder.layers.",
}
_IN_BLOCKS = {
    "attn.out_proj": "self_attn.out_proj",
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_OUTSIDE_BLOCKS = {
    "logit_scale": "logit_scale",
    "logit_bias": "logit_bias",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
}
_TRANSPOSED = {"text_projection": "text_projection.weight", "visual.proj": "visual_projection.weight"}
# A ResNet tower keeps its names below vision_model; the end of its pooling is the projection.
_RESNET_PROJECTION = "visual.attnpool.c_proj."
_Q_K_V = ("q_proj", "k_proj", "v_proj")

# Sizes that OpenAI stored as tensors, the causal mask that scripted modules carry along, counters of batch norms.
_IGNORED = re.compile(r"^(input_resolution|context_length|vocab_size)$|(^|\.)attn_mask$|\.num_batches_tracked$")


def is_openai(tensors: StoredTensors) -> bool:
    """Says whether the names are OpenAI's: its own files', or OpenCLIP's in one of the two forms."""
    return any(name.startswith("visual.") for name in tensors) and (
        "positional_embedding" in tensors or "text.positional_embedding" in tensors
    )


def to_hugging_face(tensors: StoredTensors, source: str) -> dict[str, StoredTensor]:
    """Renames and turns tensors into Hugging Face's form.

    Args:
        tensors: OpenAI's, or OpenCLIP's, whose CustomTextCLIP has the text tower under `text.`.
        source: where they come from, for messages.

    Raises:
        CheckpointError: there are tensors that CLIP does not have; all are listed.
    """
    result: dict[str, StoredTensor] = {}
    unknown = []
    is_resnet = "visual.conv2.weight" in tensors
    for name, tensor in tensors.items():
        plain = name.removeprefix("text.")
        if _IGNORED.search(plain):
            continue
        renamed = _renamed(plain, tensor, is_resnet)
        if renamed is None:
            unknown.append(name)
        else:
            result.update(renamed)
    refuse_unknown(
        unknown,
        source,
        "CLIP's own towers",
        "It is another architecture (SigLIP, EVA, CoCa, ConvNeXt and others share OpenCLIP's file format), which "
        "tf_clip does not have.",
    )
    return result


def _renamed(name: str, tensor: StoredTensor, is_resnet: bool) -> dict[str, StoredTensor] | None:
    """Returns what becomes of one tensor, or None when it is unknown."""
    if name in _TRANSPOSED:
        return {_TRANSPOSED[name]: tensor.transposed((1, 0))}
    if name == "text_projection.weight":  # OpenCLIP's text towers may keep it as a layer, (out, in)
        return {name: tensor}
    if is_resnet and name.startswith("visual."):
        if name.startswith(_RESNET_PROJECTION):
            return {"visual_projection." + name.removeprefix(_RESNET_PROJECTION): tensor}
        return {"vision_model." + name.removeprefix("visual."): tensor}
    if name in _OUTSIDE_BLOCKS:
        return {_OUTSIDE_BLOCKS[name]: tensor}
    for prefix, tower in _TOWERS.items():
        if name.startswith(prefix):
            number, _, rest = name.removeprefix(prefix).partition(".")
            return _renamed_in_block(f"{tower}{number}.", rest, tensor)
    return None


def _renamed_in_block(block: str, rest: str, tensor: StoredTensor) -> dict[str, StoredTensor] | None:
    if rest in ("attn.in_proj_weight", "attn.in_proj_bias"):
        kind, rows = rest.rpartition("_")[2], tensor.shape[0] if tensor.shape else 0
        width = rows // 3
        # What is no three parts stays whole, and the check of shapes behind this names it.
        return {
            f"{block}self_attn.{projection}.{kind}": (
                tensor.rows(part * width, (part + 1) * width) if rows and rows % 3 == 0 else tensor
            )
            for part, projection in enumerate(_Q_K_V)
        }
    layer, _, kind = rest.rpartition(".")
    return {f"{block}{_IN_BLOCKS[layer]}.{kind}": tensor} if layer in _IN_BLOCKS else None


def from_hugging_face(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Renames and turns arrays of a whole CLIP model into OpenAI's form, contiguous as files need them."""
    outside = {theirs: ours for ours, theirs in _OUTSIDE_BLOCKS.items()}
    in_blocks = {theirs: ours for ours, theirs in _IN_BLOCKS.items()}
    transposed = {theirs: ours for ours, theirs in _TRANSPOSED.items()}
    is_resnet = "vision_model.conv2.weight" in arrays
    result: dict[str, Array] = {}
    for name, array in arrays.items():
        block = re.match(r"(vision_model|text_model)\.encoder\.layers\.(\d+)\.(.*)\.(weight|bias)$", name)
        if is_resnet and name.startswith("visual_projection."):
            result[_RESNET_PROJECTION + name.removeprefix("visual_projection.")] = array
        elif name in transposed:
            result[transposed[name]] = np.ascontiguousarray(array.T)
        elif block:
            prefix = ("visual." if block[1] == "vision_model" else "") + f"transformer.resblocks.{block[2]}."
            if not block[3].endswith(_Q_K_V):
                result[f"{prefix}{in_blocks[block[3]]}.{block[4]}"] = array
            elif block[3].endswith("q_proj"):
                parts = [arrays[name.replace("q_proj", projection)] for projection in _Q_K_V]
                result[f"{prefix}attn.in_proj_{block[4]}"] = np.concatenate(parts)
        else:
            result[outside.get(name) or "visual." + name.removeprefix("vision_model.")] = array
    return result


def config_from_shapes(tensors: StoredTensors, hidden_act: str) -> dict[str, Any]:
    """Reads an architecture from the shapes of OpenAI's tensors, as OpenAI's own loader does.

    Args:
        tensors: OpenAI's, by their own names.
        hidden_act: the activation, which no shape tells.

    Returns:
        A Hugging Face `config.json`, parsed. Heads are taken to be 64 wide, as in every OpenAI model.
    """
    tensors = {name.removeprefix("text."): tensor for name, tensor in tensors.items()}
    vocab_size, width = tensors["token_embedding.weight"].shape
    projection_dim = tensors["text_projection"].shape[1]
    text = {
        "vocab_size": vocab_size,
        "hidden_size": width,
        "intermediate_size": tensors["transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
        "num_hidden_layers": _count(tensors, r"^transformer\.resblocks\.(\d+)\."),
        "num_attention_heads": max(width // HEAD_WIDTH, 1),
        "max_position_embeddings": tensors["positional_embedding"].shape[0],
        "hidden_act": hidden_act,
        "pad_token_id": 0,
        "bos_token_id": vocab_size - 2,
        "eos_token_id": vocab_size - 1,
        "projection_dim": projection_dim,
    }
    vision = _resnet_from_shapes(tensors) if "visual.proj" not in tensors else _vit_from_shapes(tensors, hidden_act)
    return {
        "model_type": "clip",
        "projection_dim": projection_dim,
        "text_config": text,
        "vision_config": {**vision, "projection_dim": projection_dim},
        "logit_scale_init_value": 2.6592,
        **({"logit_bias_init_value": 0.0} if "logit_bias" in tensors else {}),
    }


def _vit_from_shapes(tensors: StoredTensors, hidden_act: str) -> dict[str, Any]:
    width, channels, patch_size, _ = tensors["visual.conv1.weight"].shape
    side = round((tensors["visual.positional_embedding"].shape[0] - 1) ** 0.5)
    return {
        "model_type": "clip_vision_model",
        "hidden_size": width,
        "intermediate_size": tensors["visual.transformer.resblocks.0.mlp.c_fc.weight"].shape[0],
        "num_hidden_layers": _count(tensors, r"^visual\.transformer\.resblocks\.(\d+)\."),
        "num_attention_heads": max(width // HEAD_WIDTH, 1),
        "num_channels": channels,
        "image_size": side * patch_size,
        "patch_size": patch_size,
        "hidden_act": hidden_act,
    }


def _resnet_from_shapes(tensors: StoredTensors) -> dict[str, Any]:
    places, hidden_size = tensors["visual.attnpool.positional_embedding"].shape
    width = tensors["visual.layer1.0.conv1.weight"].shape[0]
    return {
        "model_type": "clip_resnet_model",
        "depths": [_count(tensors, rf"^visual\.layer{stage}\.(\d+)\.") for stage in (1, 2, 3, 4)],
        "embedding_size": width,
        "num_attention_heads": max(hidden_size // HEAD_WIDTH, 1),
        "num_channels": tensors["visual.conv1.weight"].shape[1],
        "image_size": 32 * round((places - 1) ** 0.5),
    }


def _count(tensors: StoredTensors, pattern: str) -> int:
    return len({match[1] for name in tensors if (match := re.match(pattern, name))})
