"""Which adapter a configuration puts at a location."""

from __future__ import annotations

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
from tf_clip.adapters.methods.shared import SharedParts
from tf_clip.adapters.sites import Location

_ATTENTION = ("q", "k", "v", "o")


def _is_for(config: AdapterConfig, location: Location) -> bool:
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
    """Returns each location where a configuration puts an adapter, with the part of the configuration for it.

    Raises:
        ValueError: it puts two adapters at one location.
    """
    found = []
    for location in locations:
        parts = [part for part in config.parts() if _is_for(part, location)]
        if len(parts) > 1:
            raise ValueError(
                f"`config` must not put two adapters at one site. Received: {len(parts)} at "
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
) -> Adapter:
    """Returns the adapter, its variables not made yet.

    Args:
        name: the adapter's.
        config: the part of its configuration for this location.
        location: where.
        shared: what its layers share.
        number: how many of its kind are in the same tower before it.
    """
    arguments = (name, config, location, shared)
    if isinstance(config, BottleneckConfig):
        return (Invertible if location.part == "embeddings" else Bottleneck)(*arguments)
    if isinstance(config, LoRAConfig):
        if config.composition_mode == "scale":
            return IA3(*arguments)
        if config.vera_d is not None:
            return (DVoRA if config.use_dora else VeRA)(*arguments)
        return (DoRA if config.use_dora else LoRA)(*arguments)
    if isinstance(config, PrefixTuningConfig):
        return Prefix(*arguments, number=number)
    if isinstance(config, ReftConfig):
        return Reft(*arguments)
    return Prompt(*arguments)
