"""Files and folders that appear whole: no reader, and no program that is killed, leaves or finds half of one.

Each is written in a folder beside its place, whose name begins with a dot, flushed to the disk, and moved in one step.
If writing fails, the folder is removed and what was there before stays; a killed program leaves the folder.
"""

from __future__ import annotations

import contextlib
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Lends a path of the same name to write to, and moves the file to `path` when the block is done.

    Args:
        path: the file; its folder is made when missing.

    Example:
        >>> with replacing_file("weights.safetensors") as file:  # doctest: +SKIP
        ...     save_file(arrays, file)
    """
    path = Path(path)
    with _folder_beside(path) as beside:
        written = beside / path.name
        yield written
        _flush(written)
        written.replace(path)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a UTF-8 file whole; its folder is made when missing."""
    with replacing_file(path) as file:
        file.write_text(text, encoding="utf-8")


@contextlib.contextmanager
def replacing_files(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Lends an empty folder, and when the block is done moves each of its files to `folder`, which keeps its others.

    Args:
        folder: made when missing, with the folders above it.
    """
    folder = Path(folder)
    with _folder_beside(folder) as beside:
        yield beside
        written = sorted(beside.iterdir())
        for file in written:
            _flush(file)
        folder.mkdir(exist_ok=True)
        for file in written:
            file.replace(folder / file.name)


@contextlib.contextmanager
def replacing_folder(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Lends an empty folder of the same name, and puts it in the place of `folder` when the block is done.

    Args:
        folder: what is there before is removed; the folders above it are made when missing.
    """
    folder = Path(folder)
    with _folder_beside(folder) as beside:
        written = beside / folder.name
        written.mkdir()
        yield written
        for file in written.rglob("*"):
            if file.is_file():
                _flush(file)
        if folder.exists():
            folder.rename(beside / f"{folder.name}.old")
        written.rename(folder)


def remove_unfinished(path: str | os.PathLike[str]) -> None:
    """Removes what killed programs left of writing `path`, which no other program may be writing now."""
    path = Path(path)
    for folder in path.parent.glob(f".{glob.escape(path.name)}-*"):
        shutil.rmtree(folder)


@contextlib.contextmanager
def _folder_beside(path: Path) -> Iterator[Path]:
    """Lends a new folder on the same disk, from where things are moved in one step."""
    path = path.absolute()  # "." has no name
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as folder:
        yield Path(folder)


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
