"""What `tf-clip evaluate` reads: folders of class folders, and tables of pictures with their labels or captions."""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Iterator
from pathlib import Path

from tf_clip.cli.commands import PICTURE_SUFFIXES


@dataclasses.dataclass(frozen=True)
class Skipped:
    """A picture or a row of a table that does not count, and why."""

    where: str
    reason: str


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Pictures and what is said of them.

    Args:
        paths: a file for each row; a picture of several captions has several rows.
        texts: the label or caption of each row.
        classes: the names of all classes, for labels; those without pictures included.
        skipped: rows that could not be read.
    """

    paths: list[Path]
    texts: list[str]
    classes: list[str]
    skipped: list[Skipped]


def read_pictures(source: Path, image_column: str, text_column: str) -> Pictures:
    """Reads pictures and their labels or captions.

    Args:
        source: a folder with a folder for each class, named as it, with `_` for spaces; or a CSV or TSV file with a
            heading, in UTF-8.
        image_column: the column of paths; they start at the table's folder.
        text_column: the column of labels or captions.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: a column is missing, or there is no picture in it.
    """
    if not source.exists():
        raise FileNotFoundError(f"`DATA` must be an existing file or folder. Received: {source}. Check the path.")
    found = _class_folders(source) if source.is_dir() else _table(source, image_column, text_column)
    if not found.paths:
        reasons = "".join(f" {row.where}: {row.reason}." for row in found.skipped[:3])
        raise ValueError(f"`DATA` must hold pictures. Received: {source}, none usable.{reasons} Check what is in it.")
    return found


def _class_folders(folder: Path) -> Pictures:
    paths, labels, classes = [], [], []
    for place in sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")):
        name = place.name.replace("_", " ")
        classes.append(name)
        inside = sorted(file for file in place.rglob("*") if file.suffix.lower() in PICTURE_SUFFIXES)
        paths += inside
        labels += [name] * len(inside)
    return Pictures(paths, labels, classes, [])


def _table(path: Path, image_column: str, text_column: str) -> Pictures:
    paths, texts, skipped = [], [], []
    for where, row in _rows(path, (image_column, text_column)):
        if isinstance(row, str):
            skipped.append(Skipped(where, row))
        else:
            paths.append(path.parent / row[image_column].strip())
            texts.append(row[text_column].strip())
    return Pictures(paths, texts, sorted(set(texts)), skipped)


def _rows(path: Path, wanted: tuple[str, ...]) -> Iterator[tuple[str, dict[str, str] | str]]:
    """Yields where each row is, and the row, or what is wrong with it."""
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    # A letter in another encoding spoils its own row only.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        reader = csv.DictReader(file, delimiter=delimiter)
        headings = list(reader.fieldnames or [])
        missing = [name for name in wanted if name not in headings]
        if missing:
            raise ValueError(
                f"`DATA` must have the columns {', '.join(wanted)}. Received: {path} with {', '.join(headings)!r}. "
                "Name the columns with --image-column and --label-column or --caption-column."
            )
        while True:
            try:
                row = next(reader, None)
            except csv.Error as error:
                yield f"{path.name}:{reader.line_num}", f"not a row of a table ({error})"
                continue
            if row is None:
                return
            yield f"{path.name}:{reader.line_num}", _fault(row, wanted) or row


def _fault(row: dict[str, str], wanted: tuple[str, ...]) -> str:
    if None in row:
        return "more cells than headings; put quotation marks around texts with commas"
    for name in wanted:
        if not (row[name] or "").strip():
            return f"nothing under {name}"
        if not row[name].isprintable() and any("\udc80" <= letter <= "\udcff" for letter in row[name]):
            return f"{name} is not UTF-8"
    return ""
