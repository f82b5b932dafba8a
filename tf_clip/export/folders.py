"""Version folders that appear whole: a server that watches their parent never sees half a model."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def new_version(base: Path, version: int, *, overwrite: bool) -> Iterator[Path]:
    """Lends an empty folder to write into, and gives it its name, `base/version`, when the block is done.

    Until then its name begins with a dot, which servers do not take for a version; if the block fails, it is removed.

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
        made, old = Path(place, "new"), Path(place, "old")
        made.mkdir()
        yield made
        if target.exists():
            target.rename(old)
        made.rename(target)
