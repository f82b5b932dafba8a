"""`adapter_scores`: looks at what gates and fusions decide."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

from tf_clip.adapters.sites import Location

Scores = dict[str, dict[str, dict[int | None, dict[str, Any]]]]
_recorded: contextvars.ContextVar[Scores | None] = contextvars.ContextVar("_recorded", default=None)


@contextlib.contextmanager
def adapter_scores() -> Iterator[Scores]:
    """Collects what gates and fusions decide while a model is called inside the `with` block.

    Call the model itself: what `fit` or `predict` have compiled decides in a graph. Inside a function of your own that
    is being traced, return what you want of it.

    Returns:
        `"gates"` with how much counts of an adapter in each row, `[batch, 1, 1 or 2]`, and `"fusions"` with the weights
        of the fused for each token, `[batch, length, adapters]`; each by name, layer number and part of the layer.

    Example:
        >>> with adapter_scores() as scores:
        ...     model(**inputs)
        >>> scores["gates"]["mine"][0]["mlp"]
    """
    found: Scores = {"gates": {}, "fusions": {}}
    token = _recorded.set(found)
    try:
        yield found
    finally:
        _recorded.reset(token)


def record(kind: str, name: str, location: Location, value: Any) -> None:
    """Keeps a value if anyone looks."""
    found = _recorded.get()
    if found is not None:
        found[kind].setdefault(name, {}).setdefault(location.layer, {})[location.part] = value
