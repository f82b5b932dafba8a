"""Compares the speed of preprocessing with its peers, in one run: `make bench-preprocessing`.

Each library runs in a process of its own, one at a time and in turns, so that what else the machine does hits all
alike. A cell is the median of the rounds. Absolute times say nothing about another machine; the ratios do.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from preprocessing_inputs import CAPTIONS, PICTURES, write_all

LIBRARIES = ("tf_clip", "tokenizers", "transformers_pil", "transformers_torchvision")

ROUNDS = 7


class Library:
    """A process that times pieces of work by name."""

    def __init__(self, name: str, folder: Path) -> None:
        self._log = (folder / f"{name}.log").open("w")
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("preprocessing_worker.py")), name, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=environment,
        )
        self.names: list[str] = self._answer()

    def seconds(self, name: str) -> float:
        """Does a piece of work once and returns how long it took."""
        assert self._process.stdin is not None
        self._process.stdin.write(name + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        self._process.communicate()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(
                f"A library's process ended; see what it wrote:\n{Path(self._log.name).read_text()[-3000:]}"
            )
        return json.loads(line)


def measured(libraries: dict[str, Library]) -> dict[str, dict[str, float]]:
    """Returns the median seconds of each piece of work, by work and library."""
    times: dict[str, dict[str, list[float]]] = {}
    for round_number in range(ROUNDS + 1):
        for library, process in libraries.items():
            for work in process.names:
                seconds = process.seconds(work)
                if round_number:  # the first is a warm-up
                    times.setdefault(work, {}).setdefault(library, []).append(seconds)
        print(f"\rround {round_number} of {ROUNDS}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return {work: {name: statistics.median(all_) for name, all_ in row.items()} for work, row in times.items()}


def print_table(works: Mapping[str, int], times: dict[str, dict[str, float]], unit: str) -> None:
    """Prints each library's speed, and how many times as fast tf_clip is."""
    print(f"\n| work | library | {unit} a second | tf_clip is |\n|---|---|---|---|")
    for work, count in works.items():
        for library, seconds in times[work].items():
            print(f"| {work} | {library} | {count / seconds:,.0f} | {seconds / times[work]['tf_clip']:.2f} x |")


def main() -> None:
    """Measures and prints both tables."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_all(folder)
        libraries = {name: Library(name, folder) for name in LIBRARIES}
        times = measured(libraries)
        for library in libraries.values():
            library.close()
    singles = ("one caption", "one caption with a new word")
    print_table({"10 000 captions in one call": CAPTIONS, **dict.fromkeys(singles, 1)}, times, "captions")
    empty = times["an empty traced call"]["tf_clip"]
    for work in singles:
        took = times[work]["tf_clip"]
        print(
            f"\nA traced call with {work} takes {took / empty:.1f} times as long as an empty one ({1e3 * took:.2f} ms)."
        )
    kinds = [f"{kind}, {height} x {width}" for kind in ("decoded", "from JPEG bytes") for height, width in PICTURES]
    print_table(dict(zip(kinds, [*PICTURES.values()] * 2, strict=True)), times, "pictures")


if __name__ == "__main__":
    main()
