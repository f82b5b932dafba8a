"""The commands of docs/local_server.md do what it says."""

import json
import re
import subprocess

import pytest

from helpers import ROOT
from tf_clip.cli.main import main

pytestmark = pytest.mark.docs

PAGE = (ROOT / "docs" / "local_server.md").read_text(encoding="utf-8")
FIRST, REQUESTS = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_the_commands_of_the_page(pictogram_server):
    """The server is of the model that the page's export command wrote."""
    install, _, serve = FIRST.splitlines()
    assert (install, serve) == ('pip install "tf_clip[serve]"', "tf-clip serve served --grpc-port 8500")
    script = REQUESTS.replace("http://127.0.0.1:8501", pictogram_server.url).replace("-s ", "-s -w '\\n' ")
    result = subprocess.run(["bash", "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    metadata, texts, classes, similarity = map(json.loads, result.stdout.splitlines())
    assert metadata["model_spec"]["name"] == "clip"
    assert [row["status"] for row in texts["predictions"]] == ["ok", "ok"]
    assert classes["predictions"][0]["labels"][0] == "owl"
    assert similarity["outputs"]["probabilities"][0][0] == pytest.approx(max(similarity["outputs"]["probabilities"][0]))


def test_the_metrics_of_the_page(pictogram_server):
    (row,) = re.findall(r"^\| `GET /metrics` \|(.*)\|$", PAGE, re.MULTILINE)
    metrics = pictogram_server.http.get("/metrics").text
    names = re.findall(r"`(\w+)`", row)
    assert len(names) == 6
    assert all(f"# HELP {name} " in metrics for name in names)


def test_the_defaults_of_the_page(capsys):
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    told = dict(re.findall(r"^\| `(--[\w-]+)` \| `?([\w.]+)`? \|", PAGE, re.MULTILINE))
    assert len(told) == 6
    for option, default in told.items():
        assert re.search(rf"{option} .*?\(default: {re.escape(default)}\)", shown), option
