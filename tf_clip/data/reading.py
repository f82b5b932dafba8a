"""`read_pairs`: images and captions of any of the usual files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence

import tensorflow as tf

from tf_clip.data.class_folders import class_folder_pairs
from tf_clip.data.pairs import Pairs
from tf_clip.data.skipped import listed
from tf_clip.data.tables import Columns, TableRows
from tf_clip.data.tar_shards import TarPairs
from tf_clip.data.text_tables import csv_rows, jsonl_rows
from tf_clip.data.tfrecords import RecordPairs

FORMATS = ("csv", "tsv", "jsonl", "parquet", "folder", "tfrecord", "tar")
_TABLES = ("csv", "tsv", "jsonl", "parquet")
_FORMAT_OF = {"ndjson": "jsonl", "tfrecords": "tfrecord", "tfrec": "tfrecord"}
_NUMBERED_RECORDS = re.compile(r"\.tfrec(ords?)?-\d+-of-\d+$")
_GLOB = frozenset("*?[")
_DEFAULT_TEMPLATE = "a photo of a {}."


def read_pairs(
    source: str | os.PathLike[str] | Iterable[str | os.PathLike[str]],
    *,
    image_column: str = "image",
    caption_column: str | Sequence[str] = "caption",
    group_column: str | None = None,
    image_folder: str | os.PathLike[str] | None = None,
    template: str | Sequence[str] | None = None,
    format: str | None = None,
) -> Pairs:
    """Reads which images and captions there are; images are read later, when they are needed.

    Args:
        source: a file, a pattern such as `"shards/*.tar"`, or several of one format, on any file system that TensorFlow
            can read: CSV, TSV, JSONL, Parquet, TFRecord, WebDataset's tar shards; or a folder of class folders.
        image_column: column, or feature, of the image: a path, relative to the file; in Parquet and TFRecord the
            encoded bytes; in CSV, TSV and JSONL also a `data:` URI.
        caption_column: column, or feature, of the caption; of a list of captions; or several columns. One of
            an image's captions is drawn each time.
        group_column: tables only: rows that are equal in this column belong together, so that each caption is right for
            each image. None takes rows with the same path, and in class folders the class.
        image_folder: tables of paths only: where relative paths begin.
        template: class folders only: one template or several with `{}` for the class; None for `"a photo of a {}."`.
        format: one of `FORMATS`; None goes by the file's name.

    Returns:
        The pairs. Unreadable examples are not among them but in their `skipped`.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: Parquet without pyarrow.
        ValueError: a file is broken as a whole, has other columns, has no readable example; or an argument does not
            go with the format.

    Example:
        >>> len(read_pairs("pairs.csv", caption_column=["title", "tags"]))  # doctest: +SKIP
    """
    files = _files(source)
    kind = _format(files, format)
    _require_goes_with(
        kind,
        {
            "image_column": (image_column != "image", (*_TABLES, "tfrecord")),
            "caption_column": (caption_column != "caption", (*_TABLES, "tfrecord", "tar")),
            "group_column": (group_column is not None, _TABLES),
            "image_folder": (image_folder is not None, _TABLES),
            "template": (template is not None, ("folder",)),
        },
    )
    captions = _listed(caption_column)
    if not captions:
        raise ValueError("`caption_column` must name a column. Received: caption_column=(). Name one or several.")
    folder = None if image_folder is None else os.fspath(image_folder)
    pairs: Pairs
    if kind == "folder":
        pairs = class_folder_pairs(_only("source", files), _listed(_DEFAULT_TEMPLATE if template is None else template))
    elif kind == "tfrecord":
        pairs = RecordPairs(files, image_column, captions)
    elif kind == "tar":
        pairs = TarPairs(files, _only("caption_column", captions))
    else:
        pairs = _table_pairs(kind, files, Columns(image_column, captions, group_column), folder)
    if not len(pairs):
        unreadable = f":\n{listed(pairs.skipped)}\n" if pairs.skipped else ". "
        raise ValueError(
            f"`source` must have a readable example. Received: source={files!r} with none{unreadable}Check it."
        )
    return pairs


def _table_pairs(kind: str, files: Sequence[str], columns: Columns, image_folder: str | None) -> Pairs:
    if kind == "parquet":
        from tf_clip.data.parquet_table import parquet_pairs  # needs pyarrow

        return parquet_pairs(files, columns, image_folder)
    rows = TableRows(columns, image_folder)
    for path in files:
        rows.add(path, jsonl_rows(path) if kind == "jsonl" else csv_rows(path, "\t" if kind == "tsv" else ","))
    return rows.to_pairs()


def _files(source: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[str]:
    """Returns the files that are meant, each of which exists."""
    names = [os.fspath(name) for name in ([source] if isinstance(source, (str, os.PathLike)) else source)]
    files: list[str] = []
    for name in names:
        if not _GLOB.isdisjoint(name) and not tf.io.gfile.exists(name):
            files += sorted(tf.io.gfile.glob(name))
        else:
            files.append(name)
    missing = [path for path in files if not tf.io.gfile.exists(path)]
    if missing or not files:
        raise FileNotFoundError(
            f"`source` must name existing files. Received: source={(missing or names)!r}. Check the path."
        )
    return files


def _format(files: Sequence[str], wanted: str | None) -> str:
    if wanted is not None and wanted not in FORMATS:
        raise ValueError(
            f"`format` must be one of {FORMATS}. Received: format={wanted!r}. None goes by the file's name."
        )
    kinds = {wanted or _format_of(path) for path in files}
    if len(kinds) > 1:
        raise ValueError(f"`source` must be of one format. Received: files of {sorted(kinds)}. Read them one by one.")
    return kinds.pop()


def _format_of(path: str) -> str:
    if tf.io.gfile.isdir(path):
        return "folder"
    if _NUMBERED_RECORDS.search(path.lower()):
        return "tfrecord"
    extension = path.lower().rpartition(".")[2]
    kind = _FORMAT_OF.get(extension, extension)
    if kind not in FORMATS:
        raise ValueError(
            f"`source` must have a known ending. Received: source={path!r}. Give its `format`, one of {FORMATS}."
        )
    return kind


def _require_goes_with(kind: str, arguments: dict[str, tuple[bool, Sequence[str]]]) -> None:
    for name, (is_given, kinds) in arguments.items():
        if is_given and kind not in kinds:
            raise ValueError(
                f"`{name}` must go with one of {tuple(kinds)}. Received: {name} and {kind!r}. Leave it out."
            )


def _listed(values: str | Sequence[str]) -> tuple[str, ...]:
    return (values,) if isinstance(values, str) else tuple(values)


def _only(argument: str, values: Sequence[str]) -> str:
    if len(values) != 1:
        raise ValueError(
            f"`{argument}` must be a single one in this format. Received: {argument}={list(values)!r}. "
            "Leave the others out."
        )
    return values[0]
