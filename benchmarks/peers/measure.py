"""Rounds over workers, one computing at a time, and what the rounds say."""

from __future__ import annotations

import contextlib
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from peers import BASE, MATMUL
from process import Process, WorkerError
from works import Work

ALLOWED = {"end_to_end": 2e-2}
"""The largest difference from tf_clip's result, relative to the largest value; 1e-4 for what is not listed. Processors
that are not exact are off by single gray levels."""
LEAST_ROUNDS = 3
Rounds = dict[str, list[float]]


def measured(
    work: Work, workers: Mapping[str, Process], *, rounds: int, seconds: float, until: float, say: Callable[[str], None]
) -> dict[str, Any]:
    """Times one work with every worker that can do it.

    Args:
        work: what is done.
        workers: by name, `BASE` among them.
        rounds: in each of which every worker has one turn.
        seconds: of a turn, at least.
        until: when to stop after fewer rounds, by `time.monotonic`.
        say: told how far it is.

    Returns:
        `times`, the median seconds of each worker's turns; `errors`, why others have none; `matmul`, the same of a
        large matrix product by those who can.
    """
    times: Rounds = {}
    errors: dict[str, str] = {}
    wanted: np.ndarray | None = None
    for name, worker in workers.items():
        if work.kind not in worker.hello["kinds"]:
            continue
        say(f"{work.name}: preparing {name}")
        try:
            answer = worker.ask("prepare", kind=work.kind, images=work.images, texts=work.texts)
            result = comparable(work, np.load(answer["result"]))
            if name == BASE:
                wanted = result
            require_same(work, result, wanted)
            times[name] = []
        except WorkerError as error:
            errors[name] = str(error)
    matmul: Rounds = {name: [] for name in multipliers(workers)} if work.kind in ("image", "text") else {}
    for number in range(rounds):
        if number >= LEAST_ROUNDS and time.monotonic() > until:
            break
        say(f"{work.name}: round {number + 1} of {rounds}")
        # Another one first each time: what comes after what could matter.
        for name in rotated(list(times), number):
            try:
                times[name].append(turn(workers[name], work.kind, seconds))
            except WorkerError as error:
                errors[name] = str(error)
                del times[name]
        for name in list(matmul):
            try:
                matmul[name].append(turn(workers[name], "matmul", seconds))
            except WorkerError:
                del matmul[name]
    return {"times": times, "errors": errors, "matmul": matmul}


def multipliers(workers: Mapping[str, Process]) -> list[str]:
    """Returns one worker of each library that multiplies matrices: NumPy's, tf_clip's and any of PyTorch's."""
    able = [name for name, worker in workers.items() if "matmul" in worker.hello["kinds"]]
    torch = [name for name in able if name not in (BASE, MATMUL.name) and not name.startswith("tf_clip")]
    found = []
    for name in [name for name in able if name in (BASE, MATMUL.name)] + torch[:1]:
        with contextlib.suppress(WorkerError):  # what ended is told of where it was to do its work
            workers[name].ask("prepare", kind="matmul", images=0, texts=0)
            found.append(name)
    return found


def turn(worker: Process, kind: str, seconds: float) -> float:
    """Returns the median seconds of one turn's calls."""
    return statistics.median(worker.ask("time", kind=kind, seconds=seconds)["seconds"])


def rotated(names: Sequence[str], by: int) -> list[str]:
    """Returns the names, beginning with another."""
    by %= max(1, len(names))
    return [*names[by:], *names[:by]]


def comparable(work: Work, result: np.ndarray) -> np.ndarray:
    """Returns a result in the form that libraries must agree in: features at unit length, all else as it is."""
    if work.kind in ("image", "text"):
        return result / np.linalg.norm(result, axis=-1, keepdims=True)
    return result


def require_same(work: Work, result: np.ndarray, wanted: np.ndarray | None) -> None:
    """Checks that a library computes what tf_clip does.

    Raises:
        WorkerError: it does not, or tf_clip has none.
    """
    if wanted is None:
        raise WorkerError("tf_clip has no result to compare with")
    if result.shape != wanted.shape:
        raise WorkerError(f"another result: shape {list(result.shape)}, tf_clip's is {list(wanted.shape)}")
    difference = float(np.abs(result - wanted).max() / np.abs(wanted).max())
    # Not "more than": NaN is refused, too.
    if not difference <= ALLOWED.get(work.kind, 1e-4):
        raise WorkerError(f"another result: off by {difference:.2g} of the largest value")


def ratio(times: Sequence[float], base: Sequence[float]) -> dict[str, Any]:
    """Says how many times as long as the base it takes, from rounds in which both had a turn.

    Returns:
        `ratio`, the median of the rounds' ratios; `spread`, where their middle half lies; `seconds`, the median.
    """
    ratios = [one / other for one, other in zip(times, base, strict=False)]
    return {
        "ratio": statistics.median(ratios),
        "spread": [float(part) for part in np.quantile(ratios, [0.25, 0.75])],
        "seconds": statistics.median(times),
        "rounds": len(ratios),
    }


class Records:
    """What was measured so far, a line of JSON each, so that an interrupted run goes on.

    Args:
        path: the file.
        settings: of the run; lines of other settings are dropped.
    """

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self._path = path
        lines = path.read_text("utf-8").splitlines() if path.is_file() else []
        found = [json.loads(line) for line in lines if line.endswith("}")]  # the last may be cut
        if found[:1] != [settings]:
            found = [settings]
            path.parent.mkdir(parents=True, exist_ok=True)
        self.all: list[dict[str, Any]] = found[1:]
        path.write_text("".join(json.dumps(record) + "\n" for record in found), "utf-8")

    def find(self, **wanted: Any) -> dict[str, Any] | None:
        """Returns the record with these values, if there is one."""
        return next((one for one in self.all if all(one.get(key) == value for key, value in wanted.items())), None)

    def add(self, record: dict[str, Any]) -> None:
        """Adds a record, on the disk at once."""
        self.all.append(record)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
