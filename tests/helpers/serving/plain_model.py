"""A SavedModel with the exported model's signatures, in a few lines of TensorFlow: what a server does with a model
does not depend on what the model knows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tensorflow as tf

STRINGS = tf.TensorSpec([None], tf.string)
# Of the exported model's signatures, the one whose outputs have not its inputs' rows.
UNBATCHED = {"similarity"}


class PlainModel(tf.Module):
    """Embeds bytes by how many of them fall into each of four ranges.

    Args:
        shift: makes one version's numbers differ from another's.
        strict: refuses a bad row instead of reporting it.
    """

    def __init__(self, shift: Any, strict: Any = False) -> None:
        super().__init__()
        self.projection = tf.Variable(tf.eye(4) + 0.1 * shift)
        self.strict = strict

    def embed(self, strings: Any) -> Any:
        codes = tf.cast(tf.io.decode_raw(tf.strings.join([strings, " " * 4]), tf.uint8, fixed_length=64), tf.int32)
        counts = tf.reduce_sum(tf.one_hot(codes // 64, 4), axis=1)
        return tf.math.l2_normalize(counts @ self.projection, axis=1)

    def images(self, image_bytes: Any) -> Any:
        good = tf.strings.regex_full_match(tf.strings.substr(image_bytes, 0, 4), "\\C" + "PNG")
        if self.strict:
            tf.debugging.Assert(tf.reduce_all(good), ["not an image"])
        status = tf.where(good, "ok", "not an image")
        return self.embed(image_bytes) * tf.cast(good, tf.float32)[:, tf.newaxis], status

    @tf.function(input_signature=[STRINGS])
    def encode_image(self, image_bytes: Any) -> Any:
        embeds, status = self.images(image_bytes)
        return {"image_embeds": embeds, "status": status}

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8)])
    def encode_image_pixels(self, image_pixels: Any) -> Any:
        return {"image_embeds": tf.reduce_mean(tf.cast(image_pixels, tf.float32), axis=[1, 2]) / 255}

    @tf.function(input_signature=[STRINGS])
    def encode_text(self, text: str) -> Any:
        return {"text_embeds": self.embed(text), "status": tf.fill(tf.shape(text), "ok")}

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32)])
    def encode_tokens(self, input_ids: Any) -> Any:
        return {"text_embeds": tf.cast(input_ids, tf.float32)[:, :1], "status": tf.fill(tf.shape(input_ids)[:1], "ok")}

    @tf.function(input_signature=[STRINGS, STRINGS])
    def similarity(self, image_bytes: Any, text: str) -> Any:
        embeds, status = self.images(image_bytes)
        logits = 10 * embeds @ tf.transpose(self.embed(text))
        return {
            "logits_per_image": logits,
            "probabilities": tf.nn.softmax(logits),
            "image_status": status,
            "text_status": tf.fill(tf.shape(text), "ok"),
        }

    @tf.function(input_signature=[STRINGS, STRINGS])
    def similarity_pairs(self, image_bytes: Any, text: str) -> Any:
        embeds, status = self.images(image_bytes)
        return {"logits": tf.reduce_sum(embeds * self.embed(text), axis=1), "status": status}

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int32)])
    def slow(self, rounds: Any) -> Any:
        """Takes as long as it is told to, in rounds of some milliseconds."""
        matrix = tf.ones([256, 256])
        for _ in tf.range(tf.reduce_max(rounds)):
            matrix = tf.math.l2_normalize(matrix @ matrix)
        return {"sum": tf.cast(rounds, tf.float32) + 0 * tf.reduce_sum(matrix)}


def write_plain_model(folder: Path, version: int, *, strict: bool = False) -> None:
    """Writes a version that the server sees all at once, as who copies one to a server should."""
    model = PlainModel(shift=float(version), strict=strict)
    names = ["encode_image", "encode_image_pixels", "encode_text", "encode_tokens", "similarity", "similarity_pairs"]
    signatures = {name: getattr(model, name) for name in [*names, "slow"]}
    signatures["serving_default"] = model.encode_image
    hidden = folder.parent / f"{folder.name}-{version}-in-the-making"
    tf.saved_model.save(model, str(hidden), signatures=signatures)
    described = {name: {"batchable": name not in UNBATCHED} for name in signatures}
    (hidden / "assets.extra").mkdir()
    (hidden / "assets.extra" / "tf_clip.json").write_text(json.dumps({"format": 1, "signatures": described}))
    folder.mkdir(exist_ok=True)
    hidden.rename(folder / str(version))
