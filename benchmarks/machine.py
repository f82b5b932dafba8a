"""What a benchmark ran on, as one phrase."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform

import tf_clip


def described(*packages: str) -> str:
    """Returns the date, the machine's kind and the versions of packages; nothing that names the machine."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    return (
        f"{datetime.date.today().isoformat()}, {os.cpu_count()} logical cores, {platform.system()} "
        f"{platform.machine()}, Python {platform.python_version()}, tf_clip {tf_clip.__version__}, {versions}"
    )
