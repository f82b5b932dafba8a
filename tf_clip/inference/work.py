"""What there is to compute: a tower's function, the sizes it comes in, and the arrays of given rows."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
import tensorflow as tf

from tf_clip.inference.image_graph import encode_image
from tf_clip.inference.text_graph import encode_one_text, encode_text
from tf_clip.inference.text_plan import Texts, padded_plan, shared_plan
from tf_clip.inference.tower_weights import ImageWeights, TextWeights

BATCH_SIZES = (1, 2, 4, 8, 16, 32)
TEXT_LENGTHS = (8, 16, 32)

Size = tuple[int, ...]
ONE_TEXT: Size = (1,)
"""Of TensorFlow's graph for one text, of any length."""


class Work(Protocol):
    """One tower's."""

    name: str

    def function(self, *arrays: tf.Tensor) -> tf.Tensor:
        """Computes features, `[batch, projection_dim]`."""

    def signature(self, size: Size | None) -> list[tf.TensorSpec]:
        """Returns what the function takes at most, of one size or of any; the first of it are what it always takes."""

    def arrays(self, rows: Any, size: Size | None) -> tuple[np.ndarray, ...]:
        """Returns the function's arguments, padded to a size or as they are."""

    def size_of(self, rows: Any) -> Size | None:
        """Returns the smallest size that holds rows; None if they go into none."""

    def graph_size(self, rows: Any) -> Size | None:
        """Returns the size of TensorFlow's graph for rows; None for the one of any size."""

    def example(self, size: Size) -> Any:
        """Returns rows of a size to measure with."""


class ImageWork(NamedTuple):
    """Images through the image tower.

    Args:
        name: tells apart what may differ in speed.
        tower: the weights of the fast graph, or a function of normalized images for a tower that has none.
        normalization: for such a function, what bytes are multiplied by and what is added.
        shape: of an image.
        dtype: uint8 for bytes, float32 for normalized pixels.
    """

    name: str
    tower: Any
    normalization: tuple[np.ndarray, np.ndarray] | None
    shape: tuple[int, int, int]
    dtype: tf.DType

    def function(self, images: tf.Tensor) -> tf.Tensor:
        """Encodes."""
        if isinstance(self.tower, ImageWeights):
            return encode_image(images, self.tower)
        if self.dtype == tf.uint8 and self.normalization is not None:
            scale, shift = self.normalization
            images = tf.cast(images, tf.float32) * scale + shift
        return tf.cast(self.tower(images), tf.float32)

    def signature(self, size: Size | None) -> list[tf.TensorSpec]:
        """Returns the images' specification."""
        return [tf.TensorSpec([None if size is None else size[0], *self.shape], self.dtype, "images")]

    def arrays(self, images: np.ndarray, size: Size | None) -> tuple[np.ndarray, ...]:
        """Returns the images, the last one repeated."""
        missing = 0 if size is None else size[0] - len(images)
        return (np.concatenate([images, np.repeat(images[-1:], missing, axis=0)]) if missing else images,)

    def graph_size(self, images: np.ndarray) -> Size | None:
        """Returns the size of one image, which the tower's graph of any size cannot halve."""
        return (1,) if len(images) == 1 and isinstance(self.tower, ImageWeights) else None

    def size_of(self, images: np.ndarray) -> Size | None:
        """Returns the number of images, rounded up."""
        return (rounded_up(len(images), BATCH_SIZES),)

    def example(self, size: Size) -> np.ndarray:
        """Returns noise."""
        return np.random.default_rng(0).integers(0, 3, (*size, *self.shape)).astype(self.dtype.as_numpy_dtype)


class TextWork(NamedTuple):
    """Texts through the text tower.

    Args:
        name: tells apart what may differ in speed.
        tower: the weights of the fast graph, or a function of token ids and a mask for a tower that has none.
        vocab_size, longest: of the configuration.
    """

    name: str
    tower: Any
    vocab_size: int
    longest: int

    def function(self, *arrays: tf.Tensor) -> tf.Tensor:
        """Encodes."""
        if isinstance(self.tower, TextWeights):
            if len(arrays) == 1:
                return encode_one_text(arrays[0], self.tower)
            tokens, positions, arrangement, sources, ends, *visible = arrays
            options = {"visible": visible[0]} if visible else {}
            return encode_text(tokens, positions, arrangement, sources, ends, self.tower, **options)
        return tf.cast(self.tower(*arrays), tf.float32)

    def signature(self, size: Size | None) -> list[tf.TensorSpec]:
        """Returns the specification of a plan's arrays, the last for hidden places, or of ids and a mask."""
        if size == ONE_TEXT:
            return [tf.TensorSpec([None], tf.int32, "tokens")]
        batch, length = size or (None, None)
        if not self.is_planned:
            return [tf.TensorSpec([batch, length], tf.int32, name) for name in ("input_ids", "mask")]
        rows = None if size is None else batch * length
        return [
            tf.TensorSpec([rows], tf.int32, "tokens"),
            tf.TensorSpec([rows], tf.int32, "positions"),
            tf.TensorSpec([batch, length], tf.int32, "arrangement"),
            tf.TensorSpec([rows], tf.int32, "sources"),
            tf.TensorSpec([batch], tf.int32, "ends"),
            tf.TensorSpec([batch, length], tf.bool, "visible"),
        ]

    def graph_size(self, texts: Texts) -> Size | None:
        """Returns the size of one text with nothing hidden, which has a graph of its own."""
        is_one = self.is_planned and len(texts.input_ids) == 1 and texts.visible is None
        return ONE_TEXT if is_one else None

    def arrays(self, texts: Texts, size: Size | None) -> tuple[np.ndarray, ...]:
        """Returns a plan's arrays: of what has to be computed, or of a fixed size; of one text its tokens."""
        if size == ONE_TEXT:
            return (texts.input_ids[0],)
        plan = shared_plan(texts) if size is None and self.is_planned else padded_plan(texts, *self._room(texts, size))
        if self.is_planned:
            return plan[:5] if plan.visible is None else tuple(plan)
        input_ids = plan.tokens.reshape(plan.arrangement.shape)
        visible = np.ones_like(input_ids) if plan.visible is None else plan.visible.astype(np.int32)
        return input_ids, visible

    @property
    def is_planned(self) -> bool:
        """Whether the function takes a plan."""
        return isinstance(self.tower, TextWeights)

    def _room(self, texts: Texts, size: Size | None) -> Size:
        return texts.input_ids.shape if size is None else size

    def size_of(self, texts: Texts) -> Size | None:
        """Returns the number of texts and the longest's length, rounded up; None if places are hidden, or too many."""
        count, length = texts.input_ids.shape
        if texts.visible is not None or count > BATCH_SIZES[-1]:
            return None
        return rounded_up(count, BATCH_SIZES), min(rounded_up(length, (*TEXT_LENGTHS, self.longest)), self.longest)

    def example(self, size: Size) -> Texts:
        """Returns noise of the full length."""
        input_ids = np.random.default_rng(0).integers(0, self.vocab_size, size).astype(np.int32)
        return Texts(input_ids, np.full(size[0], size[1] - 1, np.int32), None)


def rounded_up(number: int, sizes: tuple[int, ...]) -> int:
    """Returns the first of ascending sizes that is not smaller; the last if all are."""
    return next((size for size in sizes if size >= number), sizes[-1])
