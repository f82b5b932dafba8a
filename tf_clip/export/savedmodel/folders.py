"""Version folders that appear whole: a server that watches their parent never sees half a model."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def new_version(base: Path, version: int, *, overwrite: bool) -> Iterator[Path]:
    """Lends an empty folder to write into, and moves it to `base/version` when the block is done.

    Until then it has its number as its name in a folder that begins with a dot, which servers do not take for a
    version. What is written beside it is moved, too, before it; if the block fails, all is removed.

    Raises:
        ValueError: the version is no whole number above 0, or is there already and `overwrite` is False.
    """
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ValueError(f"`version` must be a whole number above 0. Received: version={version!r}. Use 1 if unsure.")
    target = base / str(version)
    if target.exists() and not overwrite:
        raise ValueError(
            f"`version` must be new. Received: version={version}, but {target} exists. "
            "Choose a higher one, which a server changes to by itself, or overwrite it."
        )
    base.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{version}-", dir=base) as place:
        made = Path(place, str(version))
        made.mkdir()
        yield made
        for beside in Path(place).iterdir():
            if beside != made:
                shutil.copytree(beside, base / beside.name, dirs_exist_ok=True)
        if target.exists():
            target.rename(Path(place, "old"))
        made.rename(target)
