"""Reads Flax's `flax_model.msgpack`, one tensor at a time.

The file is a map of maps; its leaves are arrays, each an extension value that holds a second msgpack value
`[shape, dtype, bytes]`. Above one gigabyte Flax cuts an array into chunks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import msgpack
import numpy as np

from tf_clip.checkpoints.errors import CheckpointError
from tf_clip.checkpoints.files import refuse_git_lfs_pointer
from tf_clip.checkpoints.readers.stored import FileRegion, StoredTensor, is_array_shape, numpy_dtype

_ARRAY, _SCALAR = 1, 3  # Flax's kinds of extension values; both hold the same
_DTYPES = ("float16", "bfloat16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool")
_CHUNKS_MARK = "__msgpack_chunked_array__"
_MAX_DEPTH = 64
# Enough for the header of a map, a name, or an array's shape and dtype.
_PEEK = 4096


def read_msgpack_file(path: str | Path) -> dict[str, StoredTensor]:
    """Lists the arrays of a file by their joined names, such as `text_model/encoder/layers/0/mlp/fc1/kernel`.

    Raises:
        CheckpointError: the file is broken or cut short, or holds something other than maps of arrays.
    """
    path = Path(path)
    refuse_git_lfs_pointer(path)
    try:
        with path.open("rb") as file:
            reader = _Reader(file, path)
            tensors = dict(reader.tensors())
            if file.read(1):
                raise CheckpointError(
                    f"{path} must end with its map. Received: more bytes behind it. Download it again."
                )
    except (msgpack.UnpackException, ValueError, TypeError, OverflowError, RecursionError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{path} is not a whole Flax file: {error}. Download it again.") from error
    return tensors


class _Reader:
    """Walks a file from value to value and skips the arrays' bytes, of which only the places are kept.

    Args:
        file: the file, open at its start.
        path: its path, for messages and for reading the arrays later.
    """

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file, self._path = file, path
        self._size = path.stat().st_size

    def tensors(self, prefix: str = "", depth: int = 0) -> Iterator[tuple[str, StoredTensor]]:
        """Yields the arrays of the map that begins here."""
        if depth > _MAX_DEPTH:
            raise CheckpointError(f"{self._path} must hold maps at most {_MAX_DEPTH} deep. Do not trust this file.")
        count = self._small_value("read_map_header")
        chunks: dict[str, StoredTensor] = {}
        is_chunked = False
        shape: tuple[int, ...] = ()
        for _ in range(count):
            name = str(self._small_value())
            if name == _CHUNKS_MARK:
                is_chunked = bool(self._small_value())
            elif is_chunked and name == "shape":
                shape = tuple(int(size) for size in dict(self._small_value()).values())
            elif is_chunked and name == "chunks":
                chunks = dict(self.tensors("", depth + 1))
            elif self._next_is_map():
                yield from self.tensors(f"{prefix}{name}/", depth + 1)
            else:
                yield f"{prefix}{name}", self._array()
        if is_chunked:
            yield prefix.rstrip("/"), self._joined(chunks, shape, prefix)

    def _peeked(self) -> Any:
        """Returns an unpacker of the bytes from here on, and where here is."""
        position = self._file.tell()
        unpacker = msgpack.Unpacker(strict_map_key=False)
        unpacker.feed(self._file.read(_PEEK))
        return unpacker, position

    def _small_value(self, method: str = "unpack") -> Any:
        """Reads a value, or with `"read_map_header"` how many entries the map here has; leaves the file behind it."""
        unpacker, position = self._peeked()
        value = getattr(unpacker, method)()
        self._file.seek(position + unpacker.tell())
        return value

    def _next_is_map(self) -> bool:
        first = self._file.read(1)
        self._file.seek(-len(first), 1)
        return bool(first) and (0x80 <= first[0] <= 0x8F or first[0] in (0xDE, 0xDF))

    def _array(self) -> StoredTensor:
        """Reads what an array is and where its bytes lie; leaves the file behind it."""
        end = self._extension_end()
        unpacker, position = self._peeked()
        if unpacker.read_array_header() != 3:
            raise CheckpointError(
                f"{self._path} must hold arrays as Flax writes them. Received: others. Save it again."
            )
        shape, dtype = tuple(unpacker.unpack()), unpacker.unpack()
        dtype = dtype.decode() if isinstance(dtype, bytes) else dtype
        self._file.seek(position + unpacker.tell())
        length = self._bytes_length()
        start = self._file.tell()
        if dtype not in _DTYPES or not is_array_shape(shape):
            raise CheckpointError(
                f"{self._path} must hold arrays of numbers. Received: {dtype!r}, {shape}. Save it again."
            )
        if not math.prod(shape) * numpy_dtype(dtype).itemsize == length == end - start or end > self._size:
            raise CheckpointError(
                f"{self._path} must hold its arrays whole. Received: {length} bytes for shape {list(shape)} of "
                f"{dtype}. Download it again."
            )
        self._file.seek(end)
        return StoredTensor(shape, dtype, FileRegion(self._path, start, shape, dtype))

    def _extension_end(self) -> int:
        """Reads an extension's header; returns where the extension ends."""
        first = self._file.read(1)
        widths = {0xC7: 1, 0xC8: 2, 0xC9: 4}
        if first and first[0] in widths:
            length = int.from_bytes(self._file.read(widths[first[0]]), "big")
        elif first and 0xD4 <= first[0] <= 0xD8:
            length = 1 << (first[0] - 0xD4)
        else:
            raise CheckpointError(
                f"{self._path} must hold maps and arrays only. Received: another value. Save it again."
            )
        kind = self._file.read(1)
        if kind not in (bytes([_ARRAY]), bytes([_SCALAR])):
            raise CheckpointError(
                f"{self._path} must hold arrays. Received: Flax's kind {kind.hex() or 'none'}. Save it again."
            )
        return self._file.tell() + length

    def _bytes_length(self) -> int:
        """Reads the header of a run of bytes; returns how many they are."""
        first = self._file.read(1)
        widths = {0xC4: 1, 0xC5: 2, 0xC6: 4}
        if not first or first[0] not in widths:
            raise CheckpointError(f"{self._path} must hold arrays as bytes. Received: another value. Save it again.")
        return int.from_bytes(self._file.read(widths[first[0]]), "big")

    def _joined(self, chunks: dict[str, StoredTensor], shape: tuple[int, ...], prefix: str) -> StoredTensor:
        parts = [chunks[str(index)] for index in range(len(chunks)) if str(index) in chunks]
        is_whole = len(parts) == len(chunks) and sum(math.prod(part.shape) for part in parts) == math.prod(shape)
        # Flax cuts the flattened array; parts of several kinds would make a third.
        is_one = len({part.dtype for part in parts}) == 1 and all(len(part.shape) == 1 for part in parts)
        if not (is_whole and is_one and is_array_shape(shape)):
            raise CheckpointError(
                f"{self._path} must hold all chunks of {prefix}. Received: not all, or not as Flax cuts them. "
                "Download it again."
            )
        return StoredTensor(
            shape, parts[0].dtype, lambda: np.concatenate([part.load() for part in parts]).reshape(shape)
        )
