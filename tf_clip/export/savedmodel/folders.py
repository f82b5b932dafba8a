"""Version folders that appear whole: a server that watches their parent never sees half a model."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from tf_clip.files import replacing_folder


@contextlib.contextmanager
def new_version(base: Path, version: int, *, overwrite: bool) -> Iterator[Path]:
    """Lends an empty folder to write into, and moves it to `base/version` when the block is done.

    Until then it lies in a folder whose name begins with a dot, which servers do not take for a version. What is
    written beside it in that folder is copied to `base` before the version appears. If the block fails, all is removed.

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
    with replacing_folder(target) as made:
        yield made
        for beside in made.parent.iterdir():
            if beside != made:
                shutil.copytree(beside, base / beside.name, dirs_exist_ok=True)
