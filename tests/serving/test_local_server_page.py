"""The commands of docs/local_server.md do what it says."""

import json
import re
import shlex
import subprocess
import sys

import pytest

from helpers import ROOT, environment
from helpers.serving.running import LocalServer

PAGE = (ROOT / "docs" / "local_server.md").read_text(encoding="utf-8")
FIRST, REQUESTS = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_the_commands_of_the_page(tmp_path):
    install, export, serve = (shlex.split(line) for line in FIRST.splitlines())
    assert install == ["pip", "install", "tf_clip[serve]"]
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    options = {"cwd": tmp_path, "env": environment(), "capture_output": True, "text": True, "timeout": 300}
    result = subprocess.run([sys.executable, "-m", "tf_clip", *export[1:]], **options)
    assert result.returncode == 0, result.stderr
    assert serve == ["tf-clip", "serve", "served", "--grpc-port", "8500"]
    with LocalServer(tmp_path / "served") as server:
        script = REQUESTS.replace("http://127.0.0.1:8501", server.url)
        result = subprocess.run(["bash", "-c", script.replace("-s ", "-s -w '\\n' ")], **options)
        assert result.returncode == 0, result.stderr
        metadata, texts, classes, similarity = map(json.loads, result.stdout.splitlines())
    assert metadata["model_spec"]["name"] == "clip"
    assert [row["status"] for row in texts["predictions"]] == ["ok", "ok"]
    assert classes["predictions"][0]["labels"][0] == "owl"
    assert similarity["outputs"]["probabilities"][0][0] == pytest.approx(max(similarity["outputs"]["probabilities"][0]))


def test_the_defaults_of_the_page():
    result = subprocess.run(
        [sys.executable, "-m", "tf_clip", "serve", "--help"],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=60,
    )
    told = dict(re.findall(r"^\| `(--[\w-]+)` \| `?([\w.]+)`? \|", PAGE, re.MULTILINE))
    assert len(told) == 6
    for option, default in told.items():
        text = " ".join(result.stdout.split())
        assert re.search(rf"{option} .*?\(default: {re.escape(default)}\)", text), option
