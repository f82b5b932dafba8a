"""TFRecord files of `tf.train.Example` to pairs: an index of the records, which are then read where they lie."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tf_clip.data.files import MAX_FILE_BYTES, open_file, read_part
from tf_clip.data.pairs import Pair, Pairs, decoded_caption, usable_captions
from tf_clip.data.skipped import ExampleError, SkippedExample

_HEAD = struct.Struct("<QI")  # length, its checksum
_FOOT_BYTES = 4
_MASK = 0xA282EAD8
_POLYNOMIAL = 0x82F63B78


def _crc_table() -> tuple[int, ...]:
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (_POLYNOMIAL if value & 1 else 0)
        table.append(value)
    return tuple(table)


_CRC_TABLE = _crc_table()


class RecordPairs(Pairs):
    """Pairs in TFRecord files.

    Args:
        files: TFRecord files, not compressed.
        image_column: the feature with the image's encoded bytes.
        caption_columns: the features with captions; each may have several values.

    Raises:
        ValueError: a file is not a TFRecord file.
    """

    groups = None

    def __init__(self, files: Sequence[str], image_column: str, caption_columns: Sequence[str]) -> None:
        self._files, self._image_column, self._caption_columns = list(files), image_column, list(caption_columns)
        self.skipped: list[SkippedExample] = []
        self._file_of, self._offsets, self._sizes = array("q"), array("q"), array("q")
        self._first_of: list[int] = []
        for number, path in enumerate(self._files):
            self._first_of.append(len(self._offsets))
            self._index(number, path)

    def __len__(self) -> int:
        return len(self._offsets)

    def where(self, row: int) -> str:
        """Names a record in a message, by its number from 0 in its file."""
        file = self._file_of[row]
        return f"{self._files[file]}: record {row - self._first_of[file]}"

    def read(self, row: int) -> Pair:
        """Reads a record and parses it."""
        data = read_part(self._files[self._file_of[row]], self._offsets[row], self._sizes[row], MAX_FILE_BYTES)
        try:
            features = tf.train.Example.FromString(data).features.feature
        except Exception as error:  # protobuf's own class is not part of TensorFlow's interface
            raise ExampleError("the record is not a tf.train.Example") from error
        images = _values(features, self._image_column) if self._image_column in features else []
        if len(images) != 1:
            raise ExampleError(f"the record has {len(images) or 'no'} values of {self._image_column!r}")
        captions = [decoded_caption(text) for name in self._caption_columns for text in _values(features, name)]
        return Pair(images[0], usable_captions(captions))

    def _index(self, number: int, path: str) -> None:
        file, size = open_file(path)
        offset = 0
        with file:
            while offset < size:
                file.seek(offset)
                head = file.read(_HEAD.size)
                is_whole = len(head) == _HEAD.size
                length, crc = _HEAD.unpack(head) if is_whole else (0, 0)
                is_intact = is_whole and crc == _masked_crc(head[:8])
                if not offset and not is_intact:
                    raise ValueError(
                        "`source` must be TFRecord files that are not compressed. "
                        f"Received: source={path!r}, which begins otherwise. Unpack it, or give its `format`."
                    )
                end = offset + _HEAD.size + length + _FOOT_BYTES
                if not is_intact or end > size:
                    record = len(self._offsets) - self._first_of[number]
                    self.skipped.append(
                        SkippedExample(f"{path}: record {record}", "broken or cut short, and all behind it")
                    )
                    return
                self._file_of.append(number)
                self._offsets.append(offset + _HEAD.size)
                self._sizes.append(length)
                offset = end


def _masked_crc(data: bytes) -> int:
    """Returns the CRC-32C of a few bytes, turned and shifted as TFRecord files do."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC_TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + _MASK) & 0xFFFFFFFF


def _values(features: Any, name: str) -> Sequence[bytes]:
    if name not in features:
        raise ExampleError(f"the record has no {name!r}")
    values: Sequence[bytes] = features[name].bytes_list.value
    return values
