"""AdapterHub's names for an adapter's weights, and its fields of a configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from tf_clip.adapters.config import (
    AdapterConfig,
    AnyConfig,
    BottleneckConfig,
    ConfigUnion,
    LoRAConfig,
    PrefixTuningConfig,
    ReftConfig,
)
from tf_clip.adapters.methods.base import Array
from tf_clip.adapters.named_configs import as_config
from tf_clip.adapters.sites import Location, Sites

OWN_FIELDS = "tf_clip"
"""Where `adapter_config.json` has the configuration as it is here, which AdapterHub does not look at."""

_DENSES = {"q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj", "o": "self_attn.out_proj"}
_DENSES |= {"fc1": "mlp.fc1", "fc2": "mlp.fc2"}
_IN_LAYER = {
    **{part: f"{dense}.loras" for part, dense in _DENSES.items()},
    "attention": "attention_adapters.adapters",
    "mlp": "output_adapters.adapters",
    "block": "reft_layer.refts",
    "keys_values": "self_attn.prefix_tuning.prefix_gates",
}
# What AdapterHub has and this library has no use for, with the value that changes nothing.
_THEIR_FIELDS: Mapping[type[AdapterConfig], Mapping[str, Any]] = {
    BottleneckConfig: {"cross_adapter": False},
    LoRAConfig: {"dtype": None},
    PrefixTuningConfig: {"encoder_prefix": True, "cross_prefix": True},
    ReftConfig: {"output_reft": True, "dtype": None},
}


def dense_name(location: Location) -> str:
    """Returns the name of a dense layer in transformers' CLIP."""
    return f"{location.tower}_model.encoder.layers.{location.index}.{_DENSES[location.part]}"


def _prefix(location: Location, name: str) -> str:
    if location.part == "shared":
        return ""
    if location.part == "embeddings":
        return f"text_model.invertible_adapters.{name}."
    if location.part == "prompts":
        return f"{location.tower}_model.prompt_tunings.{name}."
    return f"{location.tower}_model.encoder.layers.{location.index}.{_IN_LAYER[location.part]}.{name}."


def _with_name(key: str, name: str) -> str:
    """Returns the full name of a weight that layers share."""
    first, _, rest = key.partition(".")
    if first == "shared_parameters":
        return f"{first}.{name}.{rest}"
    return f"prefix_tuning.prefix_tunings.{name}.clip_{first}_model_self_prefix.{rest}"


def to_tensors(sites: Sites, name: str, as_name: str) -> dict[str, Array]:
    """Returns an adapter's weights under their names in files.

    Args:
        sites: with the adapter.
        name: the adapter's here.
        as_name: the adapter's in the file.
    """
    tensors = {}
    for location in sites.holding(name):
        prefix = _prefix(location, as_name)
        for key, value in location.site.by_name[name].to_file().items():
            tensors[_with_name(key, as_name) if location.part == "shared" else prefix + key] = value
    return tensors


def fill(sites: Sites, name: str, file_name: str, tensors: Mapping[str, Array]) -> None:
    """Gives an adapter its weights; the caller has compared names and shapes with `to_tensors`."""
    for location in sites.holding(name):
        adapter = location.site.by_name[name]
        if location.part == "shared":
            own = {key: tensors[_with_name(key, file_name)] for key in adapter.to_file()}
        else:
            prefix = _prefix(location, file_name)
            own = {key: tensors[prefix + key] for key in adapter.to_file()}
        adapter.from_file(own)


def is_alias(key: str) -> bool:
    """Whether a weight is there a second time: AdapterHub registers all prefixes below each layer, too."""
    return ".prefix_tuning.pool." in key


def layer_of(key: str, sites: Sites) -> int | None:
    """Returns the global number of the layer that a weight is in; None for one outside of layers."""
    for location in sites.locations:
        if location.layer is not None and key.startswith(f"{location.tower}_model.encoder.layers.{location.index}."):
            return location.layer
    return None


def fusion_to_tensors(sites: Sites, name: str) -> dict[str, Array]:
    """Returns a fusion's weights under their names in files."""
    return {
        _fusion_prefix(location, name) + key: value
        for location in sites.fusing(name)
        for key, value in location.site.fusions[name].to_file().items()
    }


def fill_fusion(sites: Sites, name: str, tensors: Mapping[str, Array]) -> None:
    """Gives a fusion its weights; the caller has compared names and shapes with `fusion_to_tensors`."""
    for location in sites.fusing(name):
        prefix, fusion = _fusion_prefix(location, name), location.site.fusions[name]
        fusion.from_file({key: tensors[prefix + key] for key in fusion.to_file()})


def _fusion_prefix(location: Location, name: str) -> str:
    kind = "attention_adapters" if location.part == "attention" else "output_adapters"
    return f"{location.tower}_model.encoder.layers.{location.index}.{kind}.adapter_fusion_layer.{name}."


def config_to_file(config: AnyConfig, layers: int) -> dict[str, Any]:
    """Returns a configuration in AdapterHub's fields.

    Args:
        config: the configuration.
        layers: how many the model has.
    """
    if isinstance(config, ConfigUnion):
        parts = [config_to_file(part, layers) for part in config.parts()]
        return {"architecture": "union", "configs": parts}
    fields = {**config.to_dict(), **_THEIR_FIELDS.get(type(config), {})}
    if isinstance(config, BottleneckConfig):
        del fields["architecture"]
        if not isinstance(config.scaling, str):
            fields["scaling"] = float(config.scaling)
    if isinstance(config, LoRAConfig):
        del fields["dora_bias"], fields["use_rslora"]
        # There the change always counts alpha / r.
        fields["alpha"] = config.factor * config.r if config.use_rslora else config.alpha
    if isinstance(config, ReftConfig):
        del fields["subtract_projection"], fields["leave_out"]
        if config.leave_out:
            everywhere = range(layers) if config.layers == "all" else config.layers
            fields["layers"] = [layer for layer in everywhere if layer not in config.leave_out]
    return fields


def config_from_file(content: Mapping[str, Any]) -> AnyConfig:
    """Returns the configuration that `adapter_config.json` holds.

    Raises:
        ValueError: it is of a method or has a value that CLIP cannot have.
    """
    if OWN_FIELDS in content:
        return as_config(content[OWN_FIELDS])
    config = as_config(content["config"])
    version = str(content.get("version", ""))
    parts = tuple(_as_meant(part, version) for part in config.parts())
    return ConfigUnion(parts) if isinstance(config, ConfigUnion) else parts[0]


def _as_meant(config: AdapterConfig, version: str) -> AdapterConfig:
    if not isinstance(config, LoRAConfig):
        return config
    matrices = tuple(matrix for matrix in config.attn_matrices if matrix != "o")  # never adapted there
    is_old = version.startswith("adapters.") and _is_before_1_1(version)
    alpha = config.r if is_old else config.alpha  # before 1.1 it was ignored
    return dataclasses.replace(config, dora_bias=config.use_dora, attn_matrices=matrices, alpha=alpha)


def _is_before_1_1(version: str) -> bool:
    numbers = version.removeprefix("adapters.").split(".")[:2]
    return all(number.isdigit() for number in numbers) and tuple(map(int, numbers)) < (1, 1)
