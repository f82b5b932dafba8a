"""Tables of text, CSV, TSV and JSONL, line by line: a line that is broken costs its own row, and no more memory."""

from __future__ import annotations

import csv
import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tf_clip.data.files import open_file
from tf_clip.data.skipped import ExampleError

MAX_LINE_BYTES = 1 << 24
MAX_LINES_OF_A_ROW = 100
"""A quotation mark that nobody closes must not take the rest of the file with it."""

_CHUNK_BYTES = 1 << 20
_MAX_ROW_CHARACTERS = 1 << 20
_LINE_TOO_LONG = f"the line has more than {MAX_LINE_BYTES} bytes"

Row = tuple[int, "Mapping[str, Any] | ExampleError"]
"""The number of a row's first line, and its values by column, or why it has none."""


def csv_rows(path: str, delimiter: str = ",") -> Iterator[Row]:
    """Reads a table with quotation marks, as spreadsheets write it; the first line names the columns.

    Args:
        path: UTF-8 file, with or without a byte order mark.
        delimiter: what is between columns.

    Yields:
        Each row's values by column; a list for columns that share a name.

    Raises:
        ValueError: the first line is not one of names.
    """
    lines = _CSVLines(read_lines(path))
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    names: list[str] | None = None
    while True:
        lines.begin_row()
        try:
            fields = next(reader, None)
            if fields is None:
                return
            if not fields:
                continue  # an empty line
            if names is None:
                names = _column_names(fields, path)
                continue
            if len(fields) != len(names):
                raise ExampleError(f"{len(fields)} columns where the first line has {len(names)}")
        except (csv.Error, ExampleError) as error:
            if names is None:
                raise ValueError(_no_header(path, str(error))) from error
            yield lines.number, ExampleError(str(error))
            lines.go_back()
        else:
            yield lines.number, _by_name(names, fields)


def jsonl_rows(path: str) -> Iterator[Row]:
    """Reads one JSON object a line.

    Args:
        path: UTF-8 file, with or without a byte order mark.

    Yields:
        Each line's object.
    """
    for number, line in read_lines(path):
        if line is None:
            yield number, ExampleError(_LINE_TOO_LONG)
        elif line.strip():
            yield number, _json_object(line)


def _json_object(line: bytes) -> Mapping[str, Any] | ExampleError:
    try:
        values = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        return ExampleError("the line is not valid UTF-8")
    except (ValueError, RecursionError) as error:
        return ExampleError(f"the line is not JSON ({type(error).__name__})")
    return values if isinstance(values, dict) else ExampleError("the line is not a JSON object")


def read_lines(path: str) -> Iterator[tuple[int, bytes | None]]:
    """Reads lines without their ends, numbered from 1; None for one that is too long to hold.

    Args:
        path: the file.
    """
    number, begun, is_too_long = 1, b"", False
    file, _ = open_file(path)
    with file:
        while chunk := file.read(_CHUNK_BYTES):
            *ends, rest = chunk.split(b"\n")
            for end in ends:
                yield number, None if is_too_long else _line(begun + end, number)
                number, begun, is_too_long = number + 1, b"", False
            begun += rest
            if len(begun) > MAX_LINE_BYTES:
                begun, is_too_long = b"", True
    if begun or is_too_long:
        yield number, None if is_too_long else _line(begun, number)


def _line(line: bytes, number: int) -> bytes | None:
    if len(line) > MAX_LINE_BYTES:
        return None
    return line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line


class _CSVLines:
    """Feeds `csv.reader`, and knows which lines the current row has taken, so that they can be read again.

    Attributes:
        number: the number of the row's first line.
    """

    def __init__(self, lines: Iterable[tuple[int, bytes | None]]) -> None:
        self._lines = iter(lines)
        self._again: deque[tuple[int, bytes | None]] = deque()
        self._taken: list[tuple[int, bytes | None]] = []
        self._size = 0

    @property
    def number(self) -> int:
        return self._taken[0][0]

    def begin_row(self) -> None:
        self._taken, self._size = [], 0

    def go_back(self) -> None:
        """Gives all lines of the row but the first once more."""
        self._again.extendleft(reversed(self._taken[1:]))

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        number, line = self._again.popleft() if self._again else next(self._lines)
        self._taken.append((number, line))
        if line is None:
            raise ExampleError(_LINE_TOO_LONG)
        self._size += len(line)
        if self._size > _MAX_ROW_CHARACTERS or len(self._taken) > MAX_LINES_OF_A_ROW:
            raise ExampleError("the row is too long; a quotation mark may be missing")
        return line.decode("utf-8", "surrogateescape") + "\n"


def _column_names(fields: list[str], path: str) -> list[str]:
    names = [name.strip() for name in fields]
    if any("\udc80" <= character <= "\udcff" for name in names for character in name):
        raise ValueError(_no_header(path, "it is not valid UTF-8"))
    return names


def _no_header(path: str, why: str) -> str:
    rule = "`source` must begin with a line of column names, in UTF-8."
    return f"{rule} Received: source={path!r}, {why}. Save it again."


def _by_name(names: list[str], fields: list[str]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, field in zip(names, fields, strict=True):
        if name in values:
            earlier = values[name]
            values[name] = [*earlier, field] if isinstance(earlier, list) else [earlier, field]
        else:
            values[name] = field
    return values
