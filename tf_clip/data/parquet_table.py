"""Parquet files to pairs, with paths or with the images' bytes; needs pyarrow."""

from __future__ import annotations

import contextlib
import threading
from array import array
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tf_clip.data.files import MAX_FILE_BYTES, READ_ERRORS, open_file
from tf_clip.data.pairs import Pair, Pairs, numbered, usable_captions
from tf_clip.data.skipped import ExampleError, SkippedExample
from tf_clip.data.tables import Columns, TableRows

try:
    import pyarrow
    import pyarrow.parquet
except ImportError as error:
    raise ImportError('Parquet files need pyarrow. Install it: pip install "tf_clip[train]"') from error

MAX_GROUP_BYTES = 1 << 30
"""Largest row group whose images are read; a few of them are in memory at a time."""
MIXED_GROUPS = 4
"""Number of row groups that are shuffled together: the images of a row group can only be read together."""

_PARQUET_ERRORS = (pyarrow.ArrowException, *READ_ERRORS)
_BATCH_ROWS = 4096
_MAX_THRIFT_BYTES = 1 << 24


def parquet_pairs(files: Sequence[str], columns: Columns, image_folder: str | None) -> Pairs:
    """Reads the captions of all rows, and paths if that is what the image column has.

    Args:
        files: Parquet files.
        columns: what their columns mean; the image column may have paths, bytes, or Hugging Face's pair of both.
        image_folder: where relative paths begin; None for the folder of the file.

    Raises:
        ValueError: a file is not Parquet, or does not have the columns, or row groups too large to be read.
    """
    opened = [_ParquetFile(path, columns) for path in files]
    if all(file.has_bytes for file in opened):
        return ParquetPairs(opened, columns)
    if any(file.has_bytes for file in opened):
        raise ValueError(
            "`source` must have paths in all files or bytes in all. "
            f"Received: source={list(files)!r}. Read them one by one."
        )
    rows = TableRows(columns, image_folder)
    for file in opened:
        rows.add(file.path, file.rows(columns.names))
    return rows.to_pairs()


class ParquetPairs(Pairs):
    """Pairs whose images are in Parquet files; captions are in memory, images a few row groups at a time.

    Args:
        files: open files whose image column has bytes.
        columns: what the columns mean.
    """

    def __init__(self, files: Sequence[_ParquetFile], columns: Columns) -> None:
        self._files = files
        self.skipped: list[SkippedExample] = []
        self._captions: list[Sequence[str]] = []
        self._places = array("q")  # file, row group, row in it, row in the file
        self._block_ends: list[int] = []
        self._groups: list[Any] = []
        for number, file in enumerate(files):
            self._read_captions(number, file, columns)
        self.groups = None if columns.group is None else numbered(self._groups)
        self._cache: OrderedDict[tuple[int, int], pyarrow.ChunkedArray] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._captions)

    def where(self, row: int) -> str:
        """Names a row in a message, by its number from 0 in its file."""
        return f"{self._files[self._places[4 * row]].path}:{self._places[4 * row + 3]}"

    def read(self, row: int) -> Pair:
        """Takes an image out of its row group."""
        file, group, index = self._places[4 * row : 4 * row + 3]
        value = self._images(file, group)[index]
        size = len(value.as_buffer() or b"") if value.is_valid else 0
        if not size or size > MAX_FILE_BYTES:
            raise ExampleError("the image is empty" if not size else f"the image has {size} bytes")
        return Pair(value.as_py(), self._captions[row])

    def shuffled(self, generator: np.random.Generator) -> np.ndarray:
        """Draws an order of row groups, and mixes the rows of a few neighbors in it."""
        blocks = np.split(np.arange(len(self)), self._block_ends[:-1])
        order = generator.permutation(len(blocks))
        mixed = [order[first : first + MIXED_GROUPS] for first in range(0, len(order), MIXED_GROUPS)]
        return np.concatenate(
            [generator.permutation(np.concatenate([blocks[block] for block in some])) for some in mixed]
        )

    def _read_captions(self, number: int, file: _ParquetFile, columns: Columns) -> None:
        names = columns.names[1:]
        for row, (group, index, values) in enumerate(file.located_rows(names)):
            try:
                captions: list[Any] = []
                for name in columns.captions:
                    captions += values[name] if isinstance(values[name], list) else [values[name]]
                self._captions.append(usable_captions(captions))
            except ExampleError as error:
                self.skipped.append(SkippedExample(f"{file.path}:{row}", str(error)))
                continue
            if columns.group is not None:
                self._groups.append(repr(values[columns.group]))
            if self._places[-4:-2] != array("q", [number, group]):
                self._block_ends.append(len(self._captions))
            self._block_ends[-1] = len(self._captions)
            self._places.extend((number, group, index, row))

    def _images(self, file: int, group: int) -> Any:
        with self._lock:
            if (file, group) not in self._cache:
                self._cache[file, group] = self._files[file].images(group)
                while len(self._cache) > 2 * MIXED_GROUPS:
                    self._cache.popitem(last=False)
            self._cache.move_to_end((file, group))
            return self._cache[file, group]


