"""Images and their captions, before any is decoded: how many, where they are, and how to get one."""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from tf_clip.data.files import read_file
from tf_clip.data.skipped import ExampleError, SkippedExample

_DATA_URI = "data:"


class Pair(NamedTuple):
    """One image, encoded, and all its captions, at least one."""

    image: bytes
    captions: Sequence[str]


class Pairs(Protocol):
    """Numbered pairs, read one at a time and in any order, by several threads at once.

    Attributes:
        skipped: what was unreadable when the source was read, and has no number.
        groups: int32 `[len]`, equal where pairs belong together, so that each caption is right for each
            image of a group; None if no two do.
    """

    skipped: Sequence[SkippedExample]
    groups: np.ndarray | None

    def __len__(self) -> int:
        """Returns the number of pairs."""
        ...

    def where(self, row: int) -> str:
        """Names a pair in a message."""
        ...

    def read(self, row: int) -> Pair:
        """Reads one.

        Raises:
            ExampleError: it is unreadable.
        """
        ...

    def shuffled(self, generator: np.random.Generator) -> np.ndarray:
        """Draws an order, int64 `[len]`, that can be read without much waste: any, unless a class says otherwise."""
        return generator.permutation(len(self))


class ListedPairs(Pairs):
    """Pairs whose captions are in memory, and whose images are files.

    Args:
        images: paths, on any file system that TensorFlow can read, or `data:` URIs.
        captions: of each image, its caption or all its captions.
        where: names a row in messages, by its number; None takes the image paths.
        groups: pairs of one group belong together; None takes the images, so that one image on several
            rows is one group.
        skipped: unreadable examples that are not among these.

    Raises:
        ValueError: images and captions differ in number.

    Example:
        >>> len(ListedPairs(["owl.png", "bus.png"], ["an owl", ["a bus", "a red bus"]]))
        2
    """

    def __init__(
        self,
        images: Sequence[str | os.PathLike[str]],
        captions: Sequence[str | Sequence[str]],
        *,
        where: Callable[[int], str] | None = None,
        groups: Sequence[Hashable] | None = None,
        skipped: Sequence[SkippedExample] = (),
    ) -> None:
        if len(images) != len(captions):
            raise ValueError(
                "`captions` must hold the captions of each of `images`. "
                f"Received: {len(images)} images and {len(captions)} rows of captions. Pair them up first."
            )
        self._images, self._captions = [os.fspath(image) for image in images], captions
        self._where = self._images.__getitem__ if where is None else where
        self.skipped = list(skipped)
        self.groups = numbered(self._images if groups is None else groups)

    def __len__(self) -> int:
        return len(self._images)

    def where(self, row: int) -> str:
        """Names a pair in a message."""
        return self._where(row)

    def read(self, row: int) -> Pair:
        """Reads the image's file."""
        image = self._images[row]
        captions = usable_captions(self._captions[row])
        return Pair(_from_data_uri(image) if image.startswith(_DATA_URI) else read_file(image), captions)


def numbered(values: Iterable[Hashable]) -> np.ndarray | None:
    """Numbers values from 0, equal ones alike; None if no two are equal."""
    numbers: dict[Hashable, int] = {}
    result = np.fromiter((numbers.setdefault(value, len(numbers)) for value in values), np.int32)
    return result if len(numbers) < len(result) else None


def usable_captions(values: object) -> list[str]:
    """Returns the captions that a row has, without empty ones.

    Args:
        values: a string, or a list of them; None counts as no caption.

    Raises:
        ExampleError: there is none, or one is not text.
    """
    captions = []
    for caption in values if isinstance(values, (list, tuple)) else [values]:
        if caption is None or caption == "":
            continue
        if not isinstance(caption, str):
            raise ExampleError(f"the caption is not text but {type(caption).__name__}")
        require_unicode(caption, "the caption")
        if caption.strip():
            captions.append(caption)
    if not captions:
        raise ExampleError("the caption is empty")
    return captions


def decoded_caption(data: bytes) -> str:
    """Returns a caption of UTF-8.

    Raises:
        ExampleError: it is not UTF-8.
    """
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise ExampleError("the caption is not valid UTF-8") from None


def require_unicode(text: str, name: str) -> None:
    """Raises a `ExampleError` for text that was not UTF-8, or that no UTF-8 can hold."""
    if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
        raise ExampleError(f"{name} is not valid UTF-8")


def _from_data_uri(uri: str) -> bytes:
    head, comma, body = uri.partition(",")
    if not comma or not head.endswith(";base64"):
        raise ExampleError("the image's data: URI is not base64")
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        raise ExampleError("the image's data: URI is not base64") from None
