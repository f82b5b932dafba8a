"""What tests of several folders share, and what benchmarks take from them; `tests` is on Python's path in both."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
"""The repository."""


def environment(**more: str) -> dict[str, str]:
    """Returns the variables of a process of its own that imports the package and these helpers from the repository."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]), **more}
