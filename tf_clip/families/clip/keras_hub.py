"""Reads KerasHub's CLIP presets as Hugging Face's configuration and tensors."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tf_clip.checkpoints import files
from tf_clip.checkpoints.errors import CheckpointError, refuse_unknown
from tf_clip.checkpoints.readers.stored import Array, StoredTensor, StoredTensors
from tf_clip.families.layout import Opened

_ENCODERS = {"vision": "layers/clip_vision_encoder/layers/", "text": "layers/clip_text_encoder/layers/"}
_EMBEDDING = "clip_vision_embedding/vars/"
_TOKENS = "token_and_position_embedding/"
# Keras names saved layers by class and number, in the order of their creation.
_OUTSIDE_BLOCKS: dict[str, tuple[str, tuple[int, ...] | None]] = {
    "layers/clip_head/vars/0": ("logit_scale", None),
    "layers/dense/vars/0": ("visual_projection.weight", (1, 0)),
    "layers/dense_1/vars/0": ("text_projection.weight", (1, 0)),
    f"{_ENCODERS['text']}{_TOKENS}token_embedding/vars/0": ("text_model.embeddings.token_embedding.weight", None),
    f"{_ENCODERS['text']}{_TOKENS}position_embedding/vars/0": (
        "text_model.embeddings.position_embedding.weight",
        None,
    ),
    f"{_ENCODERS['text']}layer_normalization/vars/0": ("text_model.final_layer_norm.weight", None),
    f"{_ENCODERS['text']}layer_normalization/vars/1": ("text_model.final_layer_norm.bias", None),
    f"{_ENCODERS['vision']}{_EMBEDDING}0": ("vision_model.embeddings.class_embedding", None),
    f"{_ENCODERS['vision']}clip_vision_embedding/patch_embedding/vars/0": (
        "vision_model.embeddings.patch_embedding.weight",
        (3, 2, 0, 1),
    ),
    f"{_ENCODERS['vision']}layer_normalization/vars/0": ("vision_model.pre_layrnorm.weight", None),
    f"{_ENCODERS['vision']}layer_normalization/vars/1": ("vision_model.pre_layrnorm.bias", None),
    f"{_ENCODERS['vision']}layer_normalization_1/vars/0": ("vision_model.post_layernorm.weight", None),
    f"{_ENCODERS['vision']}layer_normalization_1/vars/1": ("vision_model.post_layernorm.bias", None),
}
_POSITIONS = f"{_ENCODERS['vision']}clip_vision_embedding/position_embedding/vars/0"
_POSITION_IDS = f"{_ENCODERS['vision']}{_EMBEDDING}1"
_BLOCK = re.compile(r"^layers/clip_(text|vision)_encoder/layers/clip_encoder_layer(?:_(\d+))?/(.+)/vars/([01])$")
_IN_BLOCKS = {
    "attention/query_dense": "self_attn.q_proj",
    "attention/key_dense": "self_attn.k_proj",
    "attention/value_dense": "self_attn.v_proj",
    "attention/output_dense": "self_attn.out_proj",
    "layer_norm_1": "layer_norm1",
    "layer_norm_2": "layer_norm2",
    "dense_1": "mlp.fc1",
    "dense_2": "mlp.fc2",
}


def is_preset(opened: Opened) -> bool:
    """Says whether files are those of a KerasHub preset."""
    described = opened.descriptions.get(files.CONFIG, {})
    is_its_file = not opened.is_file or opened.weights in files.KERAS_HUB_WEIGHTS
    return "class_name" in described and "config" in described and is_its_file


def to_hugging_face(opened: Opened) -> Opened:
    """Reads a preset's backbone.

    Args:
        opened: what KerasHub's `save_to_preset` wrote.

    Raises:
        FileNotFoundError: the weights are missing.
        CheckpointError: it is no preset of CLIP, or its weights have tensors that CLIP does not have.
    """
    described = opened.descriptions[files.CONFIG]
    folder = opened.path.parent if opened.weights else opened.path
    if described["class_name"] != "CLIPBackbone":
        raise CheckpointError(
            f"{folder} must be a preset of CLIPBackbone. Received: {described['class_name']}. tf_clip reads CLIP alone."
        )
    if opened.weights not in files.KERAS_HUB_WEIGHTS:
        raise FileNotFoundError(
            f"`folder` must hold {files.KERAS_HUB_WEIGHTS[0]} or {files.KERAS_HUB_INDEX}. Received: {folder}. Download "
            "the weights, too."
        )
    tensors = opened.tensors
    try:
        config = _config(described["config"], folder)
    except (LookupError, TypeError, ValueError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"{folder} must describe KerasHub's CLIPBackbone. Received: {type(error).__name__}: {error}. "
            "Download it again."
        ) from error
    _require_heads(tensors, config, folder)
    opened = opened.with_tensors(_translated(tensors, str(folder)), "KerasHub preset")
    return dataclasses.replace(opened, config=config)


def _require_heads(tensors: StoredTensors, config: Mapping[str, Any], folder: Path) -> None:
    """Checks what no shape tells once heads and their width are joined."""
    for name, tensor in tensors.items():
        block = _BLOCK.match(name)
        if block and block[3] == "attention/query_dense" and block[4] == "0":
            heads = config[f"{block[1]}_config"]["num_attention_heads"]
            if len(tensor.shape) != 3 or tensor.shape[1] != heads:
                raise CheckpointError(
                    f"{folder} must have {heads} heads in its {block[1]} encoder. Received: {name} of shape "
                    f"{list(tensor.shape)}. Download it again."
                )


def _config(backbone: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    vision, text = (backbone[f"{side}_encoder"]["config"] for side in ("vision", "text"))
    height, width, channels = vision["image_shape"]
    if height != width or text["embedding_dim"] != text["hidden_dim"]:
        raise CheckpointError(
            f"{folder} must have square images and one width a tower. Received: image_shape={vision['image_shape']}, "
            f"embedding_dim={text['embedding_dim']}, hidden_dim={text['hidden_dim']}. tf_clip has no such CLIP."
        )
    vocab_size, projection_dim = text["vocabulary_size"], backbone["projection_dim"]
    return {
        "model_type": "clip",
        "projection_dim": projection_dim,
        "text_config": {
            "model_type": "clip_text_model",
            **_shared(text),
            "vocab_size": vocab_size,
            "max_position_embeddings": text["max_sequence_length"],
            "pad_token_id": vocab_size - 1,
            "bos_token_id": vocab_size - 2,
            # KerasHub pools at the highest id of a text, which need not be the table's last; this is what 2 stands for.
            "eos_token_id": 2,
            "projection_dim": projection_dim,
        },
        "vision_config": {
            "model_type": "clip_vision_model",
            **_shared(vision),
            "image_size": height,
            "patch_size": vision["patch_size"],
            "num_channels": channels,
            "projection_dim": projection_dim,
        },
    }


def _shared(encoder: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "hidden_size": encoder["hidden_dim"],
        "intermediate_size": encoder["intermediate_dim"],
        "num_hidden_layers": encoder["num_layers"],
        "num_attention_heads": encoder["num_heads"],
        # Keras's "gelu" is the exact one unless told otherwise, as Hugging Face's is.
        "hidden_act": encoder["intermediate_activation"],
    }


def _translated(tensors: StoredTensors, source: str) -> dict[str, StoredTensor]:
    result: dict[str, StoredTensor] = {}
    unknown = []
    for name, tensor in tensors.items():
        block = _BLOCK.match(name)
        if name in _OUTSIDE_BLOCKS:
            renamed, axes = _OUTSIDE_BLOCKS[name]
            result[renamed] = tensor if axes is None else tensor.transposed(axes)
        elif name == _POSITIONS:
            result["vision_model.embeddings.position_embedding.weight"] = _positions(
                tensor, tensors.get(_POSITION_IDS), source
            )
        elif block and block[3] in _IN_BLOCKS:
            layer = f"{block[1]}_model.encoder.layers.{block[2] or 0}.{_IN_BLOCKS[block[3]]}"
            kind = "weight" if block[4] == "0" else "bias"
            result[f"{layer}.{kind}"] = _in_torch_layout(tensor, block[3], kind)
        elif name != _POSITION_IDS:
            unknown.append(name)
    refuse_unknown(
        unknown,
        source,
        "KerasHub's CLIPBackbone",
        "It is another model, or was saved by another version of KerasHub.",
    )
    return result


def _positions(table: StoredTensor, ids: StoredTensor | None, source: str) -> StoredTensor:
    """Returns the positions that KerasHub adds: the rows that its stored ids choose, all zero in untrained models."""
    if ids is None:
        return table

    def load() -> Array:
        rows = ids.load().reshape(-1)
        if rows.dtype.kind not in "iu" or rows.size != table.shape[0] or not (rows < rows.size).all() or rows.min() < 0:
            raise CheckpointError(
                f"{source} must number {table.shape[0]} positions. Received: {rows[:8]}. Download it again."
            )
        return table.load()[rows]

    return StoredTensor(table.shape, table.dtype, load)


def _in_torch_layout(tensor: StoredTensor, layer: str, kind: str) -> StoredTensor:
    """Joins heads and their width, and turns kernels to (out, in)."""
    if layer.startswith("layer_norm"):
        return tensor
    # What has other axes stays as it is, and the check of shapes behind this names it.
    if layer == "attention/output_dense" and kind == "weight" and len(tensor.shape) == 3:  # [heads, width, out]
        heads, width, out = tensor.shape
        return tensor.reshaped((heads * width, out)).transposed((1, 0))
    is_divided = layer.startswith("attention/") and layer != "attention/output_dense"
    if is_divided and len(tensor.shape) >= 2:  # [in, heads, width] or [heads, width]
        *incoming, heads, width = tensor.shape
        tensor = tensor.reshaped((*incoming, heads * width))
    return tensor.transposed((1, 0)) if kind == "weight" else tensor
