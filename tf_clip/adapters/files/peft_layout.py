"""LoRA and DoRA in the files of PEFT: `adapter_config.json` and `adapter_model.safetensors`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tf_clip.adapters.config import AnyConfig, LoRAConfig
from tf_clip.adapters.files import hub_layout
from tf_clip.adapters.methods.base import Array
from tf_clip.adapters.sites import Sites
from tf_clip.checkpoints.errors import CheckpointError

WEIGHTS = "adapter_model.safetensors"
OLDER_WEIGHTS = "adapter_model.bin"
DEFAULT_NAME = "default"
_ROOT = "base_model.model."
_MODULES = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "out_proj", "fc1": "fc1", "fc2": "fc2"}
# Theirs behind a dense layer's name, and AdapterHub's.
_WEIGHTS = {"lora_A.weight": "lora_A", "lora_B.weight": "lora_B", "lora_magnitude_vector": "m.weight"}
# What would make an adapter another one than is read here, and the values that do not.
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "bias": ("none",),
    "modules_to_save": (None, []),
    "rank_pattern": (None, {}),
    "alpha_pattern": (None, {}),
    "fan_in_fan_out": (None, False),
    "lora_bias": (None, False),
    "layer_replication": (None,),
    "use_qalora": (None, False),
    "use_bdlora": (None, False),
    "target_parameters": (None, []),
    "trainable_token_indices": (None,),
    "alora_invocation_tokens": (None,),
    "arrow_config": (None,),
}


def to_file(sites: Sites, name: str, config: AnyConfig) -> tuple[dict[str, Any], dict[str, Array]]:
    """Returns configuration and weights of a LoRA as PEFT has them.

    Raises:
        ValueError: the adapter is no LoRA, or one that PEFT does not have.
    """
    fits = isinstance(config, LoRAConfig) and config.composition_mode == "add" and config.vera_d is None
    if not isinstance(config, LoRAConfig) or not fits or config.use_gating or config.dora_bias:
        raise ValueError(
            f"`layout` must be \"adapterhub\" for what is no LoRA or DoRA of PEFT's. Received: layout='peft' for "
            f"{config!r}."
        )
    there = sites.holding(name)
    tensors = {}
    for location in there:
        for key, theirs in {ours: theirs for theirs, ours in _WEIGHTS.items()}.items():
            value = location.site.by_name[name].to_file().get(key)
            if value is not None:
                tensors[f"{_ROOT}{hub_layout.dense_name(location)}.{theirs}"] = (
                    value[:, 0] if theirs == "lora_magnitude_vector" else value
                )
    modules = [hub_layout.dense_name(location) for location in there]
    if not config.leave_out:
        modules = sorted({_MODULES[location.part] for location in there})
    content = {
        "peft_type": "LORA",
        "task_type": None,
        "base_model_name_or_path": None,
        "inference_mode": True,
        "r": config.r,
        "lora_alpha": config.alpha,
        "lora_dropout": config.dropout,
        "use_rslora": config.use_rslora,
        "use_dora": config.use_dora,
        "target_modules": modules,
        "bias": "none",
        "fan_in_fan_out": False,
        "modules_to_save": None,
    }
    return content, tensors


def from_file(
    content: Mapping[str, Any], tensors: Mapping[str, Array], sites: Sites, folder: Path
) -> tuple[LoRAConfig, dict[str, Array], str]:
    """Returns configuration, weights under AdapterHub's names, and name of a LoRA of PEFT's.

    Raises:
        ValueError: it has what is not read here.
        CheckpointError: its weights are of another model, or of some layers' parts alone.
    """
    if content["peft_type"] != "LORA":
        raise ValueError(f"`peft_type` must be LORA. Received: {content['peft_type']!r} in {folder}. Use AdapterHub's.")
    for field, allowed in _NEUTRAL.items():
        if content.get(field, allowed[0]) not in allowed:
            raise ValueError(
                f"`{field}` must be {allowed[0]!r}. Received: {content[field]!r} in {folder}, which is not read here. "
                "Merge the adapter with PEFT and load the model."
            )
    by_dense = {hub_layout.dense_name(location): location for location in sites.locations if location.dense is not None}
    found: dict[str, Array] = {}
    present: set[tuple[int | None, str]] = set()
    for key, value in tensors.items():
        match = re.fullmatch(rf"{re.escape(_ROOT)}(.+?)\.({'|'.join(map(re.escape, _WEIGHTS))})", key)
        if match is None or match[1] not in by_dense:
            raise CheckpointError(f"{folder} must hold LoRAs of a CLIP's layers. Received: {key}. Load another model.")
        location = by_dense[match[1]]
        present.add((location.layer, location.part))
        column = np.reshape(value, (-1, 1)) if match[2] == "lora_magnitude_vector" else value
        found[f"{match[1]}.loras.{DEFAULT_NAME}.{_WEIGHTS[match[2]]}"] = column
    layers = {layer for layer, _ in present}
    parts = {part for _, part in present}
    if len(present) != len(layers) * len(parts):
        raise CheckpointError(f"{folder} must have the same parts in every layer that has any. Received: others.")
    config = LoRAConfig(
        r=content["r"],
        alpha=content["lora_alpha"],
        dropout=content.get("lora_dropout", 0.0),
        use_rslora=bool(content.get("use_rslora")),
        use_dora=bool(content.get("use_dora")),
        selfattn_lora=bool(parts & {"q", "k", "v", "o"}),
        attn_matrices=tuple(part for part in ("q", "k", "v", "o") if part in parts),
        intermediate_lora="fc1" in parts,
        output_lora="fc2" in parts,
        leave_out=tuple(layer for layer in range(sites.num_layers) if layer not in layers),
    )
    return config, found, DEFAULT_NAME
