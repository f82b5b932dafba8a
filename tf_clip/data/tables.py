"""Rows of a table, whatever file they come from, to pairs."""

from __future__ import annotations

import os
from array import array
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from tf_clip.data.pairs import ListedPairs, require_unicode, usable_captions
from tf_clip.data.skipped import ExampleError, SkippedExample

_STRANGE_ROWS = 100  # without the columns, until it is another table


class Columns(NamedTuple):
    """Which columns of a table are what.

    Args:
        image: holds a path or a `data:` URI (in Parquet, a file's bytes, too).
        captions: each holds a caption, or a list of them.
        group: rows with equal values in it belong together; None for no such column.
    """

    image: str
    captions: tuple[str, ...]
    group: str | None

    @property
    def names(self) -> list[str]:
        """All of them."""
        return [self.image, *self.captions, *([] if self.group is None else [self.group])]


class TableRows:
    """Collects the rows of one or several tables.

    Args:
        columns: what the tables' columns mean.
        image_folder: where relative paths begin; None for the folder of the table.
    """

    def __init__(self, columns: Columns, image_folder: str | None) -> None:
        self._columns, self._image_folder = columns, image_folder
        self._images: list[str] = []
        self._captions: list[Sequence[str]] = []
        self._tables: list[str] = []
        self._lines = array("q")  # table, number in it
        self._groups: list[Hashable] = []
        self._skipped: list[SkippedExample] = []

    def add(self, table: str, rows: Iterable[tuple[int, Mapping[str, Any] | ExampleError]]) -> None:
        """Takes the numbered rows of a table.

        Raises:
            ValueError: no row of the table has all the columns.
        """
        folder = os.path.dirname(table) if self._image_folder is None else self._image_folder  # noqa: PTH120
        self._tables.append(table)
        is_usable, num_strange = False, 0
        for number, values in rows:
            try:
                if isinstance(values, ExampleError):
                    raise values
                missing = [name for name in self._columns.names if name not in values]
                if missing:
                    num_strange += 1
                    if not is_usable and num_strange == _STRANGE_ROWS:
                        break
                    raise ExampleError(f"there is no {missing[0]!r}")
                is_usable = True
                self._add_row(number, values, folder)
            except ExampleError as error:
                self._skipped.append(SkippedExample(f"{table}:{number}", str(error)))
        if num_strange and not is_usable:
            raise ValueError(
                f"`source` must have the columns {self._columns.names}. Received: source={table!r}, whose first rows "
                "lack some. Name yours by `image_column` and `caption_column`."
            )

    def _add_row(self, number: int, values: Mapping[str, Any], folder: str) -> None:
        captions: list[Any] = []
        for name in self._columns.captions:
            value = values[name]
            captions += value if isinstance(value, list) else [value]
        usable = usable_captions(captions)
        image = _path(values[self._columns.image], folder)
        self._images.append(image)
        self._captions.append(usable)
        self._lines.extend((len(self._tables) - 1, number))
        group = image if self._columns.group is None else values[self._columns.group]
        self._groups.append(group if isinstance(group, Hashable) else repr(group))

    def to_pairs(self) -> ListedPairs:
        """Returns what was collected."""
        tables, lines = self._tables, self._lines

        def where(row: int) -> str:
            return f"{tables[lines[2 * row]]}:{lines[2 * row + 1]}"

        return ListedPairs(self._images, self._captions, where=where, groups=self._groups, skipped=self._skipped)


def _path(value: Any, folder: str) -> str:
    if not isinstance(value, str) or not value:
        raise ExampleError("the image is empty" if value in (None, "", b"") else "the image is not a path")
    require_unicode(value, "the image's path")
    if value.startswith("data:") or "://" in value:
        return value
    return os.path.join(folder, value)  # noqa: PTH118 - of any file system, so no pathlib