class _ParquetFile:
    """A Parquet file, which is open only while it is read: there may be thousands.

    Attributes:
        path: where it is.
        has_bytes: whether its image column has bytes and not paths.
    """

    def __init__(self, path: str, columns: Columns) -> None:
        self.path = path
        try:
            with self._opened() as file:
                schema, metadata = file.schema_arrow, file.metadata
        except _PARQUET_ERRORS as error:
            raise ValueError(self._not_whole(error)) from error
        missing = [name for name in columns.names if name not in schema.names]
        if missing:
            raise ValueError(
                f"`source` must have the columns {columns.names}. Received: source={path!r} with the columns "
                f"{schema.names[:20]}. Name yours by `image_column` and `caption_column`."
            )
        kind = schema.field(columns.image).type
        # Hugging Face's datasets keep bytes and path side by side.
        self._is_struct = pyarrow.types.is_struct(kind) and "bytes" in [field.name for field in kind]
        self._image = f"{columns.image}.bytes" if self._is_struct else columns.image
        self.has_bytes = self._is_struct or pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind)
        largest = max(
            (metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups)), default=0
        )
        if self.has_bytes and largest > MAX_GROUP_BYTES:
            raise ValueError(
                f"`source` must have row groups of at most {MAX_GROUP_BYTES} bytes, as a few are in memory at a time. "
                f"Received: source={path!r} with one of {largest}. Write it with fewer rows a group."
            )

    def rows(self, names: list[str]) -> Iterator[tuple[int, dict[str, Any] | ExampleError]]:
        """Yields rows by their number from 0."""
        for row, (_, _, values) in enumerate(self.located_rows(names)):
            yield row, values

    def located_rows(self, names: list[str]) -> Iterator[tuple[int, int, dict[str, Any]]]:
        """Yields row group, row in it, and values of some columns.

        Raises:
            ValueError: the file is broken.
        """
        try:
            with self._opened() as file:
                for group in range(file.num_row_groups):
                    index = 0
                    for batch in file.iter_batches(_BATCH_ROWS, row_groups=[group], columns=names, use_threads=False):
                        for values in batch.to_pylist():
                            yield group, index, values
                            index += 1
        except _PARQUET_ERRORS as error:
            raise ValueError(self._not_whole(error)) from error

    def images(self, group: int) -> Any:
        """Reads the images of a row group.

        Raises:
            ExampleError: they cannot be read.
        """
        try:
            with self._opened() as file:
                column = file.read_row_group(group, columns=[self._image], use_threads=False).column(0)
        except _PARQUET_ERRORS as error:
            raise ExampleError(f"its row group cannot be read ({_first_line(error)})") from error
        images = column.combine_chunks()
        return images.field("bytes") if self._is_struct else images

    @contextlib.contextmanager
    def _opened(self) -> Iterator[pyarrow.parquet.ParquetFile]:
        file, size = open_file(self.path)
        with (
            file,
            pyarrow.PythonFile(_Readable(file, size), "r") as readable,
            pyarrow.parquet.ParquetFile(
                readable,
                thrift_string_size_limit=_MAX_THRIFT_BYTES,
                thrift_container_size_limit=_MAX_THRIFT_BYTES,
            ) as opened,
        ):
            yield opened

    def _not_whole(self, error: Exception) -> str:
        rule = "`source` must be a whole Parquet file."
        return f"{rule} Received: source={self.path!r} ({_first_line(error)}). Write it again."


class _Readable:
    """A file with the methods that pyarrow asks for, whichever library opened it."""

    closed = False

    def __init__(self, file: Any, size: int) -> None:
        self._file, self._size = file, size
        self.seek, self.tell = file.seek, file.tell

    def read(self, size: int = -1) -> bytes:
        left = self._size - self._file.tell()
        return self._file.read(left if size < 0 else min(size, left)) if left > 0 else b""

    def close(self) -> None:
        """Leaves it to who opened the file."""
        self.closed = True


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
