"""Compares tf_clip with every other CLIP there is, in one run on this machine: `make bench`.

Each library has a process of its own, and one computes at a time. Only ratios say anything about another machine.

python run.py --engines PYTHON OUT    PYTHON has what litert_peers.txt lists; writes bench.json, bench.md and bench.png
with --page attempts: the same files of that name, of ways to encode that were tried for tf_clip, and profiles
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import peers as all_peers
import works as all_works
from command_line import command_line
from library import CHOICES
from measure import Records, measured
from page import write_page
from peers import BASE, MATMUL, Peer
from process import Process, WorkerError
from results import summary
from works import Work

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
TRAINING_AT_ONCE = 2
LARGE = ("ViT-L/14",)
ATTEMPTS = "attempts"
START_ROUNDS = 4


class Run:
    """One benchmark: its processes and what they have said.

    Args:
        options: of the command.
        model: one of `inputs.CONFIGS`.
        works: what is done.
        rounds: of each work.
        starts: whether starting is measured, too.
    """

    def __init__(
        self, options: argparse.Namespace, model: str, works: Sequence[Work], rounds: int, starts: bool
    ) -> None:
        self.model, self.works, self.rounds = model, list(works), rounds
        self._options, self._starts = options, starts
        self._pythons = {"ours": options.python, "engines": options.engines}
        self.folder: Path = options.folder / model.replace("/", "-")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.peers = [
            peer
            for peer in (all_peers.ATTEMPTS if options.page == ATTEMPTS else all_peers.ALL)
            if peer.name == BASE or not (peer.name in options.without or (peer.only_small and model in LARGE))
        ]
        settings = {
            **{"model": model, "rounds": rounds, "seconds": options.seconds, "commit": commit()},
            **{"works": [work.name for work in works], "peers": [peer.name for peer in self.peers]},
        }
        self.records = Records(self.folder / f"{options.page}.jsonl", settings)
        if not self.records.all:
            shutil.rmtree(self.folder / CHOICES, ignore_errors=True)

    def say(self, message: str) -> None:
        """Prints how far it is."""
        done = len(self.records.all)
        print(f"{datetime.datetime.now():%H:%M:%S} {self.model} [{done}] {message}", file=sys.stderr, flush=True)

    def go(self) -> dict[str, Any]:
        """Measures what is not yet measured, and returns the summary."""
        self._write_files()
        inference = [work for work in self.works if work.kind != "training"]
        training = [work for work in self.works if work.kind == "training"]
        base = all_peers.BY_NAME[BASE]
        plan = [(base, group, inference) for group in all_peers.groups(self.peers, self._options.at_once)]
        able = [peer for peer in self.peers if peer.name.startswith("transformers") and peer.mode != "torchvision"]
        trainer = dataclasses.replace(base, mode="training")
        plan += [(trainer, group, training) for group in all_peers.groups(able, TRAINING_AT_ONCE) if training]
        time_left = TimeLeft(60 * self._options.minutes, sum(len(works) for _, _, works in plan))
        for one, group, works in plan:
            self._measure_group(one, group, works, time_left)
        if self._starts:
            self._measure_starts()
        if self._starts and self.records.find(record="command line") is None:
            self.say("the command line")
            try:
                found: dict[str, Any] = {"times": command_line(self._options.python, min(self.rounds, START_ROUNDS))}
            except RuntimeError as error:
                found = {"error": str(error)}
            self.records.add({"record": "command line", **found})
        return summary(self.model, self.works, self.folder, self.records.all)

    def _measure_group(self, base: Peer, group: Sequence[Peer], works: Sequence[Work], time_left: TimeLeft) -> None:
        names = [peer.name for peer in group]
        todo = [work for work in works if self.records.find(record="work", work=work.name, group=names) is None]
        time_left.skip(len(works) - len(todo))
        if not todo:
            return
        with self._workers([base, MATMUL, *group]) as (workers, errors):
            for work in todo:
                if BASE not in workers:
                    raise SystemExit(f"tf_clip itself does not start: {errors[BASE]}")
                options = {"rounds": self.rounds, "seconds": self._options.seconds, "until": time_left.until()}
                found = measured(work, workers, say=self.say, **options)
                # Whoever did not start is told of in each work that it could have done.
                found["errors"] = {**errors, **found["errors"]}
                self.records.add({"record": "work", "work": work.name, "group": names, **found})
                if self._options.page == ATTEMPTS and self.records.find(record="profile", work=work.name) is None:
                    shares = workers[BASE].ask("profile", kind=work.kind)
                    self.records.add({"record": "profile", "work": work.name, **shares})
            memory = {name: worker.ask("memory")["resident"] for name, worker in workers.items() if alive(worker)}
            self.records.add({"record": "memory", "group": names, "bytes": memory})

    def _measure_starts(self) -> None:
        chosen = [peer for peer in self.peers if peer.mode != "torchvision" and peer.python == "ours"]
        for number in range(min(self.rounds, START_ROUNDS) + 1):
            for peer in chosen:
                if self.records.find(record="start", round=number, peer=peer.name) is not None:
                    continue
                self.say(f"start of {peer.name}, round {number}")
                try:
                    process = self._process(peer, "--start")
                    found = process.hello
                    process.close()
                except WorkerError as error:
                    found = {"error": str(error)}
                # The first has the files read from the disk.
                self.records.add({"record": "start", "round": number, "peer": peer.name, **found})

    @contextlib.contextmanager
    def _workers(self, group: Sequence[Peer]) -> Iterator[tuple[dict[str, Process], dict[str, str]]]:
        workers: dict[str, Process] = {}
        errors: dict[str, str] = {}
        try:
            for peer in group:
                self.say(f"starting {peer.name}")
                try:
                    workers[peer.name] = self._process(peer)
                except WorkerError as error:
                    errors[peer.name] = str(error)
                    self.say(f"{peer.name} does not start: {error}")
            yield workers, errors
        finally:
            for worker in workers.values():
                worker.close()

    def _process(self, peer: Peer, *words: str) -> Process:
        python = self._pythons[peer.python]
        if python is None:
            raise WorkerError("no environment for it was given: see --engines")
        command = [python, str(HERE / "worker.py"), peer.library, peer.mode, str(self.folder), *words]
        log = self.folder / f"{peer.name.replace(' ', '_')}.log"
        return Process(command, log, {"PYTHONPATH": str(ROOT)} if peer.python == "ours" else {})

    def _write_files(self) -> None:
        steps = [("model", self._options.python, self.folder / "inputs.npz")]
        if self._options.engines is not None:
            steps.append(("onnx", self._options.engines, self.folder / "onnx" / "input_ids.onnx"))
        newest = max(path.stat().st_mtime for path in (HERE / "inputs.py", HERE / "captions.txt"))
        for what, python, last in steps:
            if last.exists() and last.stat().st_mtime > newest:
                continue
            self.say(f"writing {what}")
            environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
            if what == "model":
                environment["PYTHONPATH"] = str(ROOT)
            command = [python, str(HERE / "inputs.py"), what, self.model, str(self.folder)]
            result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            if result.returncode and what == "model":
                raise SystemExit(f"The model could not be written:\n{result.stderr[-3000:]}")
            if result.returncode:
                self.say(f"no ONNX files: {result.stderr.strip()[-300:]}")  # their engines say so, too


class TimeLeft:
    """Shares out what is left of the time among the works that are left.

    Args:
        seconds: there are.
        works: there are.
    """

    def __init__(self, seconds: float, works: int) -> None:
        self._end, self._works = time.monotonic() + seconds, works

    def skip(self, works: int) -> None:
        """Leaves out works, which were done before."""
        self._works -= works

    def until(self) -> float:
        """Returns when the next work must end."""
        now = time.monotonic()
        share = (self._end - now) / max(1, self._works)
        self._works -= 1
        return now + share


def alive(worker: Process) -> bool:
    """Says whether a worker still answers."""
    try:
        worker.ask("memory")
    except WorkerError:
        return False
    return True


def commit() -> str:
    """Returns the version of this code, changes to it included, so that figures of another are not mixed in."""
    head, changes = (
        subprocess.run(["git", "-C", str(ROOT), *words], capture_output=True, check=False).stdout
        for words in (["rev-parse", "--short", "HEAD"], ["diff", "HEAD"])
    )
    return head.decode().strip() + (f", changed: {hashlib.sha256(changes).hexdigest()[:8]}" if changes else "")


def machine() -> str:
    """Returns what the processor is called, and how many cores may be used."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{len(os.sched_getaffinity(0))} cores of {names[0] if names else platform.machine()}"


