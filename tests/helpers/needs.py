"""What tests need beside the package: without it they refuse to start, as tests that skip look like ones that pass."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest


def refuse_without(
    tests: str,
    install: str,
    modules: Sequence[str] = (),
    distributions: Sequence[str] = (),
    programs: Sequence[str] = (),
    folders: Mapping[str, Path] | None = None,
) -> None:
    """Ends the session unless all is there.

    Args:
        tests: whose need it is.
        install: the command that installs it.
        modules: names to import.
        distributions: packages of which only files are used.
        programs: to be on PATH.
        folders: from what lies in a folder to that folder.

    Raises:
        pytest.UsageError: something is missing; names all of it.
    """
    missing = [name for name in modules if importlib.util.find_spec(name) is None]
    missing += [name for name in distributions if not list(importlib.metadata.distributions(name=name))]
    missing += [name for name in programs if not shutil.which(name)]
    missing += [name for name, folder in (folders or {}).items() if not folder.is_dir()]
    if missing:
        raise pytest.UsageError(f"{tests} need {', '.join(missing)}: run `{install}`, which installs all.")
