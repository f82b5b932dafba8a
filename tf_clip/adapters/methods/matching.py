"""Which adapter a configuration puts at a location."""

from __future__ import annotations

from typing import Any

import keras

from tf_clip.adapters.config import (
    AdapterConfig,
    AnyConfig,
    BottleneckConfig,
    LoRAConfig,
    PrefixTuningConfig,
    PromptTuningConfig,
    ReftConfig,
)
from tf_clip.adapters.methods.base import Adapter
from tf_clip.adapters.methods.bottleneck import Bottleneck
from tf_clip.adapters.methods.invertible import Invertible
from tf_clip.adapters.methods.linear import IA3, DoRA, DVoRA, LoRA, VeRA
from tf_clip.adapters.methods.prefix import Prefix
from tf_clip.adapters.methods.prompts import Prompt
from tf_clip.adapters.methods.reft import Reft
from tf_clip.adapters.places import Location
from tf_clip.adapters.shared import SharedParts

_ATTENTION = ("q", "k", "v", "o")


def _stands_at(config: AdapterConfig, location: Location) -> bool:
    part = location.part
    if location.layer is not None and location.layer in config.leave_out:
        return False
    if isinstance(config, BottleneckConfig):
        if part == "embeddings":
            return config.inv_adapter is not None and location.tower == "text"
        return (part == "attention" and config.mh_adapter) or (part == "mlp" and config.output_adapter)
    if isinstance(config, LoRAConfig):
        return (
            (part in _ATTENTION and config.selfattn_lora and part in config.attn_matrices)
            or (part == "fc1" and config.intermediate_lora)
            or (part == "fc2" and config.output_lora)
        )
    if isinstance(config, PrefixTuningConfig):
        return part == "keys_values"
    if isinstance(config, ReftConfig):
        return part == "block" and (config.layers == "all" or location.layer in config.layers)
    if isinstance(config, PromptTuningConfig):
        return part == "prompts" and location.tower in config.towers
    raise TypeError(f"`config` must be of a known method. Received: {config!r}.")


def matched(config: AnyConfig, locations: list[Location]) -> list[tuple[AdapterConfig, Location]]:
    """Returns what stands where, one part of the configuration at most at each location.

    Raises:
        ValueError: two parts would stand at one.
    """
    found = []
    for location in locations:
        parts = [part for part in config.parts() if _stands_at(part, location)]
        if len(parts) > 1:
            raise ValueError(
                f"`config` must not put two adapters at one place. Received: {len(parts)} at "
                f"{'/'.join(location.scopes)}. Leave one out there with `leave_out`."
            )
        found += [(part, location) for part in parts]
    return found


def adapter_at(
    name: str,
    config: AdapterConfig,
    location: Location,
    shared: SharedParts | None,
    number: int,
    embedding: keras.layers.Embedding | None,
) -> Adapter:
    """Returns the adapter, its variables not made yet.

    Args:
        name: the adapter's.
        config: the part of its configuration that stands here.
        location: where.
        shared: what its layers share.
        number: how many of its kind stand in the same tower before it.
        embedding: the text tower's token embeddings.
    """
    arguments = (name, config, location)
    parts: Any = shared
    if isinstance(config, BottleneckConfig):
        return Invertible(*arguments) if location.part == "embeddings" else Bottleneck(*arguments, shared=shared)
    if isinstance(config, LoRAConfig):
        if config.composition_mode == "scale":
            return IA3(*arguments)
        if config.vera_d is not None:
            return (DVoRA if config.use_dora else VeRA)(*arguments, shared=parts)
        return (DoRA if config.use_dora else LoRA)(*arguments)
    if isinstance(config, PrefixTuningConfig):
        return Prefix(*arguments, number=number, shared=parts)
    if isinstance(config, ReftConfig):
        return Reft(*arguments)
    return Prompt(*arguments, embedding=embedding if location.tower == "text" else None)
