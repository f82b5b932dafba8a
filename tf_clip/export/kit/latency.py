"""Times a signature for batches of growing size, within a time limit."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

_MOST_RUNS = 20
_FEWEST_RUNS = 2


class Timed(NamedTuple):
    """One batch size and the least seconds that a run of it took."""

    batch_size: int
    seconds: float

    @property
    def seconds_per_row(self) -> float:
        """The time of a row in such a batch."""
        return self.seconds / self.batch_size


def batch_sizes_up_to(largest: int) -> list[int]:
    """Returns 1, 2, 4, ... and the largest itself."""
    sizes = [2**power for power in range(largest.bit_length()) if 2**power < largest]
    return [*sizes, largest]


def measure(
    run: Callable[[int], object],
    batch_sizes: Sequence[int],
    seconds: float,
    *,
    on_size: Callable[[int], None] = lambda size: None,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Timed]:
    """Times a function for growing batches.

    Each size is run once to warm up, and then 2 to 20 times, of which the fastest counts: other work on the machine
    only adds time. Sizes for which no time is left are left out. The first size is always timed.

    Args:
        run: runs one batch of so many rows.
        batch_sizes: in growing order.
        seconds: about how long all of it may take.
        on_size: called with each size before it is run.
        clock: tells the time in seconds.

    Returns:
        The sizes that were timed.
    """
    run(batch_sizes[0])  # prepares the graph, which is not timed
    end = clock() + seconds
    timed: list[Timed] = []
    for place, size in enumerate(batch_sizes):
        if timed and clock() + (1 + _FEWEST_RUNS) * timed[-1].seconds_per_row * size > end:
            break
        on_size(size)
        run(size)
        share = clock() + (end - clock()) / (len(batch_sizes) - place)
        runs: list[float] = []
        while len(runs) < _FEWEST_RUNS or (len(runs) < _MOST_RUNS and clock() < share):
            start = clock()
            run(size)
            runs.append(clock() - start)
        timed.append(Timed(size, min(runs)))
    return timed
