"""Configurations by short names, and from strings such as `"lora[r=16]|prefix_tuning"`, dictionaries and files."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tf_clip.adapters.config import (
    AdapterConfig,
    AnyConfig,
    BottleneckConfig,
    ConfigUnion,
    FusionConfig,
    LoRAConfig,
    PrefixTuningConfig,
    PromptTuningConfig,
    ReftConfig,
)

DEFAULT_CONFIG = "seq_bn"

_DOUBLE = BottleneckConfig(mh_adapter=True, non_linearity="swish", original_ln_before=False)
_PARALLEL = BottleneckConfig(
    reduction_factor=2, original_ln_before=False, init_weights="mam_adapter", is_parallel=True, scaling=4.0
)
_COMPACTER: dict[str, Any] = {"phm_layer": True, "reduction_factor": 32, "non_linearity": "gelu"}
_INVERTIBLE: dict[str, Any] = {"inv_adapter": "nice", "inv_adapter_reduction_factor": 2}
_LOREFT = ReftConfig()

CONFIGS: Mapping[str, AnyConfig] = {
    "seq_bn": BottleneckConfig(),
    "double_seq_bn": _DOUBLE,
    "par_bn": _PARALLEL,
    "scaled_par_bn": dataclasses.replace(_PARALLEL, scaling="learned"),
    "adapter_plus": BottleneckConfig(
        reduction_factor=96,
        non_linearity="gelu",
        original_ln_after=False,
        residual_before_ln=False,
        init_weights="houlsby",
        scaling="channel",
        stochastic_depth=0.1,
    ),
    "seq_bn_inv": BottleneckConfig(**_INVERTIBLE),
    "double_seq_bn_inv": dataclasses.replace(_DOUBLE, **_INVERTIBLE),
    "compacter++": BottleneckConfig(**_COMPACTER),
    "compacter": dataclasses.replace(_DOUBLE, **_COMPACTER),
    "prefix_tuning": PrefixTuningConfig(),
    "prefix_tuning_flat": PrefixTuningConfig(flat=True),
    "prompt_tuning": PromptTuningConfig(),
    "lora": LoRAConfig(),
    "ia3": LoRAConfig(
        intermediate_lora=True, r=1, alpha=1, attn_matrices=("k", "v"), composition_mode="scale", init_weights="ia3"
    ),
    "dora": LoRAConfig(use_dora=True),
    "vera": LoRAConfig(vera_d=0.1, vera_b=0.0, init_weights="vera"),
    "dvora": LoRAConfig(vera_d=0.1, vera_b=0.0, init_weights="vera", use_dora=True),
    "loreft": _LOREFT,
    "noreft": dataclasses.replace(_LOREFT, orthogonality=False),
    "direft": dataclasses.replace(_LOREFT, orthogonality=False, subtract_projection=False),
    "mam": ConfigUnion((PrefixTuningConfig(bottleneck_size=800), _PARALLEL)),
    "unipelt": ConfigUnion(
        (
            PrefixTuningConfig(prefix_length=10, use_gating=True),
            BottleneckConfig(use_gating=True),
            LoRAConfig(alpha=2, use_gating=True),
        )
    ),
}
"""The methods by their short names."""

FUSIONS: Mapping[str, FusionConfig] = {
    "dynamic": FusionConfig(),
    "static": FusionConfig(value=False, regularization=False, value_initialized=False),
}
"""The fusions by their short names."""

# Older names of AdapterHub's files.
_OLD_NAMES = {
    "pfeiffer": "seq_bn",
    "houlsby": "double_seq_bn",
    "parallel": "par_bn",
    "scaled_parallel": "scaled_par_bn",
    "pfeiffer+inv": "seq_bn_inv",
    "houlsby+inv": "double_seq_bn_inv",
}
_KINDS: Mapping[str | None, type[AdapterConfig]] = {
    None: BottleneckConfig,
    "bottleneck": BottleneckConfig,
    "lora": LoRAConfig,
    "prefix_tuning": PrefixTuningConfig,
    "prompt_tuning": PromptTuningConfig,
    "reft": ReftConfig,
}
# Fields of AdapterHub's files that have no meaning for CLIP, and the values that are accepted.
_WITHOUT_MEANING: Mapping[str, tuple[Any, ...]] = {
    "cross_adapter": (False,),
    "encoder_prefix": (True,),
    "cross_prefix": (True, False),
    "output_reft": (True,),
    "dtype": (None, "float32"),
}


def as_config(config: AnyConfig | Mapping[str, Any] | str | Path | None) -> AnyConfig:
    """Returns a configuration from any of its forms.

    Args:
        config: a configuration; a dictionary of its fields; a short name; a string of names with changed fields, joined
            by `|`; the path of a JSON file with a dictionary; None for `"seq_bn"`.

    Raises:
        ValueError: it is none of these, or a value has no meaning.
        TypeError: it is of another type.

    Example:
        >>> as_config("lora[r=16,attn_matrices=['q','k']]|prefix_tuning[flat=True]")
    """
    if config is None:
        return CONFIGS[DEFAULT_CONFIG]
    if isinstance(config, AdapterConfig | ConfigUnion):
        return config
    if isinstance(config, Mapping):
        return _from_dict(config)
    if isinstance(config, Path) or (isinstance(config, str) and config.endswith(".json")):
        fields = json.loads(Path(config).read_text(encoding="utf-8"))
        return _from_dict(fields.get("config", fields))
    if isinstance(config, str):
        parts = [_from_string(part) for part in _split(config, "|")]
        return parts[0] if len(parts) == 1 else _union(parts)
    raise TypeError(
        f"`config` must be a configuration, a dictionary, a name or a path. Received: {config!r}. "
        f"Names: {', '.join(CONFIGS)}."
    )


def as_fusion(config: FusionConfig | Mapping[str, Any] | str) -> FusionConfig:
    """Returns a fusion's configuration from one, from a dictionary of its fields, or from a short name.

    Raises:
        ValueError: there is no such name or field.
    """
    if isinstance(config, FusionConfig):
        return config
    if isinstance(config, str):
        if config not in FUSIONS:
            raise ValueError(f"`config` must be one of {', '.join(FUSIONS)}. Received: {config!r}.")
        return FUSIONS[config]
    fields = dict(config)
    known = {field.name for field in dataclasses.fields(FusionConfig)}
    if fields.pop("temperature", False) or set(fields) - known:
        raise ValueError(f"`config` must have fields of {sorted(known)} alone. Received: {dict(config)}. Change it.")
    if "value_initialized" in fields:
        fields["value_initialized"] = str(fields["value_initialized"]) == "True"
    return FusionConfig(**fields)


def _union(configs: Sequence[AnyConfig]) -> ConfigUnion:
    return ConfigUnion(tuple(part for config in configs for part in config.parts()))


def _from_dict(fields: Mapping[str, Any]) -> AnyConfig:
    architecture = fields.get("architecture")
    if architecture == "union":
        return _union([_from_dict(config) for config in fields["configs"]])
    kind = _KINDS.get(architecture)
    if kind is None:
        known = ", ".join(str(name) for name in _KINDS)
        raise ValueError(
            f"`architecture` must be one of {known}. Received: {architecture!r}. Other methods are not supported."
        )
    changes = {name: value for name, value in fields.items() if name != "architecture"}
    for name, allowed in _WITHOUT_MEANING.items():
        if changes.pop(name, allowed[0]) not in allowed:
            raise ValueError(
                f"`{name}` must be {allowed[0]} here. Received: {name}={fields[name]!r}. An adapter with another value "
                "cannot be read."
            )
    return kind().replace(**changes)


def _from_string(text: str) -> AnyConfig:
    match = re.fullmatch(r"\s*([^\[\]]+?)\s*(?:\[(.*)\])?\s*", text, re.DOTALL)
    name = match[1] if match else text
    base = CONFIGS.get(_OLD_NAMES.get(name, name))
    if match is None or base is None:
        close = difflib.get_close_matches(name, CONFIGS, n=1)
        raise ValueError(
            f"`config` must be one of {', '.join(CONFIGS)}, with changes in brackets if any. Received: {text!r}."
            + (f" Did you mean {close[0]}?" if close else "")
        )
    changes = {}
    for item in _split(match[2] or "", ","):
        field, equals, value = item.partition("=")
        if not equals:
            raise ValueError(f"`config` must have changes as name=value. Received: {item!r} in {text!r}.")
        changes[field.strip()] = _literal(value.strip())
    return base.replace(**changes) if changes else base


def _split(text: str, separator: str) -> Iterator[str]:
    """Cuts a text at the separators outside of brackets."""
    depth, begin = 0, 0
    for index, letter in enumerate(text):
        depth += (letter in "[({") - (letter in "])}")
        if letter == separator and depth == 0:
            yield text[begin:index]
            begin = index + 1
    if text[begin:].strip():
        yield text[begin:]


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return {"true": True, "false": False, "none": None}.get(text.lower(), text)
