"""The local server in a process of its own, started and always ended."""

from __future__ import annotations

import queue
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import httpx

from helpers import environment

SECONDS_TO_START = 120


class LocalServer:
    """`tf-clip serve` at free ports of the loopback interface.

    Args:
        model_dir: what it serves.
        words: further words of the command.
    """

    def __init__(self, model_dir: Path, *words: str) -> None:
        command = [sys.executable, "-m", "tf_clip", "serve", str(model_dir), "--port", "0", "--grpc-port", "0", *words]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment(),
        )
        self.lines: list[str] = []
        self._new_lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            where = self.wait_for_line("Serving", SECONDS_TO_START)
        except BaseException:
            self._end()
            raise
        self.url = re.findall(r"(http://\S+?)/ ", where)[0]
        self.target = where.split()[-1]
        self.http = httpx.Client(base_url=self.url, timeout=60, trust_env=False)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            self._new_lines.put(line)
        self._new_lines.put(None)

    def wait_for_line(self, part: str, seconds: float) -> str:
        """Returns the next line with `part` in it."""
        while True:
            line = self._new_lines.get(timeout=seconds)
            assert line is not None, "the server has ended:\n" + "".join(self.lines)
            if part in line:
                return line

    def predict(self, body: Any, **options: Any) -> Any:
        """Posts a body and returns the response, whatever its status."""
        return self.http.post("/v1/models/clip:predict", json=body, **options)

    def columns(self, signature: str, **inputs: Any) -> Any:
        """Returns a signature's outputs, asked in column form."""
        response = self.predict({"signature_name": signature, "inputs": inputs})
        assert response.status_code == 200, response.text
        return response.json()["outputs"]

    def is_well(self) -> bool:
        """Says whether it still answers."""
        return bool(self.columns("encode_text", text=["an owl"])["status"] == ["ok"])

    def stop(self) -> None:
        """Ends it as an operator does; it must then end well."""
        self.http.close()
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(60)
        finally:
            self._end()
        assert status == 0, "".join(self.lines)

    def kill(self) -> None:
        """Ends it at once, as a crash would."""
        self.http.close()
        self._end()

    def _end(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: Any) -> None:
        self.stop()


def serve_here(model_dir: Path, **options: Any) -> None:
    """Calls the server's function in this process, for what it refuses before it serves; signals are as before."""
    from tf_clip.serving.server import ServerOptions, serve

    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        serve(model_dir, ServerOptions(**options), print)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
