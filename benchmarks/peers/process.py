"""A worker's process as the driver sees it: asked, stopped while others compute, and never waited for in vain."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TIMEOUT = 1800.0
"""Seconds for one answer: what compiles for every shape takes minutes."""
# Threads that wait do so asleep, where a library can be told.
QUIET = {
    "OMP_WAIT_POLICY": "PASSIVE",
    "KMP_BLOCKTIME": "0",
    "HF_HUB_OFFLINE": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "KERAS_BACKEND": "tensorflow",
    # In the process itself, which is the one that is stopped.
    "TORCHINDUCTOR_COMPILE_THREADS": "1",
}


class WorkerError(RuntimeError):
    """A worker could not do what it was asked to; the message says why."""


class Process:
    """A worker that computes only while it is asked.

    Args:
        command: what starts it.
        log: the file that takes what it writes.
        environment: variables set for it.
        timeout: seconds that it has for an answer.

    Raises:
        WorkerError: it does not start.
    """

    def __init__(
        self, command: Sequence[str], log: Path, environment: dict[str, str], timeout: float = TIMEOUT
    ) -> None:
        self._log, self._timeout = log, timeout
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                env={**os.environ, **QUIET, **environment},
            )
        self._answers: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self.hello = self._answer()
        except WorkerError:
            self.close()
            raise

    def ask(self, do: str, **values: Any) -> dict[str, Any]:
        """Asks, and waits for the answer.

        Raises:
            WorkerError: it answers with an error, ends, or takes too long.
        """
        assert self._process.stdin is not None
        self._process.send_signal(signal.SIGCONT)
        try:
            self._process.stdin.write(json.dumps({"do": do, **values}) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise WorkerError(f"it has ended; {self._last_words()}") from None
        return self._answer()

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):  # a question that was never read
                pipe.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put("")

    def _answer(self) -> dict[str, Any]:
        try:
            line = self._answers.get(timeout=self._timeout)
        except queue.Empty:
            self._process.kill()  # it would compute in the others' turns, and answer the next question with this
            raise WorkerError(f"no answer for {self._timeout:g} seconds") from None
        if not line:
            raise WorkerError(f"it has ended; {self._last_words()}")
        # Some libraries' threads wait in a loop, which would cost the next one a core.
        self._process.send_signal(signal.SIGSTOP)
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").strip().splitlines()
        return f"its last line was: {lines[-1][-300:]}" if lines else "it wrote nothing"
