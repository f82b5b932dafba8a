"""Where adapters act in a model: each site with its layer's number and its part of that layer, and all of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import keras

from tf_clip.layers.adapter_sites import AdapterSite
from tf_clip.layers.transformer import AdaptableDense, EncoderLayer


@dataclasses.dataclass(frozen=True)
class Location:
    """A site and where it is.

    Args:
        site: holds the adapters.
        part: of its layer: `"q"`, `"k"`, `"v"`, `"o"`, `"fc1"`, `"fc2"`, `"keys_values"`, `"attention"`, `"mlp"`
            or `"block"`; of its tower: `"embeddings"` or `"prompts"`; of the model: `"shared"`.
        scopes: names of the layers around the site, from the tower on, and its own.
        tower: `"text"` or `"vision"`; `"model"` for what belongs to no tower.
        layer: the layer's number: in its tower as `adapter_sites` returns it, in the model in `Sites`; None
            outside of layers.
        index: the layer's number in its tower.
        dense: the dense layer that has the site, if one has.
        token_embedding: the table that prompts at this site can begin with, if there is one.
    """

    site: AdapterSite
    part: str
    scopes: tuple[str, ...]
    tower: str
    layer: int | None = None
    index: int | None = None
    dense: AdaptableDense | None = None
    token_embedding: keras.layers.Embedding | None = None


class AdaptableTower:
    """What a tower inherits from if adapters can act in it; other towers of a model are left alone."""

    gradient_checkpointing: bool = False

    def adapter_sites(self) -> Iterable[Location]:
        """Returns where adapters can act, the tower's layers numbered from 0."""
        raise NotImplementedError(f"{type(self).__name__} must return its adapter sites.")


class Sites:
    """All sites of a model, its layers numbered over all towers: the first tower's from 0, the next one's behind.

    Args:
        shared: the site for what the layers of an adapter share.
        towers: in the order of their layers' numbers.
    """

    def __init__(self, shared: Location, towers: Iterable[AdaptableTower]) -> None:
        self.shared = shared
        self.locations: list[Location] = []
        first = 0
        for tower in towers:
            own = list(tower.adapter_sites())
            self.locations += [
                location if location.layer is None else dataclasses.replace(location, layer=first + location.layer)
                for location in own
            ]
            first += len({location.layer for location in own} - {None})
        self.num_layers = first

    def holding(self, name: str) -> list[Location]:
        """Returns the locations that hold an adapter, the shared one first."""
        return [location for location in (self.shared, *self.locations) if name in location.site.by_name]

    def adapters(self, name: str) -> list[Any]:
        """Returns an adapter's modules, what its layers share first."""
        return [location.site.by_name[name] for location in self.holding(name)]

    def fusing(self, name: str) -> list[Location]:
        """Returns the locations that hold a fusion."""
        return [location for location in self.locations if name in location.site.fusions]

    def fusions(self, name: str) -> list[Any]:
        """Returns a fusion's modules."""
        return [location.site.fusions[name] for location in self.fusing(name)]


def layer_locations(tower: str, scope: str, layers: Sequence[EncoderLayer]) -> Iterator[Location]:
    """Yields the locations in a tower's transformer layers, numbered from 0.

    Args:
        tower: `"text"` or `"vision"`.
        scope: the tower's name.
        layers: of the tower.
    """
    for index, layer in enumerate(layers):
        attention = layer.self_attn
        where: dict[str, Any] = {"tower": tower, "layer": index, "index": index}
        denses: dict[str, tuple[Any, AdaptableDense]] = {
            "q": (attention, attention.q_proj),
            "k": (attention, attention.k_proj),
            "v": (attention, attention.v_proj),
            "o": (attention, attention.out_proj),
            "fc1": (layer.mlp, layer.mlp.fc1),
            "fc2": (layer.mlp, layer.mlp.fc2),
        }
        for part, (parent, dense) in denses.items():
            scopes = (scope, layer.name, parent.name, dense.name, dense.adapters.name)
            yield Location(dense.adapters, part, scopes, dense=dense, **where)
        inside = (scope, layer.name, attention.name, attention.keys_values.name)
        yield Location(attention.keys_values, "keys_values", inside, **where)
        in_layer = {"attention": layer.attention_adapters, "mlp": layer.mlp_adapters, "block": layer.block_adapters}
        for part, site in in_layer.items():
            yield Location(site, part, (scope, layer.name, site.name), **where)
