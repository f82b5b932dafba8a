"""The functions inside .tflite files: one image or one text in, an embedding or probabilities out."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_clip.export.text_inputs import text_inputs_of
from tf_clip.export.tflite.resize import ImageResizer
from tf_clip.export.tflite.utf8_tokenizer import Utf8Tokenizer
from tf_clip.export.weights import StoredWeights
from tf_clip.preprocessing.processor import Processor
from tf_clip.unit_length import unit_length

_IMAGE = tf.TensorSpec([None, None, 3], tf.uint8, "image")

Signatures = dict[str, tf.types.experimental.ConcreteFunction]


class Classes(NamedTuple):
    """What `classify` chooses from.

    Args:
        kernel: float32 `[projection_dim, labels]`, class embeddings times the temperature.
        bias: on every logit.
        scores: `"softmax"` over the labels, or `"sigmoid"` of each.
    """

    kernel: np.ndarray
    bias: float
    scores: str

    def probabilities(self, image_embeds: tf.Tensor) -> tf.Tensor:
        """Returns how likely each label is, float32 `[n, labels]`."""
        logits = tf.matmul(image_embeds, tf.constant(self.kernel))
        # For a softmax, a bias would be the same for all, and change nothing.
        return tf.nn.softmax(logits, axis=1) if self.scores == "softmax" else tf.sigmoid(logits + self.bias)


class LiteRTGraph:
    """Makes the signatures of each part; what several of them do is traced once.

    All sizes are fixed but those of the images to be resized, and flags are int32, which every runtime's language
    can read.

    Args:
        weights: the model and its stored weights.
        processor: its processor.
        text_lengths: in tokens, ascending; the last is the longest text's.
        max_text_bytes: how many bytes a text in UTF-8 may have.
        classes: what `classify` chooses from, or None.
        is_split: whether resizing and tokenizing are signatures of their own alone, without a tower behind them:
            integers of 8 bits would not do for them, and accelerators that take nothing else run no branches.
    """

    def __init__(
        self,
        weights: StoredWeights,
        processor: Processor,
        text_lengths: Sequence[int],
        max_text_bytes: int,
        classes: Classes | None,
        is_split: bool = False,
    ) -> None:
        self._weights, self._processor = weights, processor
        self._text_lengths, self._max_text_bytes = text_lengths, max_text_bytes
        self._classes, self._is_split = classes, is_split
        config = weights.model.config
        self._width, self._side = config.projection_dim, config.vision_config.image_size
        self._texts = text_inputs_of(weights.model, processor)
        self._text_towers: dict[int, tf.types.experimental.ConcreteFunction] = {}

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
            return {"image_embeds": self._image_tower(image_pixels)}

        def encode_image(image: tf.Tensor) -> dict[str, tf.Tensor]:
            return encode_pixels(self._resize(image))

        return self._of_images(encode_pixels, encode_image)

    def _classify(self) -> Signatures:
        classes: Any = self._classes  # there wherever this part is asked for

        def classify_pixels(image_pixels: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"probabilities": classes.probabilities(self._image_tower(image_pixels))}

        def classify_image(image: tf.Tensor) -> dict[str, tf.Tensor]:
            return classify_pixels(self._resize(image))

        return self._of_images(classify_pixels, classify_image)

    def _of_images(self, of_pixels: Callable[..., Any], of_image: Callable[..., Any]) -> Signatures:
        """Names the functions of pixels of the model's size, of an image of any size, and of resizing alone."""

        def resize_image(image: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"image_pixels": self._resize(image)}

        signatures = {of_pixels.__name__: _traced(of_pixels, self._pixels)}
        if not self._is_split:
            signatures[of_image.__name__] = _traced(of_image, _IMAGE)
        return {**signatures, "resize_image": _traced(resize_image, _IMAGE)}

    def _text(self) -> Signatures:
        def encode_ids(input_ids: tf.Tensor) -> dict[str, tf.Tensor]:
            return self._of_ids(input_ids)

        def encode_masked_ids(input_ids: tf.Tensor, attention_mask: tf.Tensor) -> dict[str, tf.Tensor]:
            return self._of_ids(input_ids, attention_mask)

        encode = encode_masked_ids if self._texts.takes_mask else encode_ids
        return {f"encode_ids_{length}": _traced(encode, *self._tokens(length)) for length in self._text_lengths}

    def _of_ids(self, input_ids: tf.Tensor, *attention_mask: tf.Tensor) -> dict[str, tf.Tensor]:
        # An id that is too large stops a runtime's lookup, and one below zero reads what it should not.
        last = self._texts.vocab_size - 1
        is_valid = tf.reduce_all((input_ids >= 0) & (input_ids <= last), axis=1)
        embeds = self._text_tower(input_ids.shape[1])(tf.clip_by_value(input_ids, 0, last), *attention_mask)
        embeds *= tf.cast(is_valid, tf.float32)[:, tf.newaxis]
        return {"text_embeds": embeds, "is_valid": tf.cast(is_valid, tf.int32)}

    def _text_from_utf8(self) -> Signatures:
        def tokenize(utf8: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
            tokens = self._tokenize(utf8, length)
            return {name: tokens[name] for name in ("input_ids", "num_tokens", "is_cut")}

        def encode_utf8(utf8: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
            tokens = self._tokenize(utf8, length)
            inputs = [tokens[spec.name] for spec in self._tokens(self._text_lengths[-1])]
            embeds = self._of_the_shortest(inputs, tokens["num_tokens"][0], self._text_lengths)
            embeds = tf.ensure_shape(embeds, [1, self._width])
            return {"text_embeds": embeds, "num_tokens": tokens["num_tokens"], "is_cut": tokens["is_cut"]}

        signatures = {"tokenize": _traced(tokenize, *self._utf8)}
        if self._is_split:
            return {**self._text(), **signatures}
        return {"encode_utf8": _traced(encode_utf8, *self._utf8), **signatures}

    def _of_the_shortest(self, inputs: Sequence[tf.Tensor], num_tokens: tf.Tensor, lengths: Sequence[int]) -> tf.Tensor:
        """Encodes at the first length that holds all tokens: a file has its weights once, however many branches."""

        def encoded() -> tf.Tensor:
            return self._text_tower(lengths[0])(*(one[:, : lengths[0]] for one in inputs))

        if len(lengths) == 1:
            return encoded()
        return tf.cond(
            num_tokens <= lengths[0], encoded, lambda: self._of_the_shortest(inputs, num_tokens, lengths[1:])
        )

    @property
    def _pixels(self) -> tf.TensorSpec:
        return tf.TensorSpec([1, self._side, self._side, 3], tf.uint8, "image_pixels")

    @property
    def _utf8(self) -> list[tf.TensorSpec]:
        return [tf.TensorSpec([self._max_text_bytes], tf.uint8, "utf8"), tf.TensorSpec([1], tf.int32, "length")]

    def _tokens(self, length: int) -> list[tf.TensorSpec]:
        names = ["input_ids", "attention_mask"] if self._texts.takes_mask else ["input_ids"]
        return [tf.TensorSpec([1, length], tf.int32, name) for name in names]

    @functools.cached_property
    def _resize(self) -> tf.types.experimental.ConcreteFunction:
        resizer = ImageResizer(self._processor.image_processor)
        return _traced(lambda image: resizer(image)[tf.newaxis], _IMAGE)

    @functools.cached_property
    def _tokenize(self) -> tf.types.experimental.ConcreteFunction:
        tokenizer = Utf8Tokenizer(self._processor.tokenizer, self._text_lengths[-1])

        def tokenize(utf8: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
            tokens = tokenizer(utf8, length[0])
            return {name: tf.cast(value, tf.int32)[tf.newaxis] for name, value in tokens.items()}

        return _traced(tokenize, *self._utf8)

    @functools.cached_property
    def _image_tower(self) -> tf.types.experimental.ConcreteFunction:
        # One product and one sum of pixels. Inside the patch kernel, they would cost a quantized one its precision.
        scale, shift = self._processor.image_processor.scale_and_shift()

        def encode(image_pixels: tf.Tensor) -> tf.Tensor:
            with self._weights.lent():
                pixel_values = tf.cast(image_pixels, tf.float32) * scale + shift
                return unit_length(self._weights.model.image_encoder(pixel_values, training=False)["image_embeds"])

        return _traced(encode, self._pixels)

    def _text_tower(self, length: int) -> tf.types.experimental.ConcreteFunction:
        if length not in self._text_towers:

            def encode(input_ids: tf.Tensor, *attention_mask: tf.Tensor) -> tf.Tensor:
                mask = {"attention_mask": attention_mask[0]} if attention_mask else {}
                with self._weights.lent():
                    return unit_length(
                        self._weights.model.text_encoder(input_ids, **mask, training=False)["text_embeds"]
                    )

            self._text_towers[length] = _traced(encode, *self._tokens(length))
        return self._text_towers[length]


def _traced(function: Callable[..., Any], *specs: tf.TensorSpec) -> tf.types.experimental.ConcreteFunction:
    # Outside of the graph that asks for it, as others will, too. Nothing here branches in Python on a tensor, which
    # autograph would look for at length.
    with tf.init_scope():
        return tf.function(function, input_signature=specs, autograph=False).get_concrete_function()
