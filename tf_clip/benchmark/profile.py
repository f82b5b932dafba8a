"""Where the time goes: a trace for TensorBoard, and the operations that take most of it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import tensorflow as tf

# The event of an operation has the name "name in the graph:kind"; parts of XLA have a name without a colon.
_OPERATION = re.compile(r"^[^:]+:(_?[A-Z]\w*)$")


@dataclasses.dataclass(frozen=True)
class Operation:
    """The time of all operations of one kind.

    Args:
        kind: TensorFlow's name, such as `MatMul`.
        calls: the number of runs.
        seconds: summed over all threads.
        share: of the time of all operations.
    """

    kind: str
    calls: int
    seconds: float
    share: float


def profile(call: Callable[[], Any], folder: str | Path, *, times: int = 10) -> list[Operation]:
    """Records some calls, and returns their operations by time.

    Args:
        call: the function to record.
        folder: where the trace for TensorBoard is written.
        times: the number of recorded calls, after one that is not recorded.

    Returns:
        The kinds of operations, the slowest first. Empty if all work is one compiled program.

    Raises:
        RuntimeError: the trace was not written.
    """
    folder = Path(folder)
    before = set(folder.glob("plugins/profile/*/*.xplane.pb"))
    call()
    tf.profiler.experimental.start(str(folder))
    try:
        for step in range(times):
            with tf.profiler.experimental.Trace("call", step_num=step, _r=1):
                call()
    finally:
        tf.profiler.experimental.stop()
    written = sorted(set(folder.glob("plugins/profile/*/*.xplane.pb")) - before)
    if not written:
        raise RuntimeError(f"`folder` must be one that a trace can be written into. Received: folder={str(folder)!r}.")
    return top_operations(written[-1])


def top_operations(trace: Path) -> list[Operation]:
    """Sums up a trace by kinds of operations.

    Args:
        trace: an `.xplane.pb` file.

    Returns:
        The kinds, the slowest first.
    """
    calls: dict[str, int] = {}
    seconds: dict[str, float] = {}
    for kind, duration in _events(trace):
        calls[kind] = calls.get(kind, 0) + 1
        seconds[kind] = seconds.get(kind, 0.0) + duration
    total = sum(seconds.values()) or 1.0
    kinds = sorted(seconds, key=lambda kind: -seconds[kind])
    return [Operation(kind, calls[kind], seconds[kind], seconds[kind] / total) for kind in kinds]


def _events(trace: Path) -> Iterator[tuple[str, float]]:
    """Yields the kind and the seconds of each operation, without the operations inside it."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    space = xplane_pb2.XSpace()
    space.ParseFromString(trace.read_bytes())
    for plane in space.planes:
        for line in plane.lines:
            events = sorted(
                (event.offset_ps, -event.duration_ps, match[1])
                for event in line.events
                if (match := _OPERATION.match(plane.event_metadata[event.metadata_id].name))
            )
            # The operations that have not ended, the innermost last: its end, its kind, its own time.
            open_events: list[list[Any]] = []
            for start, negative, kind in events:
                while open_events and open_events[-1][0] <= start:
                    _, ended, own = open_events.pop()
                    yield ended, own * 1e-12
                if open_events:
                    open_events[-1][2] += negative
                open_events.append([start - negative, kind, -negative])
            yield from ((kind, own * 1e-12) for _, kind, own in open_events)
