"""Examples of training data that are skipped: their names, their count, and when they are too many."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import NamedTuple

_SHOWN = 20


class SkippedExample(NamedTuple):
    """An example that is left out.

    Args:
        where: file, and line, member or record in it.
        reason: a few words, the same for the same fault.
    """

    where: str
    reason: str


class ExampleError(ValueError):
    """An example is unreadable; the message gives the reason in a few words."""


class TooManySkipped(ValueError):
    """More examples are unreadable than `max_skipped_share` allows.

    Args:
        skipped: those that were found until then.
        num_examples: all, readable or not.
        max_skipped_share: the share that was allowed.
    """

    def __init__(self, skipped: Iterable[SkippedExample], num_examples: int, max_skipped_share: float) -> None:
        self.skipped = list(skipped)
        super().__init__(
            "`max_skipped_share` must be at least the share of unreadable examples. "
            f"Received: max_skipped_share={max_skipped_share}, and at least {len(self.skipped)} unreadable of "
            f"{num_examples} examples:\n{listed(self.skipped)}\nRepair or remove them, or allow more."
        )


def listed(skipped: Sequence[SkippedExample], shown: int = _SHOWN) -> str:
    """Returns one line an example, the first `shown` of them, and how many more there are."""
    lines = [f"  {example.where}: {example.reason}" for example in skipped[:shown]]
    if len(skipped) > shown:
        lines.append(f"  and {len(skipped) - shown} more")
    return "\n".join(lines)


class SkippedExamples:
    """Collects unreadable examples from several threads, each once, and refuses too many.

    Args:
        known: examples that were unreadable when the table was read, and have no number.
        num_examples: all, readable or not.
        max_skipped_share: the largest share of them that may be skipped, from 0 to 1.

    Attributes:
        found: the others, by their number.

    Raises:
        TooManySkipped: there are too many to begin with.
    """

    def __init__(self, known: Sequence[SkippedExample], num_examples: int, max_skipped_share: float) -> None:
        self._known, self._num_examples, self._max_share = tuple(known), num_examples, max_skipped_share
        self.found: dict[int, SkippedExample] = {}
        self._lock = threading.Lock()
        self._require_few()

    def add(self, number: int, example: SkippedExample) -> None:
        """Notes an example by its number.

        Raises:
            TooManySkipped: it is one too many.
        """
        with self._lock:
            self.found.setdefault(number, example)
            self._require_few()

    def to_list(self) -> list[SkippedExample]:
        """Returns those that were found so far, in the order of the data."""
        with self._lock:
            return self._in_order()

    def _in_order(self) -> list[SkippedExample]:
        return [*self._known, *(example for _, example in sorted(self.found.items()))]

    def _require_few(self) -> None:
        if len(self._known) + len(self.found) > self._max_share * self._num_examples:
            raise TooManySkipped(self._in_order(), self._num_examples, self._max_share)
