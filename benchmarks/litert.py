"""Compares LiteRT's speed and memory with other engines', in one run: `make bench-litert`.

Each engine runs the same weights in a process of its own, in turns, so that what else the machine does hits all
alike. Absolute times say nothing about another machine; the ratios do.

python litert.py --peers PYTHON OUT    PYTHON has what litert_peers.txt lists
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from litert_files import CAPTION, TEXT_LENGTH, read_inputs
from litert_page import BASE, write_page
from litert_worker import OURS, PEERS
from machine import described

HERE = Path(__file__).resolve().parent
EXACT = 0.9999
"""The least cosine with LiteRT float32 of an engine that computes in float32."""


class Engine:
    """A process that encodes, and that is stopped while it is not asked.

    Args:
        name: of the engine.
        python: the interpreter that has its libraries.
        threads: how many cores it may use.
        folder: with the files of `litert_files`.

    Attributes:
        embeds: its embeddings of the image and of the caption.
    """

    def __init__(self, name: str, python: str, threads: int, folder: Path) -> None:
        self._log = folder / f"{name}, {threads}.log"
        command = [python, str(HERE / "litert_worker.py"), name, str(threads), str(folder)]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
            )
        self.embeds: dict[str, list[float]] = self._answer()

    def ask(self, question: str) -> float:
        """Encodes `"image"` or `"text"` and returns the seconds, or the bytes of `"memory"`."""
        assert self._process.stdin is not None
        # Some engines' threads wait in a loop, which would cost the next one a core.
        self._process.send_signal(signal.SIGCONT)
        self._process.stdin.write(question + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"An engine's process ended; see what it wrote:\n{self._log.read_text()[-3000:]}")
        self._process.send_signal(signal.SIGSTOP)
        return json.loads(line)


def measured(engines: dict[str, Engine], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Returns the seconds of every round, by engine and by what is encoded."""
    times: dict[str, dict[str, list[float]]] = {name: {"image": [], "text": []} for name in engines}
    for number in range(rounds + 1):
        for kind in ("image", "text"):
            for name, engine in engines.items():
                seconds = engine.ask(kind)
                if number:  # the first is a warm-up
                    times[name][kind].append(seconds)
        print(f"\rround {number} of {rounds}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return times


def summary(seconds: Sequence[float], base: Sequence[float]) -> dict[str, Any]:
    """Returns the medians' ratio, and where the middle half of the rounds' ratios lies."""
    ratios = [one / other for one, other in zip(seconds, base, strict=True)]
    return {
        "median_seconds": statistics.median(seconds),
        "ratio": statistics.median(seconds) / statistics.median(base),
        "spread": [float(part) for part in np.quantile(ratios, [0.25, 0.75])],
    }


def cosine(one: Engine, other: Engine) -> float:
    """Returns the lower one of the two embeddings' cosines."""
    return min(float(np.dot(one.embeds[kind], other.embeds[kind])) for kind in ("image", "text"))


def versions(python: str) -> dict[str, str]:
    """Returns the version of each of the other engines' packages."""
    names = ("torch", "transformers", "onnxruntime", "openvino")
    script = "import importlib.metadata as m, json, sys; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
    answer = subprocess.run([python, "-c", script, *names], check=True, capture_output=True, text=True)
    found: dict[str, str] = json.loads(answer.stdout)
    return found


def benchmark(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Writes the files, and measures with each number of threads."""
    for python, what, last in ((sys.executable, "model", "int4"), (arguments.peers, "onnx", "text.onnx")):
        if not (folder / last).exists():
            subprocess.run([python, str(HERE / "litert_files.py"), what, str(folder)], check=True)
    pythons = {**dict.fromkeys(OURS, sys.executable), **dict.fromkeys(PEERS, arguments.peers)}
    result: dict[str, Any] = {
        "machine": described("ai-edge-litert", "tensorflow", "keras"),
        "versions": versions(arguments.peers),
        "caption": CAPTION,
        "caption_tokens": read_inputs(folder)["input_ids"].shape[1],
        "text_length": TEXT_LENGTH,
        "rounds": arguments.rounds,
        "threads": arguments.threads,
        "engines": list(pythons),
        "times": {},
        "memory": {},
    }
    for threads in arguments.threads:
        with contextlib.ExitStack() as running:
            engines = {}
            for name, python in pythons.items():
                engines[name] = Engine(name, python, threads, folder)
                running.callback(engines[name].close)
            result["cosines"] = {name: cosine(engine, engines[BASE]) for name, engine in engines.items()}
            others = [name for name in engines if not name.startswith("LiteRT")]
            wrong = [name for name in others if result["cosines"][name] < EXACT]
            if wrong:
                raise SystemExit(f"Not the same model: {', '.join(wrong)} answer otherwise than {BASE}.")
            times = measured(engines, arguments.rounds)
            result["memory"][str(threads)] = {name: engine.ask("memory") for name, engine in engines.items()}
        result["times"][str(threads)] = {
            name: {kind: summary(seconds, times[BASE][kind]) for kind, seconds in kinds.items()}
            for name, kinds in times.items()
        }
    return result


def main() -> None:
    """Reads the arguments, and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", required=True, help="a Python that has what litert_peers.txt lists")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--files", type=Path, help="a folder for the model's files, which another run may take over")
    parser.add_argument("out", type=Path)
    arguments = parser.parse_args()
    # Engines are stopped while others are measured: an end from outside must not leave them so.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))
    if arguments.files is not None:
        arguments.files.mkdir(parents=True, exist_ok=True)
        write_page(arguments.out, benchmark(arguments, arguments.files))
        return
    with tempfile.TemporaryDirectory() as temporary:
        write_page(arguments.out, benchmark(arguments, Path(temporary)))


if __name__ == "__main__":
    main()
