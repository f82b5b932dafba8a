"""Reading one thing after the other, and going on after one that is unreadable."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

UNREADABLE = (OSError, TypeError, ValueError)
"""What reading an image raises if it is missing, is none, or is broken; `open_image` says which when."""


def readable(
    read: Callable[[int], T], indices: Iterable[int], on_unreadable: Callable[[int, str], None] | None = None
) -> Iterator[tuple[int, T]]:
    """Reads items by their index, lazily.

    Args:
        read: from an index to the item; raises one of `UNREADABLE` for an unreadable one.
        indices: what to read, in this order.
        on_unreadable: called with the index of each unreadable item and the reason, before the next is read.
            None stops at the first.

    Yields:
        The index and the item, for each that is readable.

    Raises:
        FileNotFoundError, OSError, TypeError, ValueError: an item is unreadable and `on_unreadable` is None.
    """
    for index in indices:
        try:
            item = read(index)
        except UNREADABLE as error:
            if on_unreadable is None:
                raise
            on_unreadable(index, str(error))
        else:
            yield index, item
