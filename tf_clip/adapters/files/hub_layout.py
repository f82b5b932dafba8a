"""AdapterHub's names for an adapter's weights, and its fields of a configuration."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, NamedTuple

from tf_clip.adapters.config import (
    AdapterConfig,
    AnyConfig,
    BottleneckConfig,
    ConfigUnion,
    LoRAConfig,
    PrefixTuningConfig,
    ReftConfig,
)
from tf_clip.adapters.methods.base import Adapter, Array
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
    return _layer(location) + _DENSES[location.part]


def _layer(location: Location) -> str:
    return f"{location.tower}_model.encoder.layers.{location.index}."


def _adapter_key(location: Location, name: str, key: str) -> str:
    if location.part == "embeddings":
        return f"text_model.invertible_adapters.{name}.{key}"
    if location.part == "prompts":
        return f"{location.tower}_model.prompt_tunings.{name}.{key}"
    if location.part != "shared":
        return f"{_layer(location)}{_IN_LAYER[location.part]}.{name}.{key}"
    first, _, rest = key.partition(".")
    if first == "shared_parameters":
        return f"{first}.{name}.{rest}"
    return f"prefix_tuning.prefix_tunings.{name}.clip_{first}_model_self_prefix.{rest}"


def _fusion_key(location: Location, name: str, key: str) -> str:
    kind = "attention_adapters" if location.part == "attention" else "output_adapters"
    return f"{_layer(location)}{kind}.adapter_fusion_layer.{name}.{key}"


class Named(NamedTuple):
    """What acts at a site, and what its weights are called in files.

    Args:
        module: an adapter or a fusion at one site.
        key: from a weight's name in `module.to_file()` to the one in files.
    """

    module: Adapter
    key: Callable[[str], str]


def adapter_modules(sites: Sites, name: str, file_name: str) -> list[Named]:
    """Returns all that an adapter is made of.

    Args:
        sites: with the adapter.
        name: the adapter's here.
        file_name: the adapter's in the file.
    """
    holding = sites.holding(name)
    return [Named(location.site.by_name[name], partial(_adapter_key, location, file_name)) for location in holding]


def fusion_modules(sites: Sites, name: str) -> list[Named]:
    """Returns all that a fusion is made of."""
    return [Named(location.site.fusions[name], partial(_fusion_key, location, name)) for location in sites.fusing(name)]


def to_tensors(modules: Iterable[Named]) -> dict[str, Array]:
    """Returns weights under their names in files."""
    return {key(name): value for module, key in modules for name, value in module.to_file().items()}


def fill(modules: Iterable[Named], tensors: Mapping[str, Array]) -> None:
    """Gives modules their weights; the caller has compared names and shapes with `to_tensors`."""
    for module, key in modules:
        module.from_file({name: tensors[key(name)] for name in module.to_file()})


def is_alias(key: str) -> bool:
    """Whether a weight is there a second time: AdapterHub registers all prefixes below each layer, too."""
    return ".prefix_tuning.pool." in key


def layer_of(key: str, sites: Sites) -> int | None:
    """Returns the global number of the layer that a weight is in; None for one outside of layers."""
    for location in sites.locations:
        if location.layer is not None and key.startswith(_layer(location)):
            return location.layer
    return None


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
    version = str(content.get("version", ""))
    return as_config(content["config"]).map(lambda part: _as_meant(part, version))


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
