"""Puts adapters and fusions into a model's places, whole or not at all."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from tf_clip.adapters.config import (
    AnyConfig,
    FusionConfig,
    PromptTuningConfig,
    ReftConfig,
)
from tf_clip.adapters.methods.fusion import Fusion
from tf_clip.adapters.methods.matching import adapter_at, matched
from tf_clip.adapters.places import Location
from tf_clip.adapters.shared import SharedParts

if TYPE_CHECKING:
    from tf_clip.adapters.model import AdaptableModel


def require_name(name: str) -> None:
    """Checks that a name can be part of file names and of weights' names.

    Raises:
        ValueError: it cannot.
    """
    if not isinstance(name, str) or not name or re.search(r"[/.,\\]", name):
        raise ValueError(f"`name` must be a word without slashes, dots and commas. Received: name={name!r}.")


def put_adapter(model: AdaptableModel, name: str, config: AnyConfig) -> None:
    """Makes an adapter's weights at all places where it stands; on an error none are left.

    Raises:
        ValueError: the configuration does not fit the model.
        KeyError: its reduction factors leave a layer out.
    """
    locations = list(model.adapter_locations())
    _require_fitting(model, config, locations)
    found = matched(config, locations)
    if not found:
        raise ValueError(
            f"`config` must have a place in {type(model).__name__}. Received: {config!r}, which has none there: "
            + (
                "its image tower is a ResNet, and adapters stand in transformer layers."
                if not locations
                else "every layer is left out, or the method is for the other tower."
            )
        )
    shared = None
    try:
        if SharedParts.is_needed(found):
            shared = SharedParts(name, config, model.shared_location, found)
            shared.make()
            model.shared_adapters.by_name[name] = shared
        seen: Counter[tuple[type, str]] = Counter()
        for part, location in found:
            kind = (type(part), location.tower)
            adapter = adapter_at(name, part, location, shared, seen[kind], model.token_embedding)
            seen[kind] += 1
            adapter.make()
            location.place.by_name[name] = adapter
    except BaseException:
        take_adapter(model, name)
        raise


def _require_fitting(model: AdaptableModel, config: AnyConfig, locations: list[Location]) -> None:
    layers = {location.layer for location in locations if location.layer is not None}
    for part in config.parts():
        named = {"leave_out": part.leave_out}
        if isinstance(part, ReftConfig) and part.layers != "all":
            named["layers"] = tuple(part.layers)  # type: ignore[arg-type]
        for field, numbers in named.items():
            if not set(numbers) <= layers:
                there = f"0 to {len(layers) - 1}" if layers else "there are none, its tower is a ResNet"
                raise ValueError(
                    f"`{field}` must be numbers of layers, {there}; the text tower's come first. "
                    f"Received: {field}={tuple(numbers)}."
                )
        drops = getattr(part, "dropout", 0) or getattr(part, "stochastic_depth", 0)
        if drops and getattr(model, "gradient_checkpointing", False):
            raise ValueError(
                "`dropout` must be 0 in a model with gradient_checkpointing: Keras would drop others the second time. "
                f"Received: {part!r}. Leave one of the two out."
            )
        if isinstance(part, PromptTuningConfig) and part.prompt_init_ids and model.token_embedding is not None:
            largest = model.token_embedding.input_dim
            if max(part.prompt_init_ids) >= largest:
                raise ValueError(
                    f"`prompt_init_ids` must be below {largest}. Received: prompt_init_ids={part.prompt_init_ids}."
                )


def take_adapter(model: AdaptableModel, name: str) -> None:
    """Removes an adapter from all places."""
    for place in [*(location.place for location in model.adapter_locations()), model.shared_adapters]:
        place.by_name.pop(name, None)


def put_fusion(model: AdaptableModel, name: str, config: FusionConfig, names: tuple[str, ...]) -> None:
    """Makes a fusion's weights wherever all of the adapters stand.

    Raises:
        ValueError: they do not stand at the same places, or are no bottlenecks.
    """
    chosen = []
    for location in model.adapter_locations():
        here = [one for one in names if one in location.place.by_name]
        if not here:
            continue
        if len(here) != len(names) or location.part not in ("attention", "mlp", "embeddings"):
            raise ValueError(
                f"`adapters` must be bottlenecks that stand at the same places. Received: {list(names)}, of which "
                f"only {here} are at {'/'.join(location.scopes)}. Give them one configuration."
            )
        if location.part != "embeddings":
            chosen.append(location)
    for location in chosen:
        fusion = Fusion(name, config, location)
        fusion.make()
        location.place.fusions[name] = fusion


def take_fusion(model: AdaptableModel, name: str) -> None:
    """Removes a fusion from all places."""
    for location in model.adapter_locations():
        location.place.fusions.pop(name, None)


def adapters_of(model: AdaptableModel, name: str) -> list[Any]:
    """Returns all that an adapter has in a model, what its layers share first."""
    places = [model.shared_adapters, *(location.place for location in model.adapter_locations())]
    return [place.by_name[name] for place in places if name in place.by_name]
