"""What these tests share: models to serve, and servers of them."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from helpers.needs import refuse_without

TFJS = Path(sys.prefix) / "tfjs" / "node_modules" / "@tensorflow" / "tfjs-node" / "lib"


def pytest_configure():
    refuse_without(
        "tests/serving",
        "make serve-test",
        modules=("starlette", "uvicorn", "prometheus_client", "orjson", "selenium"),
        programs=("chromium", "chromedriver", "node", "gcc"),
        folders={"@tensorflow/tfjs-node": TFJS},
    )


@pytest.fixture(scope="session")
def plain_model(tmp_path_factory):
    """A folder with version 1 of a model of a few lines."""
    from helpers.serving.plain_model import write_plain_model

    folder = tmp_path_factory.mktemp("models") / "plain"
    write_plain_model(folder, 1)
    return folder


@pytest.fixture(scope="session")
def server(plain_model):
    """A server of it with the default limits."""
    from helpers.serving.running import LocalServer

    with LocalServer(plain_model) as server:
        yield server


@pytest.fixture(scope="session")
def small_server(plain_model):
    """A server of it with low limits."""
    from helpers.serving.running import LocalServer

    words = ["--max-body-mb", "0.1", "--max-concurrency", "2", "--max-batch-size", "4", "--batch-timeout-ms", "20"]
    with LocalServer(plain_model, *words) as server:
        yield server


@pytest.fixture(scope="session")
def pictograms(tmp_path_factory):
    """The shipped model, exported by the command of docs/local_server.md: a folder of versions."""
    from helpers import ROOT
    from tf_clip.cli.main import main

    (command,) = re.findall(r"^tf-clip (export .*)$", (ROOT / "docs" / "local_server.md").read_text(), re.MULTILINE)
    folder = tmp_path_factory.mktemp("exported") / "served"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder.parent)
        (folder.parent / "examples").symlink_to(ROOT / "examples")
        assert main(shlex.split(command)) == 0
    return folder


@pytest.fixture(scope="session")
def pictogram_server(pictograms):
    """A server of it with the default limits."""
    from helpers.serving.running import LocalServer

    with LocalServer(pictograms) as server:
        yield server
