"""How what the docs show is run."""

import pytest

from helpers import ROOT
from helpers.forked import run_forked


@pytest.fixture
def run(tmp_path_factory):
    """Runs `python COMMAND`, in the repository or in another folder, and returns what it prints."""
    printed = tmp_path_factory.mktemp("printed") / "output"
    return lambda command, folder=ROOT: run_forked(command, folder, printed)


@pytest.fixture
def workplace(tmp_path):
    """A folder that has the repository's examples, and that blocks may write into."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    return tmp_path
