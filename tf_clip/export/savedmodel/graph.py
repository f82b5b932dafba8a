"""The functions of an exported model: from bytes, pixels, strings and token ids to embeddings and rankings."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from tf_clip.export.savedmodel.images import read_images
from tf_clip.export.savedmodel.status import OK, fail_if_bad, is_ok, zeros_where_bad
from tf_clip.export.text_inputs import text_inputs_of
from tf_clip.export.weights import StoredWeights
from tf_clip.families.family import family_of
from tf_clip.preprocessing.processor import Processor
from tf_clip.unit_length import unit_length


class Limits(NamedTuple):
    """The limits of a row, and what happens to a row that exceeds them.

    Args:
        on_bad_row: `"status"` or `"error"`.
        max_pixels: of an encoded image.
        max_text_bytes: of a text.
    """

    on_bad_row: str
    max_pixels: int
    max_text_bytes: int


class Embedded(NamedTuple):
    """Rows of unit length, or zeros where `status`, string `[n]`, is not `"ok"`; float32 `[n, projection_dim]`."""

    embeds: tf.Tensor
    status: tf.Tensor


class EncodingGraph:
    """Encodes rows in graphs that are traced once each, however many signatures call them.

    Args:
        weights: the model and its stored weights.
        processor: its processor.
        limits: what rows may be.
    """

    def __init__(self, weights: StoredWeights, processor: Processor, limits: Limits) -> None:
        self._weights, self._processor, self._limits = weights, processor, limits
        config = weights.model.config
        self._width, self._side = config.projection_dim, config.vision_config.image_size
        self._texts = text_inputs_of(weights.model, processor)
        self._scores = family_of(weights.model).scores
        strings = tf.TensorSpec([None], tf.string)
        self.image_bytes = tf.function(self._image_bytes, input_signature=[strings], autograph=False)
        self.text = tf.function(self._text, input_signature=[strings], autograph=False)
        pixel_values = tf.TensorSpec([None, self._side, self._side, 3], tf.float32)
        self._image_tower = tf.function(self._run_image_tower, input_signature=[pixel_values], autograph=False)
        self._text_tower = tf.function(self._run_text_tower, input_signature=self.token_specs(), autograph=False)

    @property
    def takes_mask(self) -> bool:
        """Whether token ids come with their attention mask."""
        return self._texts.takes_mask

    def token_specs(self) -> list[tf.TensorSpec]:
        """Returns what `input_ids` takes: the ids, and the attention mask where the tower is given one."""
        names = ["input_ids", "attention_mask"] if self._texts.takes_mask else ["input_ids"]
        return [
            tf.TensorSpec([None, self._texts.longest if self._texts.is_fixed else None], tf.int32, name)
            for name in names
        ]

    def image_pixels(self, image_pixels: tf.Tensor) -> tf.Tensor:
        """Encodes images of one size, uint8 `[n, height, width, 3]`."""
        rule = "`image_pixels` must be of at least one row and one column. Received: none. Leave them out."
        with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(tf.shape(image_pixels)[1:3] > 0), [rule])]):
            image_pixels = tf.identity(image_pixels)
        return self._image_tower(self._processor.image_processor(image_pixels)["pixel_values"])

    def input_ids(self, input_ids: tf.Tensor, *attention_mask: tf.Tensor) -> Embedded:
        """Encodes token ids, int32 `[m, length]`, with their mask of the same shape where the tower is given one."""
        length, longest, vocab_size = tf.shape(input_ids)[1], self._texts.longest, self._texts.vocab_size
        message = tf.strings.join(
            [
                f"`input_ids` must have 1 to {longest} columns. Received: ",
                tf.strings.as_string(length),
                ". Cut the texts, and keep their end token.",
            ]
        )
        fits = (length >= 1) & (length <= longest)
        with tf.control_dependencies([tf.debugging.Assert(fits, [message])]):
            known = (input_ids >= 0) & (input_ids < vocab_size)
        status = tf.where(tf.reduce_all(known, axis=1), OK, f"a token id outside 0..{vocab_size - 1}")
        embeds = self._text_tower(tf.where(known, input_ids, 0), *attention_mask)
        return self._told(embeds, status, "input_ids")

    def logits(self, image_embeds: tf.Tensor, other_embeds: tf.Tensor) -> tf.Tensor:
        """Compares every image with every text or class, float32 `[n, m]`."""
        return self._scaled(tf.matmul(image_embeds, other_embeds, transpose_b=True))

    def probabilities(self, logits: tf.Tensor) -> tf.Tensor:
        """Turns logits `[n, m]` into probabilities: of all texts together, or of each pair by itself."""
        return tf.nn.softmax(logits, axis=1) if self._scores == "softmax" else tf.sigmoid(logits)

    def logits_of_pairs(self, image_embeds: tf.Tensor, text_embeds: tf.Tensor) -> tf.Tensor:
        """Compares each image with its own text, float32 `[n]`."""
        return self._scaled(tf.reduce_sum(image_embeds * text_embeds, axis=1))

    def _image_bytes(self, image_bytes: tf.Tensor) -> Embedded:
        read = read_images(
            self._processor.image_processor, image_bytes, (self._side, self._side), self._limits.max_pixels
        )
        embeds = self._image_tower(read.pixel_values)
        shape = tf.stack([tf.size(image_bytes, tf.int64), self._width])
        embeds = tf.scatter_nd(read.rows[:, tf.newaxis], embeds, shape)
        return self._told(tf.ensure_shape(embeds, [None, self._width]), read.status, "image_bytes")

    def _text(self, text: tf.Tensor) -> Embedded:
        fits = tf.strings.length(text) <= self._limits.max_text_bytes
        status = tf.where(fits, OK, f"more than {self._limits.max_text_bytes} bytes of text")
        padding = "max_length" if self._texts.is_fixed else "longest"
        tokens = self._processor.tokenizer(tf.where(fits, text, ""), padding, max_length=self._texts.longest)
        # Of no texts at all the longest is 0 tokens long, and the tower finds no end in that.
        missing = tf.maximum(2 - tf.shape(tokens["input_ids"])[1], 0)
        specs = self.token_specs()
        inputs = [tf.ensure_shape(tf.pad(tokens[spec.name], [[0, 0], [0, missing]]), spec.shape) for spec in specs]
        return self._told(self._text_tower(*inputs), status, "text")

    def _told(self, embeds: tf.Tensor, status: tf.Tensor, argument: str) -> Embedded:
        if self._limits.on_bad_row == "error":
            status = fail_if_bad(status, argument)
        return Embedded(zeros_where_bad(embeds, is_ok(status)[:, tf.newaxis]), status)

    def _run_image_tower(self, pixel_values: tf.Tensor) -> tf.Tensor:
        with self._weights.lent():
            return unit_length(self._weights.model.image_encoder(pixel_values, training=False)["image_embeds"])

    def _run_text_tower(self, input_ids: tf.Tensor, *attention_mask: tf.Tensor) -> tf.Tensor:
        mask = {"attention_mask": attention_mask[0]} if attention_mask else {}
        with self._weights.lent():
            return unit_length(self._weights.model.text_encoder(input_ids, **mask, training=False)["text_embeds"])

    def _scaled(self, cosines: tf.Tensor) -> tf.Tensor:
        logits = tf.exp(self._weights["logit_scale"]) * cosines
        return logits + self._weights["logit_bias"] if "logit_bias" in self._weights.variables else logits


class Classes(NamedTuple):
    """What `classify` chooses from.

    Args:
        names: string `[classes]`.
        embeds: float32 `[classes, projection_dim]`, of unit length.
        top_k: how many are ranked.
    """

    names: tf.Tensor
    embeds: tf.Variable
    top_k: int


def signatures_of(graph: EncodingGraph, classes: Classes | None) -> dict[str, tf.types.experimental.ConcreteFunction]:
    """Returns the functions that a server offers, under their names."""
    image_bytes = tf.TensorSpec([None], tf.string, "image_bytes")
    text = tf.TensorSpec([None], tf.string, "text")

    def encode_image(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        images = Embedded(*graph.image_bytes(image_bytes))
        return {"image_embeds": images.embeds, "status": images.status}

    def encode_image_pixels(image_pixels: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"image_embeds": graph.image_pixels(image_pixels)}

    def encode_text(text: tf.Tensor) -> dict[str, tf.Tensor]:
        texts = Embedded(*graph.text(text))
        return {"text_embeds": texts.embeds, "status": texts.status}

    def encode_tokens(input_ids: tf.Tensor) -> dict[str, tf.Tensor]:
        texts = graph.input_ids(input_ids)
        return {"text_embeds": texts.embeds, "status": texts.status}

    def encode_masked_tokens(input_ids: tf.Tensor, attention_mask: tf.Tensor) -> dict[str, tf.Tensor]:
        texts = graph.input_ids(input_ids, attention_mask)
        return {"text_embeds": texts.embeds, "status": texts.status}

    def similarity(image_bytes: tf.Tensor, text: tf.Tensor) -> dict[str, tf.Tensor]:
        images, texts = Embedded(*graph.image_bytes(image_bytes)), Embedded(*graph.text(text))
        logits = graph.logits(images.embeds, texts.embeds)
        text_is_ok = is_ok(texts.status)[tf.newaxis, :]
        usable = is_ok(images.status)[:, tf.newaxis] & text_is_ok
        probabilities = graph.probabilities(tf.where(text_is_ok, logits, logits.dtype.min))
        return {
            "logits_per_image": zeros_where_bad(logits, usable),
            "probabilities": zeros_where_bad(probabilities, usable),
            "image_status": images.status,
            "text_status": texts.status,
        }

    def similarity_pairs(image_bytes: tf.Tensor, text: tf.Tensor) -> dict[str, tf.Tensor]:
        images, texts = Embedded(*graph.image_bytes(image_bytes)), Embedded(*graph.text(text))
        status = tf.where(is_ok(images.status), texts.status, images.status)
        logits = graph.logits_of_pairs(images.embeds, texts.embeds)
        return {"logits": zeros_where_bad(logits, is_ok(status)), "status": status}

    def traced(
        function: Callable[..., dict[str, tf.Tensor]], *specs: tf.TensorSpec
    ) -> tf.types.experimental.ConcreteFunction:
        return tf.function(function, input_signature=specs, autograph=False).get_concrete_function()

    signatures = {
        "encode_image": traced(encode_image, image_bytes),
        "encode_image_pixels": traced(
            encode_image_pixels, tf.TensorSpec([None, None, None, 3], tf.uint8, "image_pixels")
        ),
        "encode_text": traced(encode_text, text),
        "encode_tokens": traced(encode_masked_tokens if graph.takes_mask else encode_tokens, *graph.token_specs()),
        "similarity": traced(similarity, image_bytes, text),
        "similarity_pairs": traced(similarity_pairs, image_bytes, text),
    }
    if classes is not None:
        signatures["classify"] = traced(_classifier(graph, classes), image_bytes)
    signatures["serving_default"] = signatures["encode_image" if classes is None else "classify"]
    return signatures


def _classifier(graph: EncodingGraph, classes: Classes) -> Callable[[tf.Tensor], dict[str, tf.Tensor]]:
    def classify(image_bytes: tf.Tensor) -> dict[str, tf.Tensor]:
        images = Embedded(*graph.image_bytes(image_bytes))
        probabilities = graph.probabilities(graph.logits(images.embeds, tf.convert_to_tensor(classes.embeds)))
        usable = is_ok(images.status)[:, tf.newaxis]
        scores, best = tf.math.top_k(probabilities, classes.top_k)
        return {
            "labels": tf.where(usable, tf.gather(classes.names, best), ""),
            "scores": zeros_where_bad(scores, usable),
            "probabilities": zeros_where_bad(probabilities, usable),
            "status": images.status,
        }

    return classify
