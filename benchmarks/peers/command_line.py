"""How long the command line takes to its first answer, against importing TensorFlow and against the work itself."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
QUESTION = ["classify", str(ROOT / "examples" / "images" / "owl.png"), "--labels", "owl,bicycle,pizza"]
# The same answer in a process in which all has been imported.
COMPUTE = """
import contextlib, io, json, sys, time
from tf_clip.cli.main import main
words = json.loads(sys.argv[1])
for _ in range(2):
    start = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        main(words)
    seconds = time.perf_counter() - start
print(seconds)
"""
IMPORT = "import time; start = time.perf_counter(); import {}; print(time.perf_counter() - start)"


def command_line(python: str, rounds: int) -> dict[str, float]:
    """Returns median seconds: of the imports, inside the process; of whole processes; and of the answer alone.

    Args:
        python: that has tf_clip.
        rounds: in turns, after one that is not counted.
    """
    wholes = {"import tensorflow, whole process": ["-c", "import tensorflow"], "answer": ["-m", "tf_clip", *QUESTION]}
    printed = {
        "import tensorflow": ["-c", IMPORT.format("tensorflow")],
        "import tf_clip": ["-c", IMPORT.format("tf_clip")],
        "compute": ["-c", COMPUTE, json.dumps(QUESTION)],
    }
    times: dict[str, list[float]] = {name: [] for name in (*wholes, *printed)}
    for number in range(rounds + 1):
        for name, words in {**wholes, **printed}.items():
            start = time.perf_counter()
            output = _run([python, *words])
            seconds = time.perf_counter() - start if name in wholes else float(output.split()[-1])
            if number:
                times[name].append(seconds)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def _run(command: list[str]) -> str:
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if result.returncode:
        raise RuntimeError(f"{command[1:4]} failed: {result.stderr[-500:]}")
    return result.stdout


if __name__ == "__main__":
    print(json.dumps(command_line(sys.executable, 3), indent=1))
