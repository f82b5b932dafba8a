"""Loading ViT-L/14 takes little more memory than the model itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import BACKENDS, ROOT, Process
from .measuring import record

SCRIPT = Path(__file__).with_name("memory.py")


def run(*words: str | Path, backend: str = "tensorflow") -> str:
    environment = {**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, str(SCRIPT), *map(str, words)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory, reference: Process) -> Iterator[Path]:
    """ViT-L/14 in two formats."""
    folder = tmp_path_factory.mktemp("large")
    run("make", folder / "safetensors")
    reference("to_bin", folder / "safetensors", folder / "bin", "1")
    yield folder
    shutil.rmtree(folder)


@pytest.mark.real_size
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("form", ["safetensors", "bin"])
def test_one_copy_is_enough(large: Path, form: str, backend: str) -> None:
    ratio = float(run("load", large / form, backend=backend).split()[-1])
    row = ("CLIPModel", f"ViT-L/14 from .{form}: memory to load it, in sizes of its weights")
    record(row, "peak", backend, ratio)
