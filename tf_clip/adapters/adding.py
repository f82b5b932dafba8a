"""Puts adapters and fusions into a model's sites, whole or not at all."""

from __future__ import annotations

import re
from collections import Counter

from tf_clip.adapters.config import (
    AdapterConfig,
    AnyConfig,
    FusionConfig,
    PromptTuningConfig,
    ReftConfig,
)
from tf_clip.adapters.methods.fusion import Fusion
from tf_clip.adapters.methods.matching import adapter_at, matched
from tf_clip.adapters.methods.shared import SharedParts
from tf_clip.adapters.sites import Sites


def require_name(name: str) -> None:
    """Checks that a name can be part of file names and of weights' names.

    Raises:
        ValueError: it cannot.
    """
    if not isinstance(name, str) or not name or re.search(r"[/.,\\]", name):
        raise ValueError(f"`name` must be a word without slashes, dots and commas. Received: name={name!r}.")


def put_adapter(sites: Sites, name: str, config: AnyConfig) -> None:
    """Makes an adapter's weights at all sites where its configuration puts it; on an error none are left.

    Raises:
        ValueError: the configuration does not fit the model.
        KeyError: its reduction factors leave a layer out.
    """
    for part in config.parts():
        _require_fitting(part, sites)
    found = matched(config, sites.locations)
    if not found:
        raise ValueError(
            f"`config` must put the adapter at one site or more. Received: {config!r}, which puts it at none: "
            + (
                "every layer is left out, or the method is for the other tower."
                if sites.locations
                else "the model has no transformer layers, in which adapters act."
            )
        )
    shared = None
    try:
        if SharedParts.is_needed(found):
            shared = SharedParts(name, config, sites.shared, found)
            shared.make()
            sites.shared.site.by_name[name] = shared
        seen: Counter[tuple[type, str]] = Counter()
        for part, location in found:
            kind = (type(part), location.tower)
            adapter = adapter_at(name, part, location, shared, seen[kind])
            seen[kind] += 1
            adapter.make()
            location.site.by_name[name] = adapter
    except BaseException:
        take_adapter(sites, name)
        raise


def _require_fitting(config: AdapterConfig, sites: Sites) -> None:
    numbered = {"leave_out": config.leave_out}
    if isinstance(config, ReftConfig) and not isinstance(config.layers, str):
        numbered["layers"] = config.layers
    for field, numbers in numbered.items():
        if not set(numbers) <= set(range(sites.num_layers)):
            there = f"0 to {sites.num_layers - 1}" if sites.num_layers else "of which this model has none"
            raise ValueError(
                f"`{field}` must be numbers of transformer layers, {there}; the text tower's come first. "
                f"Received: {field}={tuple(numbers)}."
            )
    if isinstance(config, PromptTuningConfig) and config.prompt_init_ids:
        tables = [location.token_embedding for location in sites.locations if location.token_embedding is not None]
        for size in (table.input_dim for table in tables):
            if max(config.prompt_init_ids) >= size:
                raise ValueError(
                    f"`prompt_init_ids` must be below {size}, the size of the vocabulary. "
                    f"Received: prompt_init_ids={config.prompt_init_ids}."
                )


def take_adapter(sites: Sites, name: str) -> None:
    """Removes an adapter from all sites."""
    for location in sites.holding(name):
        location.site.by_name.pop(name)


def put_fusion(sites: Sites, name: str, config: FusionConfig, names: tuple[str, ...]) -> None:
    """Makes a fusion's weights wherever all of the adapters are; on an error none are left.

    Raises:
        ValueError: they are not at the same sites, or are no bottlenecks.
    """
    chosen = []
    for location in sites.locations:
        here = [one for one in names if one in location.site.by_name]
        if not here:
            continue
        if len(here) != len(names) or location.part not in ("attention", "mlp", "embeddings"):
            raise ValueError(
                f"`adapters` must be bottlenecks at the same sites. Received: {list(names)}, of which "
                f"only {here} are at {'/'.join(location.scopes)}. Give them one configuration."
            )
        if location.part != "embeddings":
            chosen.append(location)
    try:
        for location in chosen:
            fusion = Fusion(name, config, location)
            fusion.make()
            location.site.fusions[name] = fusion
    except BaseException:
        take_fusion(sites, name)
        raise


def take_fusion(sites: Sites, name: str) -> None:
    """Removes a fusion from all sites."""
    for location in sites.fusing(name):
        location.site.fusions.pop(name)
