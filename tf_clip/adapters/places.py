"""Where adapters can stand in a model: `Location`s, each with a place, a layer's number and a part of that layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from tf_clip.layers.adapter_sites import AdaptableDense, AdapterPlace
from tf_clip.layers.transformer import EncoderLayer

PARTS = (
    "q",
    "k",
    "v",
    "o",
    "fc1",
    "fc2",
    "keys_values",
    "attention",
    "mlp",
    "block",
    "embeddings",
    "prompts",
    "shared",
)
"""What a location is of its layer, or of its tower."""


@dataclasses.dataclass(frozen=True)
class Location:
    """A place and where it is.

    Args:
        place: holds the adapters.
        part: one of `PARTS`.
        scopes: names of the layers around the place, from the tower on, and its own.
        tower: `"text"` or `"vision"`; `"model"` for what belongs to no tower.
        layer: its layer's global number; None outside of layers.
        index: its layer's number in its tower.
        heads: how many heads attention has there.
        dense: the dense layer whose place it is, if it is one's.
    """

    place: AdapterPlace
    part: str
    scopes: tuple[str, ...]
    tower: str
    layer: int | None = None
    index: int | None = None
    heads: int = 0
    dense: AdaptableDense | None = None


def layer_locations(
    tower: str, scopes: tuple[str, ...], layers: Sequence[EncoderLayer], first_layer: int
) -> Iterator[Location]:
    """Yields the locations in a tower's transformer layers.

    Args:
        tower: `"text"` or `"vision"`.
        scopes: the tower's name.
        layers: of the tower.
        first_layer: the global number of its first layer.
    """
    for index, layer in enumerate(layers):
        attention = layer.self_attn
        where: dict[str, Any] = {
            "tower": tower,
            "layer": first_layer + index,
            "index": index,
            "heads": attention.num_heads,
        }
        denses: dict[str, tuple[Any, AdaptableDense]] = {
            "q": (attention, attention.q_proj),
            "k": (attention, attention.k_proj),
            "v": (attention, attention.v_proj),
            "o": (attention, attention.out_proj),
            "fc1": (layer.mlp, layer.mlp.fc1),
            "fc2": (layer.mlp, layer.mlp.fc2),
        }
        for part, (parent, dense) in denses.items():
            inside = (*scopes, layer.name, parent.name, dense.name, dense.adapters.name)
            yield Location(dense.adapters, part, inside, dense=dense, **where)
        inside = (*scopes, layer.name, attention.name, attention.keys_values.name)
        yield Location(attention.keys_values, "keys_values", inside, **where)
        for part in ("attention", "mlp", "block"):
            place = getattr(layer, f"{part}_adapters")
            yield Location(place, part, (*scopes, layer.name, place.name), **where)
