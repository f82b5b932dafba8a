"""Rows of training data that cannot be used: what they are called, who counts them, and when they are too many."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import NamedTuple

_SHOWN = 20


class BadRow(NamedTuple):
    """A row that is left out.

    Args:
        where: file, and line, member or record in it.
        why: a few words, the same for the same fault.
    """

    where: str
    why: str


class RowError(Exception):
    """A row cannot be used; the message says why in a few words."""


class TooManyBadRows(ValueError):
    """More rows cannot be used than was allowed; `bad_rows` lists those that were found.

    Args:
        bad_rows: all that were found until then.
        num_rows: all rows, good and bad.
        max_bad_share: the share that was allowed.
    """

    def __init__(self, bad_rows: Iterable[BadRow], num_rows: int, max_bad_share: float) -> None:
        self.bad_rows = list(bad_rows)
        super().__init__(
            f"`max_bad_share` must not be passed by the share of rows that cannot be used. "
            f"Received: max_bad_share={max_bad_share}, and at least {len(self.bad_rows)} bad of {num_rows} rows:\n"
            f"{listed(self.bad_rows)}\nRepair or remove them, or allow more."
        )


def listed(bad_rows: Sequence[BadRow], shown: int = _SHOWN) -> str:
    """Returns one line a row, the first `shown` of them, and how many more there are."""
    lines = [f"  {row.where}: {row.why}" for row in bad_rows[:shown]]
    if len(bad_rows) > shown:
        lines.append(f"  and {len(bad_rows) - shown} more")
    return "\n".join(lines)


class BadRows:
    """Counts bad rows from several threads, each once, and stops when they are too many.

    Args:
        known: rows that were bad when the table was read, and have no number.
        num_rows: all rows, good and bad.
        max_bad_share: how many of them may be bad, from 0 to 1.

    Raises:
        TooManyBadRows: there are too many to begin with.
    """

    def __init__(self, known: Sequence[BadRow], num_rows: int, max_bad_share: float) -> None:
        self._known, self._num_rows, self._max_bad_share = tuple(known), num_rows, max_bad_share
        self._found: dict[int, BadRow] = {}
        self._lock = threading.Lock()
        self._require_few()

    def __contains__(self, row: int) -> bool:
        return row in self._found

    def add(self, row: int, bad_row: BadRow) -> None:
        """Notes a row by its number.

        Raises:
            TooManyBadRows: it is one too many.
        """
        with self._lock:
            self._found.setdefault(row, bad_row)
            self._require_few()

    def to_list(self) -> list[BadRow]:
        """Returns all that were found so far, in the order of the data."""
        with self._lock:
            return self._in_order()

    def _in_order(self) -> list[BadRow]:
        return [*self._known, *(bad_row for _, bad_row in sorted(self._found.items()))]

    def _require_few(self) -> None:
        if len(self._known) + len(self._found) > self._max_bad_share * self._num_rows:
            raise TooManyBadRows(self._in_order(), self._num_rows, self._max_bad_share)
