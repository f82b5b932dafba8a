"""What these tests share: models to serve, and servers of them."""

from __future__ import annotations

import importlib.util

import pytest


def pytest_configure():
    missing = [name for name in ("kserve", "tensorflow_serving", "selenium") if importlib.util.find_spec(name) is None]
    if missing:
        # Tests of a server that skip themselves would look like ones that passed.
        raise pytest.UsageError(f"tests/serving needs {', '.join(missing)}: run `make serve-test`, which installs all.")


@pytest.fixture(scope="session")
def plain_model(tmp_path_factory):
    """A folder with version 1 of a model of a few lines."""
    from plain_model import write_plain_model

    folder = tmp_path_factory.mktemp("models") / "plain"
    write_plain_model(folder, 1)
    return folder


@pytest.fixture(scope="session")
def server(plain_model):
    """A server of it that many tests ask."""
    from running import LocalServer

    with LocalServer(plain_model) as server:
        yield server
