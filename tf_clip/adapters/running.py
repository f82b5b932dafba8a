"""Runs the active adapters at a site: what `Stack`, `Average` and the others mean.

All of it is decided while a graph is traced. A site where an adapter has no part is left as it is.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

from keras import ops

from tf_clip.adapters.composition import Average, BatchSplit, Block, Fuse, Parallel, Split, Stack, Switch
from tf_clip.adapters.methods.bottleneck import Bottleneck
from tf_clip.adapters.methods.linear import can_be_gathered, gathered
from tf_clip.adapters.methods.prefix import with_columns
from tf_clip.adapters.sites import Sites
from tf_clip.layers.adapter_sites import AdapterSite, RowInputs

State = tuple[Any, ...]


class At(NamedTuple):
    """Where a composition runs.

    Args:
        site: with the adapters.
        rows: of the batch, or of the part of it that a child has.
        training: whether it is training.
    """

    site: AdapterSite
    rows: RowInputs
    training: bool | None


def set_programs(setup: Block | None, skip_layers: Collection[int], sites: Sites) -> None:
    """Gives every site with an adapter of the setup what it runs, and takes it from all others."""
    run = None if setup is None else program(setup)
    names = set() if setup is None else set(setup.names())
    for location in sites.locations:
        site = location.site
        acts = location.layer not in skip_layers and not names.isdisjoint(site.by_name)
        site.set_program(run if acts else None)
        site.extra_tokens = extra_tokens(setup, site) if acts and setup is not None else 0


def program(setup: Block) -> Callable[..., State]:
    """Returns what a site runs when a composition is active."""

    def run(site: AdapterSite, state: State, rows: RowInputs, training: bool | None) -> State:
        if site.kind == "keys_values" and not _is_plain(setup):
            state = _with_full_visible(state)
        return evaluate(setup, At(site, rows, training), state)

    return run


def evaluate(block: str | Block, at: At, state: State) -> State:
    """Returns what a composition makes of a state at a site."""
    if isinstance(block, str):
        adapter = at.site.by_name.get(block)
        return state if adapter is None else adapter.adapt(state, at.rows, at.training)
    return _EVALUATE[type(block)](block, at, state)


def _stack(block: Stack, at: At, state: State) -> State:
    for child in block.children:
        state = evaluate(child, at, state)
    return state


def _average(block: Average, at: At, state: State) -> State:
    results = [evaluate(child, at, state) for child in block.children]
    # The state itself counts once, whatever the weights' sum.
    left = 1.0 - sum(block.weights)
    averaged = []
    for number, element in enumerate(state):
        made = [result[number] for result in results]
        if all(one is element for one in made):
            averaged.append(element)
            continue
        mean = sum(weight * one for weight, one in zip(block.weights, made, strict=True))
        averaged.append(mean if abs(left) < 1e-6 else mean + left * element)
    return tuple(averaged)


def _batch_split(block: BatchSplit, at: At, state: State) -> State:
    total = sum(block.batch_sizes)
    known = state[0].shape[0]
    if known is not None and known != total:
        raise ValueError(
            f"`batch_sizes` must add up to the number of rows, {known}. Received: batch_sizes={block.batch_sizes}. "
            "Text and image batches of a CLIPModel must both have that many."
        )
    # A number of rows that is known only when the graph runs is checked here.
    state, rows = _of_rows(state, at.rows, lambda x: ops.reshape(x, (total, *ops.shape(x)[1:])))
    results, begin = [], 0
    for child, size in zip(block.children, block.batch_sizes, strict=True):
        end = begin + size
        own, own_rows = _of_rows(state, rows, operator.itemgetter(slice(begin, end)))
        results.append(evaluate(child, at._replace(rows=own_rows), own) if size else own)
        begin = end
    return _joined(block, at, results)


def _parallel(block: Parallel, at: At, state: State) -> State:
    count = len(block.children)
    results = []
    for number, child in enumerate(block.children):

        def part(x: Any, number: int = number) -> Any:
            shape = ops.shape(x)
            rest = [size if known is None else known for known, size in zip(x.shape[1:], shape[1:], strict=True)]
            rows = -1 if x.shape[0] is None else x.shape[0] // count
            return ops.reshape(x, (count, rows, *rest))[number]

        own, own_rows = _of_rows(state, at.rows, part)
        results.append(evaluate(child, at._replace(rows=own_rows), own))
    return _joined(block, at, results)


def _split(block: Split, at: At, state: State) -> State:
    total, known = sum(block.splits), state[0].shape[1]
    if known is not None and known != total:
        raise ValueError(
            f"`splits` must add up to the number of tokens, {known}. Received: splits={block.splits}. Texts and "
            "images have different numbers: leave one tower's layers out with `leave_out` or `skip_layers`."
        )
    state = tuple(ops.reshape(x, (-1, total, x.shape[-1])) for x in state)
    results, begin = [], 0
    for child, size in zip(block.children, block.splits, strict=True):
        own = tuple(x[:, begin : begin + size] for x in state)
        mask = at.rows.mask
        rows = at.rows if mask is None else at.rows._replace(mask=mask[:, begin : begin + size])
        results.append(evaluate(child, at._replace(rows=rows), own) if size else own)
        begin += size
    return tuple(ops.concatenate(made, axis=1) for made in zip(*results, strict=True))


def _switch(block: Switch, at: At, state: State) -> State:
    ids = at.rows.adapter_ids
    if ids is None:
        raise ValueError(
            "`adapter_ids` must be given while Switch is active: a number for each row, -1 for no adapter. Received: "
            "None. Pass adapter_ids to the tower; to a CLIPModel, text_adapter_ids and image_adapter_ids."
        )
    names = [child for child in block.children if isinstance(child, str)]
    if at.site.kind == "linear" and len(names) == len(block.children):
        adapters: list[Any] = [at.site.by_name.get(name) for name in names]
        if can_be_gathered(adapters):
            return gathered(adapters, state, at.rows, at.training)
    results = [state, *(evaluate(child, at, state) for child in block.children)]
    results = _of_one_length(["", *block.children], at, results)
    chosen = results[0]
    for number, result in enumerate(results[1:]):
        chosen = tuple(
            old if not hasattr(new, "shape") else ops.where(_as_column(ids == number, new), new, old)
            for old, new in zip(chosen, result, strict=True)
        )
    return chosen


def _as_column(per_row: Any, like: Any) -> Any:
    return ops.reshape(per_row, (-1, *([1] * (len(like.shape) - 1))))


def _fuse(block: Fuse, at: At, state: State) -> State:
    y, residual = state
    made, last = [], None
    for child in block.children:
        names = [child] if isinstance(child, str) else [name for name in child.children if isinstance(name, str)]
        names = [name for name in names if name in at.site.by_name]
        if not names:
            continue
        inner = state
        for name in names[:-1]:
            inner = at.site.by_name[name].adapt(inner, at.rows, at.training)
        last = at.site.by_name[names[-1]]
        made.append(last.made(last.read(*inner), at.training))
    fusion = at.site.fusions.get(block.name)
    if fusion is None or not isinstance(last, Bottleneck):
        return state
    query = y if fusion.settings.query_before_ln and not last.settings.is_parallel else last.read(y, residual)
    return fusion.weigh(query, made, y, at.training), residual


_EVALUATE: dict[type[Block], Callable[..., State]] = {
    Stack: _stack,
    Average: _average,
    BatchSplit: _batch_split,
    Parallel: _parallel,
    Split: _split,
    Switch: _switch,
    Fuse: _fuse,
}


def _of_rows(state: State, rows: RowInputs, function: Callable[[Any], Any]) -> tuple[State, RowInputs]:
    """Applies a function to all that has a row for each of the batch."""
    own = tuple(function(x) if hasattr(x, "shape") else x for x in state)
    return own, RowInputs(*(None if x is None else function(x) for x in rows))


def _joined(block: Block, at: At, results: Sequence[State]) -> State:
    """Puts rows together again."""
    results = _of_one_length(block.children, at, results)
    return tuple(
        ops.concatenate(made, axis=0) if hasattr(made[0], "shape") else made[0] for made in zip(*results, strict=True)
    )


def _is_plain(block: str | Block) -> bool:
    return isinstance(block, str) or (isinstance(block, Stack) and all(_is_plain(child) for child in block.children))


def _with_full_visible(state: State) -> State:
    """Says for each row which keys are visible, so that rows can be parted."""
    keys, values, visible, x = state
    shape = (ops.shape(keys)[0], 1, ops.shape(x)[1], ops.shape(keys)[1])
    everything = ops.ones(shape, "bool")
    return keys, values, everything if visible is None else ops.logical_and(everything, visible), x


def _of_one_length(children: Sequence[str | Block], at: At, results: Sequence[State]) -> list[State]:
    """Pads shorter prefixes in front, with keys that no token may read."""
    if at.site.kind != "keys_values":
        return list(results)
    lengths = [extra_tokens(child, at.site) for child in children]
    padded = []
    for length, (keys, values, visible, x) in zip(lengths, results, strict=True):
        missing = max(lengths) - length
        if missing:
            padding = ((0, 0), (missing, 0), (0, 0), (0, 0))
            keys, values = ops.pad(keys, padding), ops.pad(values, padding)
        padded.append((keys, values, with_columns(visible, missing, False), x))
    return padded


def extra_tokens(block: str | Block, site: AdapterSite) -> int:
    """Returns how many tokens, or keys, a composition puts in at a site."""
    if isinstance(block, str):
        adapter: Any = site.by_name.get(block)
        return 0 if adapter is None else int(adapter.extra_tokens)
    counts = [extra_tokens(child, site) for child in block.children]
    return sum(counts) if isinstance(block, Stack) else max(counts)
