"""The functions inside .tflite files: one image or one text in, an embedding or probabilities out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_clip.export.tflite.resize import ImageResizer
from tf_clip.export.tflite.utf8_tokenizer import Utf8Tokenizer
from tf_clip.export.weights import StoredWeights
from tf_clip.preprocessing.processor import Processor
from tf_clip.unit_length import unit_length

Signatures = dict[str, tf.types.experimental.GenericFunction]


class LiteRTGraph:
    """Makes the signatures of each part.

    All sizes are fixed but those of the images to be resized, and flags are int32, which every runtime's language
    can read.

    Args:
        weights: the model and its stored weights.
        processor: its processor.
        text_lengths: in tokens, ascending; the last is the longest text's.
        max_text_bytes: how many bytes a text in UTF-8 may have.
        class_kernel: float32 `[projection_dim, labels]`, class embeddings times the temperature, or None.
        is_split: whether resizing and tokenizing are signatures of their own alone, without a tower behind them:
            integers of 8 bits would not do for them, and accelerators that take nothing else run no branches.
    """

    def __init__(
        self,
        weights: StoredWeights,
        processor: Processor,
        text_lengths: Sequence[int],
        max_text_bytes: int,
        class_kernel: np.ndarray | None,
        is_split: bool = False,
    ) -> None:
        self._weights, self._processor = weights, processor
        self._text_lengths, self._max_text_bytes = text_lengths, max_text_bytes
        self._class_kernel, self._is_split = class_kernel, is_split
        config = weights.model.config
        self._width, self._vocab_size = config.projection_dim, config.text_config.vocab_size
        self._side = config.vision_config.image_size

    def signatures_of(self, part: str) -> Signatures:
        """Returns the functions of one part, `"image"`, `"text"`, `"text_from_utf8"` or `"classify"`, by name."""
        makers: dict[str, Callable[[], Signatures]] = {
            "image": self._image,
            "text": self._text,
            "text_from_utf8": self._text_from_utf8,
            "classify": self._classify,
        }
        return makers[part]()

    def _image(self) -> Signatures:
        def encode_pixels(image_pixels: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"image_embeds": self.image_embeds(image_pixels)}

        def encode_image(image: tf.Tensor) -> dict[str, tf.Tensor]:
            return encode_pixels(self._resize(image))

        return self._of_images(encode_pixels, encode_image)

    def _classify(self) -> Signatures:
        def classify_pixels(image_pixels: tf.Tensor) -> dict[str, tf.Tensor]:
            # A bias would be the same for all, and change nothing.
            logits = tf.matmul(self.image_embeds(image_pixels), tf.constant(self._class_kernel))
            return {"probabilities": tf.nn.softmax(logits, axis=1)}

        def classify_image(image: tf.Tensor) -> dict[str, tf.Tensor]:
            return classify_pixels(self._resize(image))

        return self._of_images(classify_pixels, classify_image)

    def _of_images(self, of_pixels: Callable[..., Any], of_image: Callable[..., Any]) -> Signatures:
        """Names the functions of pixels of the model's size, of an image of any size, and of resizing alone."""

        def resize_image(image: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"image_pixels": self._resize(image)}

        pixels = tf.TensorSpec([1, self._side, self._side, 3], tf.uint8, "image_pixels")
        image = tf.TensorSpec([None, None, 3], tf.uint8, "image")
        signatures = {of_pixels.__name__: _traced(of_pixels, pixels)}
        if not self._is_split:
            signatures[of_image.__name__] = _traced(of_image, image)
        return {**signatures, "resize_image": _traced(resize_image, image)}

    def _resize(self, image: tf.Tensor) -> tf.Tensor:
        return ImageResizer(self._processor.image_processor)(image)[tf.newaxis]

    def _text(self) -> Signatures:
        def encode_ids(input_ids: tf.Tensor) -> dict[str, tf.Tensor]:
            # An id that is too large stops a runtime's lookup, and one below zero reads what it should not.
            is_known = (input_ids >= 0) & (input_ids < self._vocab_size)
            embeds = self.text_embeds(tf.clip_by_value(input_ids, 0, self._vocab_size - 1))
            is_valid = tf.reduce_all(is_known, axis=1)
            embeds *= tf.cast(is_valid, tf.float32)[:, tf.newaxis]
            return {"text_embeds": embeds, "is_valid": tf.cast(is_valid, tf.int32)}

        return {
            f"encode_ids_{length}": _traced(encode_ids, tf.TensorSpec([1, length], tf.int32, "input_ids"))
            for length in self._text_lengths
        }

    def _text_from_utf8(self) -> Signatures:
        tokenizer = Utf8Tokenizer(self._processor.tokenizer, self._text_lengths[-1])

        def tokens_of(utf8: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
            tokens = tokenizer(utf8, length[0])
            return {
                "input_ids": tokens["input_ids"][tf.newaxis],
                "num_tokens": tokens["num_tokens"][tf.newaxis],
                "is_cut": tf.cast(tokens["is_cut"], tf.int32)[tf.newaxis],
            }

        def encode_utf8(utf8: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
            tokens = tokens_of(utf8, length)
            input_ids, num_tokens = tokens.pop("input_ids"), tokens["num_tokens"]
            embeds = self._of_the_shortest(input_ids, num_tokens[0], self._text_lengths)
            return {"text_embeds": tf.ensure_shape(embeds, [1, self._width]), **tokens}

        specs = [tf.TensorSpec([self._max_text_bytes], tf.uint8, "utf8"), tf.TensorSpec([1], tf.int32, "length")]
        tokenize = {"tokenize": _traced(tokens_of, *specs)}
        if self._is_split:
            return {**self._text(), **tokenize}
        return {"encode_utf8": _traced(encode_utf8, *specs), **tokenize}

    def _of_the_shortest(self, input_ids: tf.Tensor, num_tokens: tf.Tensor, lengths: Sequence[int]) -> tf.Tensor:
        """Encodes at the first length that holds all tokens: a file has its weights once, however many branches."""
        if len(lengths) == 1:
            return self.text_embeds(input_ids[:, : lengths[0]])
        return tf.cond(
            num_tokens <= lengths[0],
            lambda: self.text_embeds(input_ids[:, : lengths[0]]),
            lambda: self._of_the_shortest(input_ids, num_tokens, lengths[1:]),
        )

    def image_embeds(self, image_pixels: tf.Tensor) -> tf.Tensor:
        """Encodes images of the model's size, uint8 `[n, side, side, 3]`, to unit length."""
        # One product and one sum of pixels. Inside the patch kernel, they would cost a quantized one its precision.
        scale, shift = self._processor.image_processor.scale_and_shift()
        with self._weights.lent():
            pixel_values = tf.cast(image_pixels, tf.float32) * scale + shift
            return unit_length(self._weights.model.image_encoder(pixel_values, training=False).image_embeds)

    def text_embeds(self, input_ids: tf.Tensor) -> tf.Tensor:
        """Encodes token ids, int32 `[m, length]`, to unit length."""
        with self._weights.lent():
            return unit_length(self._weights.model.text_encoder(input_ids, training=False).text_embeds)


def _traced(function: Callable[..., Any], *specs: tf.TensorSpec) -> tf.types.experimental.GenericFunction:
    # Nothing here branches in Python on a tensor, which autograph would look for at length.
    return tf.function(function, input_signature=specs, autograph=False)
