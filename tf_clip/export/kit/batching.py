"""Chooses how a server batches, from how long batches take."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

from tf_clip.export.kit.latency import Timed, batch_sizes_up_to

ENOUGH = 1.05
"""A batch is large enough when a row costs at most this many times what it costs at the best size."""

LONGEST_WAIT = 0.01
"""Seconds that a batch waits for further rows, at most."""

LONGEST_QUEUE = 1.0
"""Seconds of work that may wait in the queue; the server refuses further requests."""


@dataclasses.dataclass(frozen=True)
class Batching:
    """The parameters of a server's batching.

    Args:
        max_batch_size: rows in a batch, and the most that one request may bring.
        allowed_batch_sizes: to the next of these a batch is padded; the last is `max_batch_size`.
        batch_timeout_micros: how long a batch waits for further rows.
        num_batch_threads: batches run at a time.
        max_enqueued_batches: batches that may wait, for each signature, before the server refuses.
    """

    max_batch_size: int
    allowed_batch_sizes: tuple[int, ...]
    batch_timeout_micros: int
    num_batch_threads: int
    max_enqueued_batches: int

    def as_server_text(self) -> str:
        """Returns the text for `--batching_parameters_file`."""
        return (
            "# For --batching_parameters_file, with --enable_batching: all models of a server.\n"
            "# One batch runs on each core; use the number of cores that the server has.\n"
            f"num_batch_threads {{ value: {self.num_batch_threads} }}\n" + self._shared()
        )

    def as_model_text(self) -> str:
        """Returns the text of `batching_params.pbtxt`, which lies in the version's folder."""
        return (
            "# Read with --enable_batching --enable_per_model_batching_parameters: this model alone. The threads are\n"
            "# shared by all models, and so are set by --batching_parameters_file.\n" + self._shared()
        )

    def _shared(self) -> str:
        allowed = "".join(f"allowed_batch_sizes: {size}\n" for size in self.allowed_batch_sizes)
        return (
            "# The most rows of a batch, and of one request.\n"
            f"max_batch_size {{ value: {self.max_batch_size} }}\n"
            "# What a row wins in a full batch: no row waits for longer.\n"
            f"batch_timeout_micros {{ value: {self.batch_timeout_micros} }}\n"
            "# More waiting batches than this, for each signature, are refused, and clients come back later.\n"
            f"max_enqueued_batches {{ value: {self.max_enqueued_batches} }}\n"
            f"{allowed}"
            "# Padding would change images and token ids. Requests with `image_pixels` of several sizes, or with\n"
            "# `input_ids` of several lengths, are refused when they meet in a batch: send one size, and one length.\n"
            "pad_variable_length_inputs: false\n"
        )


def choose_batching(
    curves: Mapping[str, Sequence[Timed]], *, threads: int, max_batch_size: int | None = None
) -> Batching:
    """Chooses the parameters by one rule.

    - `max_batch_size`: the smallest size whose rows cost at most 5 % more than at the best size; the cost of a
      row is its time over that of a single row, averaged over the signatures. Larger batches make every request wait
      longer and save less than that.
    - `allowed_batch_sizes`: the powers of two below it, and itself, so that little is padded.
    - `batch_timeout_micros`: what a row saves in a full batch, for the signature that saves least, and at most
      10 ms: no request waits longer than it can save.
    - `num_batch_threads`: one per core. `max_enqueued_batches`: what the slowest signature computes in a second.

    Args:
        curves: from a signature to its timed batches, the first of one row.
        threads: the cores of the server.
        max_batch_size: takes this size instead of the rule's.

    Returns:
        The parameters.
    """
    tables = {name: {one.batch_size: one for one in curve} for name, curve in curves.items()}
    common = set.intersection(*map(set, tables.values()))

    def cost(size: int) -> float:
        return sum(table[size].seconds_per_row / table[1].seconds for table in tables.values()) / len(tables)

    best = min(map(cost, common))
    chosen = max_batch_size or min(size for size in common if cost(size) <= ENOUGH * best)
    # A size that was set and not measured is taken to cost as much per row as the next smaller one that was.
    nearest = max(size for size in common if size <= chosen)
    per_row = {name: table[nearest].seconds_per_row for name, table in tables.items()}
    saved = min(table[1].seconds - per_row[name] for name, table in tables.items())
    slowest = max(per_row.values()) * chosen
    return Batching(
        max_batch_size=chosen,
        allowed_batch_sizes=tuple(batch_sizes_up_to(chosen)),
        batch_timeout_micros=round(1e6 * min(max(saved, 0.0), LONGEST_WAIT)),
        num_batch_threads=threads,
        max_enqueued_batches=min(max(threads, math.ceil(LONGEST_QUEUE / slowest)), 1000),
    )
