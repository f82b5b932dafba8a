"""Checks a composition before it is active, and tells every place what it runs."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from tf_clip.adapters.composition import Average, BatchSplit, Block, Fuse, Parallel, Split, Stack, Switch
from tf_clip.adapters.methods.prompts import Prompt
from tf_clip.adapters.places import Location
from tf_clip.adapters.running import program
from tf_clip.layers.adapter_sites import AdapterPlace

if TYPE_CHECKING:
    from tf_clip.adapters.model import AdaptableModel

# The kinds of places at which blocks have no meaning, and why.
_NO_SPLIT = {
    "keys_values": "a prefix is read by all tokens",
    "prompts": "a prompt is tokens of its own",
}
_NO_AVERAGE = {
    "keys_values": "keys of one prefix have nothing to do with those of another",
    "prompts": "tokens of one prompt have nothing to do with those of another",
}


def blocks_in(block: str | Block | None) -> Iterator[Block]:
    """Yields a block and all blocks in it."""
    if isinstance(block, Block):
        yield block
        for child in block.children:
            yield from blocks_in(child)


def require_meaning(setup: Block, locations: list[Location]) -> None:
    """Checks that every block of a setup has a meaning for the adapters in it.

    Raises:
        ValueError: one has none; the message says why.
    """
    parallels = {len(block.children) for block in blocks_in(setup) if isinstance(block, Parallel)}
    if len(parallels) > 1:
        raise ValueError(f"`setup` must have Parallel blocks of one size. Received: {setup!r}.")
    for block in blocks_in(setup):
        for location in locations:
            here = [name for name in block.names() if name in location.place.by_name]
            if here:
                _require_meaning_at(block, location, here)


def _require_meaning_at(block: Block, location: Location, here: list[str]) -> None:
    kind = location.place.kind
    for blocks, reasons, instead in (
        (Split, _NO_SPLIT, "Use Stack or BatchSplit."),
        (Average, _NO_AVERAGE, "Use average_adapter, which makes one adapter of several."),
    ):
        if isinstance(block, blocks) and kind in reasons:
            raise ValueError(
                f"`setup` must not have {type(block).__name__} around {here[0]!r}: {reasons[kind]}. "
                f"Received: {block!r}. {instead}"
            )
    if isinstance(block, Fuse) and kind not in ("attention", "mlp"):
        raise ValueError(
            f"`setup` must fuse bottlenecks alone. Received: {block!r}, where {here[0]!r} is at "
            f"{'/'.join(location.scopes)}. Use Stack or Average."
        )
    if isinstance(block, Fuse) and block.name not in location.place.fusions:
        raise ValueError(
            f"`setup` must name a fusion that was added. Received: {block!r}. "
            f"Call add_adapter_fusion({list(block.names())}) first."
        )
    if kind == "prompts" and isinstance(block, BatchSplit | Parallel | Switch):
        lengths = {extra_tokens(child, location.place) for child in block.children}
        lengths |= {0} if isinstance(block, Switch) else set()
        if len(lengths) > 1:
            raise ValueError(
                f"`setup` must give every row as many prompts. Received: {block!r}, with {sorted(lengths)} tokens. "
                "Rows without them, or with fewer, go through the model in a batch of their own."
            )


def extra_tokens(block: str | Block, place: AdapterPlace) -> int:
    """Returns how many tokens a composition puts in."""
    if isinstance(block, str):
        adapter = place.by_name.get(block)
        return adapter.length if isinstance(adapter, Prompt) else 0
    lengths = [extra_tokens(child, place) for child in block.children]
    return sum(lengths) if isinstance(block, Stack) else max(lengths)


def copies_of_rows(setup: Block | None) -> int:
    """Returns how often each row goes through a tower."""
    if setup is None:
        return 1
    return max((len(block.children) for block in blocks_in(setup) if isinstance(block, Parallel)), default=1)


def require_same_for_every_row(setup: Block | None) -> None:
    """Checks that a setup does with a row what it would do with that row alone.

    Raises:
        ValueError: rows choose their adapter, go through several, or one by their place in the batch.
    """
    if setup is None or not any(isinstance(block, BatchSplit | Parallel | Switch) for block in blocks_in(setup)):
        return
    raise ValueError(
        f"`model` must do the same with every row. Received: a model with active_adapters={setup!r}. Make one adapter "
        "active, or merge one; for rows that choose, see examples/serve_adapters.py."
    )


def tell_places(setup: Block | None, skip_layers: Collection[int], locations: list[Location]) -> None:
    """Gives every place where an adapter of the setup stands what it runs, and takes it from all others."""
    run = None if setup is None else program(setup)
    names = set() if setup is None else set(setup.names())
    for location in locations:
        place = location.place
        acts = location.part != "shared" and location.layer not in skip_layers and not names.isdisjoint(place.by_name)
        place.program = run if acts else None
        place.extra_tokens = extra_tokens(setup, place) if acts and setup is not None else 0


class AdapterSetup:
    """Makes other adapters active inside a `with` block.

    Args:
        model: whose.
        setup: see `AdaptableModel.set_active_adapters`.
        skip_layers: likewise.

    Example:
        >>> with AdapterSetup(model, "mine"):
        ...     embeds = model.get_text_features(input_ids)
    """

    def __init__(self, model: AdaptableModel, setup: str | Block | None, skip_layers: Collection[int] = ()) -> None:
        self.model, self.setup, self.skip_layers = model, setup, skip_layers

    def __enter__(self) -> AdaptableModel:
        state = self.model.adapter_state
        self.before = state.active, state.skip_layers
        if state.merged is not None:
            raise ValueError(
                f"`model` must have nothing merged. Received: {state.merged!r} is. Call reset_adapter() first."
            )
        self.model.set_active_adapters(self.setup, self.skip_layers)
        return self.model

    def __exit__(self, *_: object) -> None:
        self.model.set_active_adapters(*self.before)
