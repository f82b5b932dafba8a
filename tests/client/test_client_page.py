"""The code of docs/client.md runs, against fake servers of both protocols."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from helpers import ROOT, environment
from helpers.fake_model_server import IMAGE


@pytest.mark.docs
def test_the_clients_page_runs(rest_server, grpc_server, tmp_path):
    page = (ROOT / "docs" / "client.md").read_text(encoding="utf-8")
    code = "\n".join(re.findall(r"^```py\n(.*?)^```", page, re.MULTILINE | re.DOTALL))
    code = code.replace("http://localhost:8501", rest_server.address).replace("localhost:8500", grpc_server.address)
    for name in ("owl", "bus"):
        (tmp_path / f"{name}.png").write_bytes(IMAGE + name.encode())
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        env=environment(),
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] in page  # the comment that shows what is printed
    assert "not a JPEG, PNG, WebP or GIF file" in lines
    assert lines[-1] == "True (1, 5)"
