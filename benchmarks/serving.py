"""Loads the local server and writes what it did: `make bench-serving`, or with MINUTES=1 for a short look.

First every batch setting with few and many clients, then a long run under load in which the server is killed and
started again, and changes to newer versions of the model. Each answer is compared with the Python model's. Written
are ratios to one client without batching; absolute times say nothing about another machine.

python serving.py --minutes 10 docs/benchmarks
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from machine import described
from serving_load import Load, Questions, Sample
from serving_page import write_page

import tf_clip
from tf_clip.export import saved_model

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tests"))
from helpers.serving.running import LocalServer  # noqa: E402 it lies beside the tests that use it

MODEL = "pictogram-clip"
# Rows of a run at most, and milliseconds that a request waits for others.
SETTINGS = {"no batching": (1, 0.0), "up to 8": (8, 1.0), "up to 32": (32, 2.0), "up to 32, waiting": (32, 10.0)}
CLIENTS = (1, 4, 16)
SOAK_CLIENTS = 8
SHARE_OF_SETTINGS = 0.4
WARM_UP = 0.15  # of each setting's time


@dataclasses.dataclass
class Soak:
    """The long run.

    Args:
        samples: all calls.
        begin, end: of the load.
        memory: seconds and the server's bytes, every half second.
        events: seconds and what was done to the server.
        start_seconds: how long the server takes to start.
    """

    samples: list[Sample]
    begin: float
    end: float
    memory: list[tuple[float, int]]
    events: list[tuple[float, str]]
    start_seconds: float


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="of load, in all (default: 10)")
    parser.add_argument("out", type=Path, help="the folder to write serving.md, serving.json and serving.png into")
    options = parser.parse_args()
    seconds = 60 * options.minutes
    questions = Questions(MODEL, ROOT / "examples" / "images")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "model")
        model, processor = tf_clip.CLIPModel.from_pretrained(MODEL), tf_clip.CLIPProcessor.from_pretrained(MODEL)
        saved_model(model, processor, folder, labels=questions.labels)
        each = SHARE_OF_SETTINGS * seconds / (len(SETTINGS) * len(CLIENTS))
        settings = {name: _measure_setting(questions, folder, words, each) for name, words in SETTINGS.items()}
        soak = _soak(questions, folder, (1 - SHARE_OF_SETTINGS) * seconds)
    result = _result(settings, soak, options.minutes)
    options.out.mkdir(parents=True, exist_ok=True)
    write_page(options.out, result)
    print(json.dumps(result["answers"], indent=2))
    if result["answers"]["wrong"] or result["answers"]["lost"]:
        sys.exit("There were wrong or lost answers; see above.")


def _measure_setting(
    questions: Questions, folder: Path, setting: tuple[int, float], seconds: float
) -> dict[int, list[Sample]]:
    """Returns the calls of each number of clients, after a warm-up."""
    rows, wait = setting
    samples = {}
    with LocalServer(folder, "--max-batch-size", str(rows), "--batch-timeout-ms", str(wait)) as server:
        for clients in CLIENTS:
            print(f"batches of {rows}, waiting {wait} ms, {clients} clients, {seconds:.0f} s", flush=True)
            with Load(questions, server.url, clients) as load:
                begin = time.monotonic() + WARM_UP * seconds
                time.sleep(seconds)
                end = time.monotonic()
            samples[clients] = [sample for sample in load.samples if begin <= sample.begin and sample.end <= end]
            _refuse_lost(load.samples)
    return samples


def _refuse_lost(samples: list[Sample]) -> None:
    wrong = [sample for sample in samples if sample.wrong or sample.lost]
    if wrong:
        raise SystemExit(f"{len(wrong)} of {len(samples)} answers are wrong or lost, the first: {wrong[0]}")


def _soak(questions: Questions, folder: Path, seconds: float) -> Soak:
    """Keeps the server busy while it is killed, started again, and given two newer versions."""
    port = _free_port()
    memory: list[tuple[float, int]] = []
    events: list[tuple[float, str]] = []
    started = time.monotonic()
    server = LocalServer(folder, "--port", str(port))
    start_seconds = time.monotonic() - started
    ended = threading.Event()
    watched = [server.process.pid]

    def watch() -> None:
        while not ended.wait(0.5):
            try:
                memory.append((time.monotonic(), psutil.Process(watched[0]).memory_info().rss))
            except psutil.NoSuchProcess:
                pass  # it was killed and is not there again yet

    watcher = threading.Thread(target=watch)
    watcher.start()
    begin = time.monotonic()

    def at(share: float, event: str) -> None:
        time.sleep(max(0.0, begin + share * seconds - time.monotonic()))
        print(f"{100 * share:.0f} % of {seconds:.0f} s: {event}", flush=True)
        events.append((time.monotonic(), event))

    try:
        with Load(questions, server.url, SOAK_CLIENTS) as load:
            at(0.15, "kill -9")
            server.kill()
            server = LocalServer(folder, "--port", str(port))
            watched[0] = server.process.pid
            events.append((time.monotonic(), "up again"))
            for share, version in ((0.45, 2), (0.65, 3)):
                at(share, f"version {version}")
                _add_version(folder, version)
                server.wait_for_line(f"version {version} answers", 120)
            at(1.0, "end")
            end = time.monotonic()
        server.stop()
    except BaseException:
        server.kill()
        raise
    finally:
        ended.set()
        watcher.join()
    return Soak(load.samples, begin, end, memory, events, start_seconds)


def _add_version(folder: Path, version: int) -> None:
    """Adds a version that answers the same, appearing whole."""
    copy = folder / f".{version}"
    shutil.copytree(folder / "1", copy)
    copy.rename(folder / str(version))


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def _result(settings: dict[str, dict[int, list[Sample]]], soak: Soak, minutes: float) -> dict[str, Any]:
    """Returns all that the page shows, as ratios."""
    base = settings["no batching"][1]
    base_rate, base_time = _rate(base), _percentiles(base)[0]
    cells = [
        {
            "setting": name,
            "clients": clients,
            "calls": len(samples),
            "throughput": _rate(samples) / base_rate,
            **dict(zip(("p50", "p95", "p99"), (_percentiles(samples) / base_time).tolist(), strict=True)),
        }
        for name, by_clients in settings.items()
        for clients, samples in by_clients.items()
    ]
    measured = [sample for by_clients in settings.values() for samples in by_clients.values() for sample in samples]
    everything = [*measured, *soak.samples]
    # After the restart, and once the memory that a first minute of load takes is there.
    steady = soak.begin + 0.3 * (soak.end - soak.begin), soak.begin + 0.45 * (soak.end - soak.begin)
    before = [size for when, size in soak.memory if steady[0] <= when < steady[1]]
    after = [size for when, size in soak.memory if when >= soak.begin + 0.85 * (soak.end - soak.begin)]
    down = next(when for when, event in soak.events if event == "up again") - soak.events[0][0]
    return {
        "run": described("tensorflow", "uvicorn"),
        "minutes": minutes,
        "settings": cells,
        "soak": {
            "clients": SOAK_CLIENTS,
            "seconds": soak.end - soak.begin,
            "down": down / soak.start_seconds,
            "memory": float(np.median(after) / np.median(before)),
            "longest": max(sample.end - sample.begin for sample in soak.samples) / down,
            "timeline": _timeline(soak),
            "events": [((when - soak.begin) / (soak.end - soak.begin), event) for when, event in soak.events[:-1]],
        },
        "answers": {
            "calls": len(everything),
            "kinds": Counter(sample.kind for sample in everything),
            "wrong": sum(bool(sample.wrong) for sample in everything),
            "lost": sum(bool(sample.lost) for sample in everything),
            "first problems": [sample.wrong or sample.lost for sample in everything if sample.wrong or sample.lost][:5],
        },
    }


def _timeline(soak: Soak, steps: int = 60) -> dict[str, list[float]]:
    """Returns throughput, median time and memory over the run, relative to their own medians."""
    edges = np.linspace(soak.begin, soak.end, steps + 1)
    ends = np.array([sample.end for sample in soak.samples])
    took = np.array([sample.end - sample.begin for sample in soak.samples])
    place = np.digitize(ends, edges) - 1
    rate = np.array([np.sum(place == step) for step in range(steps)], float)
    slow = np.array([np.median(took[place == step]) if np.any(place == step) else np.nan for step in range(steps)])
    when, size = np.array([time for time, _ in soak.memory]), np.array([size for _, size in soak.memory], float)
    at = np.digitize(when, edges) - 1
    memory = np.array([np.median(size[at == step]) if np.any(at == step) else np.nan for step in range(steps)])
    series = {"throughput": rate, "time": slow, "memory": memory}
    return {name: (values / np.nanmedian(values)).round(4).tolist() for name, values in series.items()}


def _rate(samples: list[Sample]) -> float:
    begin, end = min(sample.begin for sample in samples), max(sample.end for sample in samples)
    return len(samples) / (end - begin)


def _percentiles(samples: list[Sample]) -> np.ndarray:
    return np.percentile([sample.end - sample.begin for sample in samples], (50, 95, 99))


if __name__ == "__main__":
    main()
