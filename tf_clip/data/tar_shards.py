"""WebDataset's tar shards to pairs: an index of the members, which are then read where they lie.

Nothing is unpacked: a member's name is never used as a path, and links are not followed.
"""

from __future__ import annotations

import json
import tarfile
from array import array
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from tf_clip.data.files import MAX_FILE_BYTES, READ_ERRORS, open_file, read_part
from tf_clip.data.pairs import Pair, Pairs, decoded_caption, usable_captions
from tf_clip.data.skipped import ExampleError, SkippedExample

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp", "gif")
MAX_TEXT_BYTES = 1 << 20
"""Longest caption, and longest JSON beside an image."""

_MAX_HEADER_BYTES = 1 << 20
_BLOCK = tarfile.BLOCKSIZE


class _Member(NamedTuple):
    extension: str
    place: tuple[int, int] | None
    """Offset and size; None for links and special files."""


class TarPairs(Pairs):
    """Pairs in tar files: members that have a name in common up to its first dot, and follow each other.

    The image is the member with one of `IMAGE_EXTENSIONS`; captions are all members whose extension ends in
    `txt`, one each, or, where there are none, what the member `json` has under `caption_column`.

    Args:
        shards: tar files, not compressed.
        caption_column: name of the caption, or captions, in JSON members.

    Raises:
        ValueError: a file is not a tar file.
    """

    groups = None

    def __init__(self, shards: Sequence[str], caption_column: str) -> None:
        self._shards, self._caption_column = list(shards), caption_column
        self.skipped: list[SkippedExample] = []
        self._keys: list[str] = []
        self._shard_of = array("q")
        self._images = array("q")  # offset, size
        self._texts = array("q")  # offset, size, whether JSON
        self._first_text = array("q", [0])
        for number, shard in enumerate(self._shards):
            self._index(number, shard)

    def __len__(self) -> int:
        return len(self._keys)

    def where(self, row: int) -> str:
        """Names a pair in a message."""
        return f"{self._shards[self._shard_of[row]]}: {self._keys[row]}"

    def read(self, row: int) -> Pair:
        """Reads a pair's members."""
        shard = self._shards[self._shard_of[row]]
        captions: list[str] = []
        for place in range(self._first_text[row], self._first_text[row + 1]):
            offset, size, is_json = self._texts[3 * place : 3 * place + 3]
            text = decoded_caption(read_part(shard, offset, size, MAX_TEXT_BYTES))
            captions += usable_captions(_from_json(text, self._caption_column) if is_json else text.strip())
        offset, size = self._images[2 * row : 2 * row + 2]
        return Pair(read_part(shard, offset, size, MAX_FILE_BYTES), captions)

    def _index(self, number: int, shard: str) -> None:
        key: str | None = None
        members: list[_Member] = []
        try:
            for name, member in self._members(shard):
                if name != key:
                    self._add(number, key, members)
                    key, members = name, []
                members.append(member)
        except (tarfile.TarError, *READ_ERRORS, OverflowError, IndexError, EOFError) as error:
            if key is None:
                raise ValueError(
                    "`source` must be tar files that are whole and not compressed. "
                    f"Received: source={shard!r} ({error}). Unpack or repair it."
                ) from error
            self.skipped.append(SkippedExample(shard, f"cut short or broken behind {key!a} ({error})"))
        self._add(number, key, members)

    def _members(self, shard: str) -> Iterator[tuple[str, _Member]]:
        """Yields the files of a shard, and their names up to the first dot."""
        file, size = open_file(shard)
        with file:
            headers = _HeadersOnly(file, size)
            reader: Any = headers  # typeshed asks for a file's other methods, too
            with tarfile.open(fileobj=reader, mode="r:", errors="surrogateescape") as archive:
                while member := archive.next():
                    archive.members = []  # type: ignore[attr-defined]  # tarfile would keep them all
                    headers.begin_member()
                    folder, slash, name = member.name.rpartition("/")
                    stem, _, extension = name.partition(".")
                    if not stem or member.isdir():
                        continue
                    is_file = member.isreg() and member.sparse is None
                    if is_file and not 0 <= member.size <= size - member.offset_data:
                        raise tarfile.ReadError("unexpected end of data")
                    place = (member.offset_data, member.size) if is_file else None
                    yield f"{folder}{slash}{stem}", _Member(extension.lower(), place)
                # tarfile takes a broken header for the end.
                headers.seek(archive.offset)
                if headers.read(_BLOCK).strip(b"\0"):
                    raise tarfile.ReadError("a broken header")

    def _add(self, shard: int, key: str | None, members: Sequence[_Member]) -> None:
        if key is None:
            return
        images = [member.place for member in members if member.extension.rpartition(".")[2] in IMAGE_EXTENSIONS]
        texts = [(member.place, 0) for member in members if member.extension.rpartition(".")[2] == "txt"]
        texts = texts or [(member.place, 1) for member in members if member.extension == "json"][:1]
        files = [(*place, is_json) for place, is_json in texts if place is not None]
        problem = ""
        if len(images) != 1:
            problem = f"{len(images) or 'no'} images"
        elif not texts:
            problem = "neither a .txt nor a .json beside the image"
        elif images[0] is None or len(files) < len(texts):
            problem = "a link or a special file"
        if problem or images[0] is None:
            self.skipped.append(SkippedExample(f"{self._shards[shard]}: {key!a}", problem))
            return
        self._keys.append(key)
        self._shard_of.append(shard)
        self._images.extend(images[0])
        for file in files:
            self._texts.extend(file)
        self._first_text.append(len(self._texts) // 3)


class _HeadersOnly:
    """A file that tarfile may walk forward through, and of which it reads no more than headers are long."""

    def __init__(self, file: Any, size: int) -> None:
        self._file, self._size, self._position, self._left = file, size, 0, _MAX_HEADER_BYTES

    def begin_member(self) -> None:
        self._left = _MAX_HEADER_BYTES

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> None:
        # Sizes below zero would make tarfile run in circles.
        if position < self._position - _BLOCK:
            raise tarfile.ReadError("a member begins before the one in front of it")
        self._position = position

    def read(self, size: int) -> bytes:
        self._left -= size
        if self._left < 0:
            raise tarfile.ReadError(f"a header of more than {_MAX_HEADER_BYTES} bytes")
        size = min(size, self._size - self._position)
        if size <= 0:
            return b""
        self._file.seek(self._position)
        data: bytes = self._file.read(size)
        self._position += len(data)
        return data


def _from_json(text: str, column: str) -> object:
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        raise ExampleError("the .json beside the image is not JSON") from None
    if not isinstance(values, dict) or column not in values:
        raise ExampleError(f"the .json beside the image has no {column!r}")
    return values[column]
