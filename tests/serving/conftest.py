"""What these tests share: models to serve, and servers of them."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
import sys
from pathlib import Path

import pytest

TFJS = Path(sys.prefix) / "tfjs" / "node_modules" / "@tensorflow" / "tfjs-node" / "lib"


def pytest_configure():
    missing = [name for name in ("kserve", "tensorflow_serving", "selenium") if importlib.util.find_spec(name) is None]
    missing += [name for name in ("chromium", "chromedriver", "node", "gcc") if not shutil.which(name)]
    missing += [] if TFJS.is_dir() else ["@tensorflow/tfjs-node"]
    missing += [] if list(importlib.metadata.distributions(name="open-clip-torch")) else ["open-clip-torch"]
    if missing:
        # Tests of a server that skip themselves would look like ones that passed.
        raise pytest.UsageError(f"tests/serving needs {', '.join(missing)}: run `make serve-test`, which installs all.")


@pytest.fixture(scope="session")
def plain_model(tmp_path_factory):
    """A folder with version 1 of a model of a few lines."""
    from helpers.serving.plain_model import write_plain_model

    folder = tmp_path_factory.mktemp("models") / "plain"
    write_plain_model(folder, 1)
    return folder


@pytest.fixture(scope="session")
def server(plain_model):
    """A server of it that many tests ask."""
    from helpers.serving.running import LocalServer

    with LocalServer(plain_model) as server:
        yield server
