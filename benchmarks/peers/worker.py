"""One library's process: reads what to do, a line of JSON each, does it, and answers with a line of JSON.

python worker.py MODULE:CLASS MODE FOLDER          answers until its input ends
python worker.py MODULE:CLASS MODE FOLDER --start  says what starting costs, and ends

The questions are {"do": "prepare", "kind": ..., "images": ..., "texts": ...},
{"do": "time", "kind": ..., "seconds": ...}, {"do": "profile", "kind": ...} and
{"do": "memory"}. What goes wrong is answered, too, as {"error": ...}.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import re
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np
from library import Call, Inputs, Library

SHORT = 0.5
"""Seconds: a shorter call is made once before it is timed, since the process was asleep."""

PROFILED = 20
"""Calls that are recorded for a profile."""


def resident(field: str = "VmRSS") -> int:
    """Returns the bytes of this process in memory, or with `VmHWM` the most since `forget_peak`."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(rf"^{field}:\s+(\d+) kB", status, re.MULTILINE).group(1))


def forget_peak() -> None:
    """Lets `VmHWM` begin again."""
    Path("/proc/self/clear_refs").write_text("5")


class Worker:
    """Answers questions about one library.

    Args:
        library: with the weights loaded.
        folder: where results are written to be compared.
    """

    def __init__(self, library: Library, folder: Path) -> None:
        self._library, self._folder = library, folder
        self._calls: dict[str, Call] = {}
        self._last: dict[str, float] = {}

    def prepare(self, kind: str, images: int, texts: int) -> dict[str, Any]:
        """Gets ready for a piece of work, does it once, and says where the result is."""
        # Lets go of what was before; a matrix product takes turns with whatever else there is.
        self._calls = {name: call for name, call in self._calls.items() if "matmul" in (name, kind)}
        call = self._calls[kind] = getattr(self._library, kind)(images, texts)
        result = np.asarray(call(), np.float32)
        path = self._folder / f"result-{os.getpid()}.npy"
        np.save(path, result)
        start = time.perf_counter()
        call()
        self._last[kind] = time.perf_counter() - start
        return {"result": str(path)}

    def time(self, kind: str, seconds: float) -> dict[str, Any]:
        """Does it again and again for so many seconds, at least once, and says how long each took."""
        call = self._calls[kind]
        if self._last[kind] < SHORT:
            call()
        taken: list[float] = []
        while not taken or sum(taken) < seconds:
            start = time.perf_counter()
            call()
            taken.append(time.perf_counter() - start)
        self._last[kind] = taken[-1]
        return {"seconds": taken}

    def profile(self, kind: str) -> dict[str, Any]:
        """Says in which operations of TensorFlow the time goes."""
        from tf_clip.benchmark.profile import profile

        with tempfile.TemporaryDirectory() as folder:
            operations = profile(self._calls[kind], folder, times=PROFILED)
        return {"shares": {one.kind: one.share for one in operations}}

    def memory(self) -> dict[str, Any]:
        """Says how much memory there is of this process."""
        return {"resident": resident()}


def started(kind: type[Library], mode: str, folder: Path) -> dict[str, Any]:
    """Imports, loads and encodes for the first time; says what each takes."""
    kind.prepare_imports()
    start = time.perf_counter()
    for name in kind.imports:
        importlib.import_module(name)
    imported = time.perf_counter()
    kind.warm_up(mode)
    ready, before = time.perf_counter(), resident()
    forget_peak()
    inputs = Inputs(folder)
    after_inputs = time.perf_counter()
    library = kind(inputs, mode)
    library.load()
    loaded, loading_peak = time.perf_counter(), resident("VmHWM")
    call = library.image(1, 0)
    call()
    first = time.perf_counter()
    del call
    forget_peak()
    calls = [library.image(8, 0), library.text(0, 16)]
    for _ in range(2):
        for call in calls:
            call()
    return {
        "import": imported - start,
        "load": loaded - after_inputs,
        "first": first - start - (after_inputs - ready),
        "ready_bytes": before,
        "load_bytes": loading_peak - before,
        "inference_bytes": resident("VmHWM"),
    }


def main() -> None:
    """Answers until the input ends."""
    # Whoever asks may be killed while this process is stopped.
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    # Libraries write lines of their own.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(values: dict[str, Any]) -> None:
        print(json.dumps(values), file=answers, flush=True)

    place, mode, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    try:
        module, name = place.split(":")
        kind = getattr(importlib.import_module(module), name)
        if "--start" in sys.argv:
            answer(started(kind, mode, folder))
            return
        kind.prepare_imports()
        kind.warm_up(mode)
        library = kind(Inputs(folder), mode)
        library.load()
        worker = Worker(library, folder)
        answer({"kinds": kind.kinds(mode)})
    except Exception as error:
        traceback.print_exc()
        answer({"error": f"{type(error).__name__}: {error}"})
        return
    for line in sys.stdin:
        question = json.loads(line)
        try:
            answer(getattr(worker, question.pop("do"))(**question))
        except Exception as error:
            traceback.print_exc()
            answer({"error": f"{type(error).__name__}: {error}"})


if __name__ == "__main__":
    main()
