"""The choice of the fastest engine: measured once for each kind and size of work, and remembered in a file."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

import tf_clip
from tf_clip.files import write_text

FILE = "engines.json"
"""The file's name in the cache folder."""

_SECONDS = 1.0
_ROUNDS = (3, 25)
# Another engine than the first must need less than this share of the time: a smaller gain may be noise, and each engine
# takes time to start.
_GAIN = 0.97


class Choices:
    """Remembers which engine was chosen.

    Args:
        folder: the folder of the file; None writes no file.
        model: facts that identify the model's architecture, JSON-ready.
        threads: how many cores are used.
    """

    def __init__(self, folder: Path | None, model: Mapping[str, Any], threads: int) -> None:
        self._path = None if folder is None else folder / FILE
        facts = {**described_machine(), "threads": threads, "model": model}
        self._prefix = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
        self._known = self._read()

    def get(self, work: str, candidates: tuple[str, ...]) -> str | None:
        """Returns the engine chosen among these candidates for some work; None if none was chosen yet."""
        return self._known.get(self._key(work, candidates))

    def put(self, work: str, candidates: tuple[str, ...], engine: str) -> None:
        """Remembers a choice. Choices that other processes have written in the meantime are kept."""
        self._known[self._key(work, candidates)] = engine
        if self._path is None:
            return
        try:
            content = {"format": 1, "choices": {**self._read(), **self._known}}
            write_text(self._path, json.dumps(content, indent=1, sort_keys=True))
        except OSError as error:
            warnings.warn(
                f"The engine chosen is not remembered: {error}. Pass another cache_dir, or None.", stacklevel=2
            )

    def _key(self, work: str, candidates: tuple[str, ...]) -> str:
        return f"{self._prefix} {work} {','.join(candidates)}"

    def _read(self) -> dict[str, str]:
        if self._path is None or not self._path.is_file():
            return {}
        try:
            choices = json.loads(self._path.read_text(encoding="utf-8"))["choices"]
            return {str(key): str(engine) for key, engine in choices.items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            warnings.warn(f"{self._path} cannot be read and is written anew: {error!r}.", stacklevel=2)
            return {}


def described_machine() -> dict[str, Any]:
    """Returns what the speed depends on beside the model: the processor, versions and switches."""
    packages = ("tensorflow", "tensorflow-cpu", "ai-edge-litert")
    versions = {name: _version(name) for name in packages}
    return {
        "processor": _processor(),
        "devices": [device.device_type for device in tf.config.list_physical_devices()],
        "versions": {**versions, "tf_clip": tf_clip.__version__},
        "threading": [
            tf.config.threading.get_intra_op_parallelism_threads(),
            tf.config.threading.get_inter_op_parallelism_threads(),
        ],
        "switches": {name: os.environ.get(name) for name in ("TF_ENABLE_ONEDNN_OPTS", "XLA_FLAGS", "TF_XLA_FLAGS")},
    }


def fastest(runs: Mapping[str, Callable[[], Any]]) -> str:
    """Runs the candidates in turns and returns the name of the fastest; the first unless another is clearly faster."""
    for run in runs.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    end = time.perf_counter() + _SECONDS * len(runs)
    least, most = _ROUNDS
    for turn in range(most):
        if turn >= least and time.perf_counter() > end:
            break
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in times.items()}
    first, best = next(iter(medians)), min(medians, key=lambda name: medians[name])
    return best if medians[best] < _GAIN * medians[first] else first


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    """Returns the processor's name, and its features where the system lists them."""
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return f"{platform.machine()} {platform.processor()}"
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    wanted = ("model name", "flags", "Features", "CPU part")
    return "\n".join(sorted({line for line in lines if line.startswith(wanted)}))
