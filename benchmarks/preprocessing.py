"""Compares the speed of preprocessing with its peers, in one run: `make bench-preprocessing`.

Each library runs in a process of its own, one at a time and in turns, so that what else the machine does hits all
alike. A cell is the median of the rounds. Absolute times say nothing about another machine; the ratios do.

python preprocessing.py docs/benchmarks
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kept import keep
from machine import described
from preprocessing_inputs import CAPTIONS, IMAGES, write_all

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


def table(works: Mapping[str, int], times: dict[str, dict[str, float]], unit: str) -> str:
    """Returns each library's speed, and how many times as fast tf_clip is."""
    rows = [
        f"| {work} | {library} | {count / seconds:,.0f} | {seconds / times[work]['tf_clip']:.2f} x |"
        for work, count in works.items()
        for library, seconds in times[work].items()
    ]
    return "\n".join([f"| work | library | {unit} a second | tf_clip is |", "|---|---|---|---|", *rows])


def page(times: dict[str, dict[str, float]]) -> str:
    """Returns both tables, and what one caption costs, as a page."""
    singles = ("one caption", "one caption with a new word")
    empty = times["an empty traced call"]["tf_clip"]
    costs = [
        f"A traced call with {work} takes {times[work]['tf_clip'] / empty:.1f} times as long as an empty one."
        for work in singles
    ]
    kinds = [f"{kind}, {height} x {width}" for kind in ("decoded", "from JPEG bytes") for height, width in IMAGES]
    parts = [
        "# The speed of preprocessing",
        f"Written by `make bench-preprocessing` on {described('tensorflow', 'transformers', 'tokenizers', 'pillow')}. "
        "All libraries\nran in this one run, in turns; a figure is the median of the rounds. torchvision is not exact.",
        table({"10 000 captions in one call": CAPTIONS, **dict.fromkeys(singles, 1)}, times, "captions"),
        "\n".join(costs),
        table(dict(zip(kinds, [*IMAGES.values()] * 2, strict=True)), times, "images"),
    ]
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Measures, prints both tables and writes them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="where preprocessing.md and preprocessing.json are written")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_all(folder)
        libraries = {name: Library(name, folder) for name in LIBRARIES}
        times = measured(libraries)
        for library in libraries.values():
            library.close()
    text = page(keep(options.folder / "preprocessing.json", times))
    print(text)
    (options.folder / "preprocessing.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
