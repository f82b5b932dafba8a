"""Checks that a composition has a meaning for the adapters in it, before it is active."""

from __future__ import annotations

from tf_clip.adapters.composition import (
    Average,
    BatchSplit,
    Block,
    Fuse,
    Parallel,
    Split,
    Switch,
    blocks_in,
)
from tf_clip.adapters.running import extra_tokens
from tf_clip.adapters.sites import Location, Sites

# The kinds of sites at which blocks have no meaning, and why.
_NO_SPLIT = {
    "keys_values": "a prefix is read by all tokens",
    "prompts": "a prompt is tokens of its own",
}
_NO_AVERAGE = {
    "keys_values": "keys of one prefix have nothing to do with those of another",
    "prompts": "tokens of one prompt have nothing to do with those of another",
}


def require_meaning(setup: Block, sites: Sites) -> None:
    """Checks that every block of a setup has a meaning for the adapters in it.

    Raises:
        ValueError: one has none; the message says why.
    """
    parallels = {len(block.children) for block in blocks_in(setup) if isinstance(block, Parallel)}
    if len(parallels) > 1:
        raise ValueError(f"`setup` must have Parallel blocks of one size. Received: {setup!r}.")
    for block in blocks_in(setup):
        for location in sites.locations:
            here = [name for name in block.names() if name in location.site.by_name]
            if here:
                _require_meaning_at(block, location, here)


def _require_meaning_at(block: Block, location: Location, here: list[str]) -> None:
    kind = location.site.kind
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
    if isinstance(block, Fuse) and block.name not in location.site.fusions:
        raise ValueError(
            f"`setup` must name a fusion that was added. Received: {block!r}. "
            f"Call add_adapter_fusion({list(block.names())}) first."
        )
    if kind == "prompts" and isinstance(block, BatchSplit | Parallel | Switch):
        lengths = {extra_tokens(child, location.site) for child in block.children}
        lengths |= {0} if isinstance(block, Switch) else set()
        if len(lengths) > 1:
            raise ValueError(
                f"`setup` must give every row the same number of prompts. Received: {block!r}, with "
                f"{sorted(lengths)} tokens. "
                "Rows without them, or with fewer, go through the model in a batch of their own."
            )
