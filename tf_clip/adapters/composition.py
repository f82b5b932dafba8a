"""Which adapters are active, and how several work together: `Stack("a", Average("b", "c"))`."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

Setup = "str | Block"
MAX_DEPTH = 3


@dataclasses.dataclass(frozen=True, init=False)
class Block:
    """Adapters that work together in one way; equal when kind, children and options are.

    Args:
        children: adapters' names, or other blocks.
    """

    children: tuple[str | Block, ...]
    # The kinds of blocks that it may contain; names always may.
    may_hold: ClassVar[tuple[str, ...]] = ()

    def __init__(self, *children: str | Block) -> None:
        if not children:
            raise ValueError(f"`children` of {type(self).__name__} must not be empty. Received: none. Name an adapter.")
        for child in children:
            if not isinstance(child, str | Block):
                raise TypeError(f"`children` must be names or blocks. Received: {child!r}. Use Stack, Fuse and so on.")
            if isinstance(child, Block) and type(child).__name__ not in self.may_hold:
                raise ValueError(
                    f"`children` of {type(self).__name__} must be names or of {', '.join(self.may_hold) or 'no kind'}. "
                    f"Received: {child!r}. Put it outside."
                )
        object.__setattr__(self, "children", tuple(children))
        if self.depth > MAX_DEPTH:
            raise ValueError(f"Blocks must be at most {MAX_DEPTH} deep. Received: {self!r}. Remove one.")

    @property
    def depth(self) -> int:
        """How many blocks are nested here."""
        return 1 + max((child.depth for child in self.children if isinstance(child, Block)), default=0)

    def names(self) -> list[str]:
        """Returns the adapters in it, each once, in order."""
        return list(dict.fromkeys(self._all_names()))

    def _all_names(self) -> Iterator[str]:
        for child in self.children:
            if isinstance(child, str):
                yield child
            else:
                yield from child._all_names()

    @property
    def last(self) -> str:
        """The adapter that works last in it."""
        child = self.children[-1]
        return child if isinstance(child, str) else child.last

    def options(self) -> dict[str, Any]:
        """Returns what it was made with besides children."""
        names = [field.name for field in dataclasses.fields(self) if field.name != "children"]
        return {name: list(getattr(self, name)) for name in names}

    def to_dict(self) -> dict[str, Any]:
        """Returns the block as AdapterHub's `adapter_setup.json` has it."""
        children = [
            {"type": "single", "children": [child]} if isinstance(child, str) else child.to_dict()
            for child in self.children
        ]
        options = self.options()
        return {"type": type(self).__name__, "children": children, **({"kwargs": options} if options else {})}

    @classmethod
    def from_dict(cls, block: Mapping[str, Any]) -> Block:
        """Reads what `to_dict` wrote.

        Raises:
            ValueError: the kind of block is unknown.
        """
        kinds = {kind.__name__: kind for kind in (Stack, Fuse, Average, BatchSplit, Parallel, Split, Switch)}
        kind = kinds.get(block.get("type", ""))
        if kind is None:
            raise ValueError(
                f"`type` must be one of {', '.join(kinds)}. Received: {block.get('type')!r}. Check the file."
            )
        children = [
            child["children"][0] if child["type"] == "single" else cls.from_dict(child) for child in block["children"]
        ]
        return kind(*children, **block.get("kwargs", {}))

    def __repr__(self) -> str:
        inside = [repr(child) for child in self.children]
        inside += [f"{name}={value!r}" for name, value in self.options().items()]
        return f"{type(self).__name__}({', '.join(inside)})"


class Stack(Block):
    """One after the other: each reads what the one before it made."""

    may_hold = ("Fuse", "Split", "Parallel", "BatchSplit", "Average", "Switch")


@dataclasses.dataclass(frozen=True, init=False, repr=False)
class Fuse(Block):
    """All on the same input, weighed for each token by a learned attention (AdapterFusion).

    Args:
        name: of the fusion's own weights; the last adapters' names with commas unless given.
    """

    may_hold = ("Stack",)
    name: str = ""

    def __init__(self, *children: str | Block, name: str | None = None) -> None:
        super().__init__(*children)
        lasts = [child if isinstance(child, str) else child.last for child in self.children]
        object.__setattr__(self, "name", name or ",".join(lasts))

    def options(self) -> dict[str, Any]:
        """Returns the name if it is not the usual one."""
        usual = type(self)(*self.children).name if self.name else self.name
        return {} if self.name == usual else {"name": self.name}


