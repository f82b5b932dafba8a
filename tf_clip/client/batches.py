"""Cuts inputs into batches, keeps out the rows that cannot be read, and puts the answers back in order."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tf_clip.client.errors import ServingError

Columns = Mapping[str, tuple[Sequence[Any], Callable[[Any], bytes]]]
"""From an input's name to its items and to what makes bytes of one."""


@dataclasses.dataclass
class Piece:
    """One batch of rows.

    Args:
        rows: the places of its rows in the call.
        inputs: from an input's name to what is sent: the readable rows.
        sent: the places of the rows in `inputs`.
        unreadable: from the place of a row that is not sent to the reason.
        outputs: the answer, one row for each of `sent`.
        shared: outputs that are not by rows.
    """

    rows: range
    inputs: dict[str, list[bytes]]
    sent: list[int]
    unreadable: dict[int, str]
    outputs: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    shared: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)

    def statuses(self) -> Iterator[tuple[int, str]]:
        """Yields the place and the status of each row, in no order."""
        yield from self.unreadable.items()
        if self.sent:
            yield from zip(self.sent, self.outputs["status"], strict=True)


def read_piece(columns: Columns, part: slice) -> Piece:
    """Reads the rows of one batch; what cannot be read is noted and not sent."""
    piece = Piece(range(part.start, part.stop), {name: [] for name in columns}, [], {})
    for index in piece.rows:
        try:
            row = {name: to_bytes(items[index]) for name, (items, to_bytes) in columns.items()}
        except OSError as error:
            piece.unreadable[index] = f"the file cannot be read: {error.strerror or error}"
            continue
        except ValueError as error:
            piece.unreadable[index] = str(error)
            continue
        piece.sent.append(index)
        for name, value in row.items():
            piece.inputs[name].append(value)
    return piece


def joined(
    pieces: Sequence[Piece], shapes: Mapping[str, tuple[int, ...]], strings: frozenset[str] = frozenset()
) -> dict[str, np.ndarray]:
    """Returns the outputs of all rows in order, `status` among them; rows that were not sent are zeros.

    Args:
        pieces: the batches.
        shapes: from an output to the shape of a row, for when no batch was sent.
        strings: the outputs that are strings.

    Raises:
        ServingError: rows of two batches have different shapes.
    """
    length = sum(len(piece.rows) for piece in pieces)
    outputs = {}
    for name in {**shapes, "status": ()}:
        found = {piece.outputs[name].shape[1:] for piece in pieces if piece.sent}
        if len(found) > 1:
            raise ServingError(
                f"the answers have {name!r} of different shapes, {sorted(found)}",
                advice="Another version was loaded during the call: call again, or give a `version`.",
            )
        text = name in strings or name == "status"
        shape = (length, *(found.pop() if found else shapes.get(name, ())))
        outputs[name] = np.full(shape, "", object) if text else np.zeros(shape, np.float32)
        for piece in pieces:
            if piece.sent:
                outputs[name][piece.sent] = piece.outputs[name]
            if name == "status":
                for index, reason in piece.unreadable.items():
                    outputs[name][index] = reason
    return outputs