def versions(pythons: dict[str, str | None]) -> dict[str, str]:
    """Returns the version of each package that is compared."""
    script = (
        "import importlib.metadata as m, json, sys; sys.path.append(sys.prefix + '/zeromodels')\n"
        "found = {}\nfor n in sys.argv[1:]:\n"
        "    try: found[n] = m.version(n)\n    except m.PackageNotFoundError: pass\nprint(json.dumps(found))"
    )
    found: dict[str, str] = {}
    for environment, python in pythons.items():
        names = {name for peer in (*all_peers.ALL, MATMUL) if peer.python == environment for name in peer.packages}
        if python is not None:
            answer = subprocess.run([python, "-c", script, *sorted(names)], check=True, capture_output=True, text=True)
            found |= json.loads(answer.stdout)
    return dict(sorted(found.items()))


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Reads the command's arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="where bench.json, bench.md and bench.png are written")
    parser.add_argument("--python", default=sys.executable, help="with tf_clip and what shares its environment")
    parser.add_argument("--engines", help="a Python with ONNX Runtime, OpenVINO and PyTorch")
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "bench", help="for files and records")
    parser.add_argument("--model", action="append", dest="models", help="the first with all works; may be given again")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--minutes", type=float, default=120.0, help="of one model: fewer rounds where it is too short")
    parser.add_argument("--seconds", type=float, default=0.4, help="of one library's turn, at least")
    parser.add_argument("--at-once", type=int, default=4, help="libraries in memory at a time, beside tf_clip")
    parser.add_argument("--without", action="append", default=[], metavar="NAME", help="a library to leave out")
    parser.add_argument(
        "--page",
        choices=("bench", ATTEMPTS),
        default="bench",
        help="attempts: tf_clip's own ways to encode, and where its time goes",
    )
    parser.add_argument("--works", choices=sorted(all_works.SETS), default="all", help="of the first model")
    parser.add_argument("--quick", action="store_true", help="a tiny model, one round, few works")
    options = parser.parse_args(words)
    if options.page == ATTEMPTS:
        options.models, options.works = options.models or ["ViT-B/32"], "tried"
    options.models = options.models or ["ViT-B/32", "ViT-L/14"]
    if options.quick:
        options.models, options.rounds, options.works, options.seconds = ["tiny"], 1, "quick", 0.05
    unknown = set(options.without) - set(all_peers.BY_NAME)
    if unknown:
        parser.error(f"--without must name some of {sorted(all_peers.BY_NAME)}. Received: {sorted(unknown)}.")
    return options


def main(words: Sequence[str] | None = None) -> None:
    """Measures, and writes the page."""
    options = parse(words)
    runs = []
    for number, model in enumerate(options.models):
        works = all_works.SETS[options.works if number == 0 else "few"]
        runs.append(Run(options, model, works, options.rounds, starts=number == 0 and options.page != ATTEMPTS))
    result = {
        "date": f"{datetime.date.today():%Y-%m-%d}",
        "machine": machine(),
        "python": platform.python_version(),
        "commit": commit(),
        "versions": versions({"ours": options.python, "engines": options.engines}),
        "page": options.page,
        "rounds": options.rounds,
        "models": {run.model: run.go() for run in runs},
    }
    write_page(options.out, result)
    for run in runs:
        (run.folder / f"{options.page}.jsonl").replace(run.folder / f"{options.page}-finished.jsonl")


if __name__ == "__main__":
    main()
