"""Cuts inputs into batches, keeps out the rows that cannot be read, and joins the answers in order."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from tf_clip.client.errors import ServingError
from tf_clip.client.inputs import name_of
from tf_clip.client.results import OK
from tf_clip.client.signatures import Signature

Columns = Mapping[str, tuple[Sequence[Any], Callable[[Any], bytes]]]
"""From an input's name to its items, and to the function that makes bytes of one."""


@dataclasses.dataclass
class Batch:
    """One batch of rows.

    Args:
        rows: the positions of its rows in the call.
        inputs: from an input's name to the bytes that are sent, one for each readable row.
        sent: the positions of the rows in `inputs`.
        unreadable: from the position of a row that is not sent to the reason.
        outputs: the answer: an array for each output.
    """

    rows: range
    inputs: dict[str, list[bytes]]
    sent: list[int]
    unreadable: dict[int, str]
    outputs: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)


def slices(start: int, stop: int, size: int) -> list[slice]:
    """Returns the slices that cut a part of a list into batches."""
    return [slice(first, min(first + size, stop)) for first in range(start, stop, size)]


def read_batch(columns: Columns, part: slice) -> Batch:
    """Reads the rows of one batch; a row that cannot be read is noted and not sent."""
    batch = Batch(range(part.start, part.stop), {name: [] for name in columns}, [], {})
    for index in batch.rows:
        try:
            row = {name: to_bytes(items[index]) for name, (items, to_bytes) in columns.items()}
        except OSError as error:
            batch.unreadable[index] = f"the file cannot be read: {error.strerror or error}"
            continue
        except ValueError as error:
            batch.unreadable[index] = str(error)
            continue
        batch.sent.append(index)
        for name, value in row.items():
            batch.inputs[name].append(value)
    return batch


def run_concurrently(run: Callable[[slice], list[Batch]], parts: Sequence[slice], concurrency: int) -> list[Batch]:
    """Runs batches, at most `concurrency` at a time; the files of a batch are read when its turn comes."""
    if concurrency == 1 or len(parts) < 2:
        return [batch for part in parts for batch in run(part)]
    with ThreadPoolExecutor(min(concurrency, len(parts)), "tf_clip_client") as pool:
        futures = [pool.submit(run, part) for part in parts]
        try:
            return [batch for future in futures for batch in future.result()]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def refuse_bad_rows(batch: Batch, signature: Signature, columns: Columns, texts: Sequence[bytes]) -> None:
    """Raises for the first row that is not `"ok"`, and for the first such text of those sent with every batch.

    Raises:
        ServingError: there is one.
    """
    for index, status in _statuses(batch, signature):
        if status != OK:
            raise _bad_row(index, [items[index] for items, _ in columns.values()], status)
    for name in signature.row_per_text & set(batch.outputs):
        for index, status in enumerate(batch.outputs[name]):
            if status != OK:
                raise _bad_row(index, [texts[index].decode("utf-8", "replace")], status)


def _statuses(batch: Batch, signature: Signature) -> Iterator[tuple[int, str]]:
    yield from batch.unreadable.items()
    if batch.sent:
        yield from zip(batch.sent, batch.outputs[signature.status], strict=True)


def _bad_row(index: int, items: Sequence[Any], status: str) -> ServingError:
    return ServingError(
        f"row {index} ({', '.join(map(name_of, items))}): {status}",
        advice='Leave it out, or take `on_bad_row="status"`, which gives the other rows.',
    )


def joined(
    batches: Sequence[Batch], signature: Signature, shapes: Mapping[str, tuple[int, ...]], texts: int = 0
) -> dict[str, np.ndarray]:
    """Returns the outputs of all rows in order; rows that were not sent are zeros, and their status is the reason.

    Args:
        batches: all batches of a call.
        signature: whose outputs they have.
        shapes: from an output to the shape of one row, used when no batch was sent.
        texts: the number of texts sent with every batch.

    Raises:
        ServingError: the rows of two batches have different shapes.
    """
    length = sum(len(batch.rows) for batch in batches)
    sent = [batch for batch in batches if batch.sent]
    outputs = {}
    for name in signature.outputs:
        if name in signature.row_per_text:
            unsent = np.full(texts, "not sent: no image could be read", object)
            outputs[name] = sent[0].outputs[name] if sent else unsent
            continue
        found = {batch.outputs[name].shape[1:] for batch in sent} or {shapes.get(name, ())}
        if len(found) > 1:
            raise ServingError(
                f"the answers have {name!r} of different shapes, {sorted(found)}",
                advice="Another version was loaded during the call: call again, or give a `version`.",
            )
        shape = (length, *found.pop())
        outputs[name] = np.full(shape, "", object) if name in signature.strings else np.zeros(shape, np.float32)
        for batch in sent:
            outputs[name][batch.sent] = batch.outputs[name]
    for batch in batches:
        for index, reason in batch.unreadable.items():
            outputs[signature.status][index] = reason
    return outputs