@dataclasses.dataclass(frozen=True, init=False, repr=False)
class Average(Block):
    """All on the same input; the result is their weighted mean.

    Args:
        weights: one a child; equal if None.
        normalize_weights: whether they are divided by their sum.
    """

    may_hold = ("Stack", "Split", "BatchSplit")
    weights: tuple[float, ...] = ()

    def __init__(
        self, *children: str | Block, weights: Sequence[float] | None = None, normalize_weights: bool = True
    ) -> None:
        super().__init__(*children)
        given = [1.0] * len(children) if weights is None else [float(weight) for weight in weights]
        _require_one_each("weights", given, children)
        if weights is None or normalize_weights:
            total = sum(given)
            if not total:
                raise ValueError(f"`weights` must not sum to 0. Received: weights={given}. Or normalize_weights=False.")
            given = [weight / total for weight in given]
        object.__setattr__(self, "weights", tuple(given))

    def options(self) -> dict[str, Any]:
        """Returns the weights as they are used."""
        return {**super().options(), "normalize_weights": False}


@dataclasses.dataclass(frozen=True, init=False, repr=False)
class BatchSplit(Block):
    """Each on its own rows of the batch.

    Args:
        batch_sizes: how many rows each child has, or one number for all of them.
    """

    may_hold = ("Stack", "Split", "BatchSplit", "Average")
    batch_sizes: tuple[int, ...] = ()

    def __init__(self, *children: str | Block, batch_sizes: Sequence[int] | int) -> None:
        super().__init__(*children)
        object.__setattr__(self, "batch_sizes", _sizes("batch_sizes", batch_sizes, children))


@dataclasses.dataclass(frozen=True, init=False, repr=False)
class Split(Block):
    """Each on its own tokens, counted from the first.

    Args:
        splits: how many tokens each child has, or one number for all of them; together the whole length.
    """

    may_hold = ("Stack", "Split", "BatchSplit", "Average")
    splits: tuple[int, ...] = ()

    def __init__(self, *children: str | Block, splits: Sequence[int] | int) -> None:
        super().__init__(*children)
        object.__setattr__(self, "splits", _sizes("splits", splits, children))


class Parallel(Block):
    """All on the same rows, each with a result of its own: of n rows come n for the first, then n for the second..."""

    may_hold = ("Stack", "BatchSplit", "Average")


class Switch(Block):
    """One for each row, chosen by the number in `adapter_ids`: 0 for the first, -1 for none."""

    may_hold = ("Stack", "Average")


def as_setup(setup: str | Block | None) -> Block | None:
    """Returns a block: a name alone is a stack of one.

    Raises:
        TypeError: it is neither.
    """
    if setup is None or isinstance(setup, Block):
        return setup
    if isinstance(setup, str):
        return Stack(setup)
    raise TypeError(
        f"`setup` must be an adapter's name, a block such as Stack('a', 'b'), or None. Received: {setup!r}. "
        "A list does not say how its adapters work together: use Stack or Fuse."
    )


def _require_one_each(name: str, given: Sequence[Any], children: Sequence[Any]) -> None:
    if len(given) != len(children):
        raise ValueError(f"`{name}` must be one for each of {len(children)} children. Received: {name}={list(given)}.")


def _sizes(name: str, given: Sequence[int] | int, children: Sequence[Any]) -> tuple[int, ...]:
    sizes = tuple([given] * len(children) if isinstance(given, int) else given)
    _require_one_each(name, sizes, children)
    if any(not isinstance(size, int) or size < 0 for size in sizes):
        raise ValueError(f"`{name}` must be whole numbers from 0 on. Received: {name}={sizes}.")
    return sizes


def as_fuse(adapters: Fuse | Sequence[str]) -> Fuse:
    """Returns a `Fuse` of names, or the one that is given."""
    return adapters if isinstance(adapters, Fuse) else Fuse(*adapters)


def blocks_in(block: str | Block | None) -> Iterator[Block]:
    """Yields a block and all blocks in it."""
    if isinstance(block, Block):
        yield block
        for child in block.children:
            yield from blocks_in(child)


def copies_of_rows(setup: Block | None) -> int:
    """Returns how often each row goes through a tower."""
    if setup is None:
        return 1
    return max((len(block.children) for block in blocks_in(setup) if isinstance(block, Parallel)), default=1)


def require_same_for_every_row(setup: Block | None) -> None:
    """Checks that a setup does with a row what it would do with that row alone.

    Raises:
        ValueError: rows choose their adapter, go through several, or one by their position in the batch.
    """
    if setup is None or not any(isinstance(block, BatchSplit | Parallel | Switch) for block in blocks_in(setup)):
        return
    raise ValueError(
        f"`model` must do the same with every row. Received: a model with active_adapters={setup!r}. Make one adapter "
        "active, or merge one; for rows that choose, see examples/serve_adapters.py."
    )


def fusions_in(setup: Block) -> list[str]:
    """Returns the names of all fusions in a composition."""
    return [block.name for block in blocks_in(setup) if isinstance(block, Fuse)]
