"""The work that engines run: a tower's function, the sizes of its batches, and its input arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
import tensorflow as tf

BATCH_SIZES = (1, 2, 4, 8, 16, 32)
"""The batch sizes of compiled programs; a batch is padded to the next one."""
TEXT_LENGTHS = (8, 16, 32)
"""The text lengths of compiled programs, beside the longest text, in tokens."""

Size = tuple[int, ...]
AnySize = tuple[Any, ...]
"""A size whose numbers may be None, for any number."""


class Work(Protocol):
    """The work of one tower. Its rows are of a type of its own."""

    @property
    def name(self) -> str:
        """Identifies work of the same speed among the work of one model."""

    def encode(self, *arrays: tf.Tensor) -> tf.Tensor:
        """Computes features, float32 `[batch, projection_dim]`; what engines trace."""

    def signature(self, size: AnySize | None) -> list[tf.TensorSpec]:
        """Returns the inputs of `encode` for one size, or for any; `arrays` may leave out the last of them."""

    def arrays(self, rows: Any, size: AnySize | None) -> tuple[np.ndarray, ...]:
        """Returns the inputs of `encode` for rows, padded to a size, or without padding where it is open."""

    def size_of(self, rows: Any) -> Size | None:
        """Returns the smallest size that holds rows; None if only TensorFlow's graph can run them."""

    def graph_size(self, rows: Any) -> AnySize | None:
        """Returns the size of TensorFlow's graph for rows; None for the graph that takes any size."""

    def sizes(self, count: int) -> list[Size]:
        """Returns the sizes that batches of `count` rows can have."""

    def example(self, size: Size) -> Any:
        """Returns rows of random values that fill a size."""


class TextWork(Work, Protocol):
    """The work of a text tower."""

    def rows(self, input_ids: np.ndarray, attention_mask: np.ndarray | None) -> Any:
        """Returns texts as this work's rows; the arrays are int `[m, length]`, and valid."""

    def batches(self, rows: Any, most: int) -> Iterator[tuple[np.ndarray, Any]]:
        """Cuts rows into batches of at most `most`; yields which texts are in a batch, int `[n]`, and its rows."""


@dataclasses.dataclass(frozen=True)
class ImageWork:
    """The work of an image tower; its rows are images, `[n, height, width, channels]`.

    Args:
        name: see `Work`.
        encode: from images to features.
        shape: the shape of one image.
        dtype: uint8 for bytes, float32 for normalized pixels.
        has_halves: whether `encode` computes a batch of unknown size in halves, which one image has not.
    """

    name: str
    encode: Callable[..., tf.Tensor]
    shape: tuple[int, int, int]
    dtype: tf.DType
    has_halves: bool

    def signature(self, size: AnySize | None) -> list[tf.TensorSpec]:
        """See `Work`."""
        return [tf.TensorSpec([None if size is None else size[0], *self.shape], self.dtype, "images")]

    def arrays(self, images: np.ndarray, size: AnySize | None) -> tuple[np.ndarray, ...]:
        """Returns the images, padded by repeating the last one."""
        missing = 0 if size is None or size[0] is None else size[0] - len(images)
        return (np.concatenate([images, np.repeat(images[-1:], missing, axis=0)]) if missing else images,)

    def size_of(self, images: np.ndarray) -> Size:
        """Returns the number of images, rounded up."""
        return (rounded_up(len(images), BATCH_SIZES),)

    def graph_size(self, images: np.ndarray) -> Size | None:
        """See `Work`."""
        return (1,) if self.has_halves and len(images) == 1 else None

    def sizes(self, count: int) -> list[Size]:
        """See `Work`."""
        return [(count,)]

    def example(self, size: Size) -> np.ndarray:
        """See `Work`."""
        return np.random.default_rng(0).integers(0, 3, (*size, *self.shape)).astype(self.dtype.as_numpy_dtype)


def rounded_up(number: int, sizes: tuple[int, ...]) -> int:
    """Returns the first of ascending sizes that is not smaller; the last if all are."""
    return next((size for size in sizes if size >= number), sizes[-1])


def rounded_length(length: int, longest: int) -> int:
    """Returns the length of the compiled program that holds texts of some length."""
    return rounded_up(length, text_lengths(longest))


def text_lengths(longest: int) -> tuple[int, ...]:
    """Returns the text lengths of compiled programs, in tokens, ascending."""
    return (*(length for length in TEXT_LENGTHS if length < longest), longest)
