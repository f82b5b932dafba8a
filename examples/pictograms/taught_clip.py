"""A `CLIPModel` that is also taught what names mean, while it trains; what is saved is a plain CLIP.

Three things are added to the contrastive loss:

- each image is compared with a thousand more names than its batch has;
- texts, most of them names of other things, should point where their word vectors point;
- so should images, by the word vector of their name.
"""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from tf_clip import CLIPModel, CLIPOutput

LESSON_KEYS = ("lesson_ids", "lesson_vectors", "lesson_names", "own_vectors", "own_names")
HIDDEN_LOGIT = -1e9


class TaughtCLIP(CLIPModel):
    """Adds lessons to a `CLIPModel`; see the module.

    Args:
        config: the model's configuration.
        vector_width: width of the word vectors.
        lesson_weight: how much a lesson's error counts beside the contrastive loss.

    A batch holds, beside the pairs: `lesson_ids` int32 `[lessons, length]`, `lesson_vectors` float32
    `[lessons, vector_width]`, `lesson_names` int32 `[lessons]` (-1 where a text is no concept's name),
    `own_vectors` `[batch, vector_width]` and `own_names` `[batch]`, for each pair's concept.
    """

    def __init__(self, config: Any, vector_width: int, lesson_weight: float = 1.0, **kwargs: Any) -> None:
        self.vector_width, self.lesson_weight = vector_width, lesson_weight
        super().__init__(config, **kwargs)
        # What the lessons need beside a `CLIPModel`.
        self.to_word_vector = keras.layers.Dense(vector_width, use_bias=False, name="to_word_vector")
        self.to_word_vector.build((None, self.config.projection_dim))

    def call(self, inputs: Any, **kwargs: Any) -> CLIPOutput:
        """Compares the pairs; the lessons are for the loss."""
        return super().call({name: value for name, value in inputs.items() if name not in LESSON_KEYS}, **kwargs)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Returns the contrastive loss with more names, plus the lessons' errors."""
        lessons = _unit(self.text_encoder(x["lesson_ids"]).text_embeds)
        images = y_pred["image_embeds"]
        scale = ops.exp(ops.convert_to_tensor(self.logit_scale))

        # A lesson that is the image's own name must not count as wrong, nor must mere words count.
        same = ops.expand_dims(x["own_names"], 1) == ops.expand_dims(x["lesson_names"], 0)
        excluded = ops.logical_or(same, ops.expand_dims(x["lesson_names"] < 0, 0))
        more = ops.where(excluded, HIDDEN_LOGIT, scale * ops.matmul(images, ops.transpose(lessons)))
        own = ops.arange(ops.shape(images)[0], dtype="int32")
        logits_per_image = scale * ops.matmul(images, ops.transpose(y_pred["text_embeds"]))
        image_logits = ops.concatenate([logits_per_image, more], axis=1)
        image_loss = ops.mean(ops.sparse_categorical_crossentropy(own, image_logits, from_logits=True))
        logits_per_text = ops.transpose(logits_per_image)
        text_loss = ops.mean(ops.sparse_categorical_crossentropy(own, logits_per_text, from_logits=True))

        text_error = self._error(lessons, x["lesson_vectors"])
        image_error = self._error(images, x["own_vectors"])
        return (image_loss + text_loss) / 2 + self.lesson_weight * (text_error + image_error)

    def _error(self, embeds: Any, vectors: Any) -> Any:
        """Returns 1 - cosine between what embeddings say of the word vectors and these, where they are known."""
        known = ops.cast(ops.any(vectors != 0.0, axis=-1), "float32")
        cosines = ops.sum(_unit(self.to_word_vector(embeds)) * vectors, axis=-1)
        return ops.sum((1.0 - cosines) * known) / ops.maximum(ops.sum(known), 1.0)


def _unit(embeds: Any) -> Any:
    return embeds * ops.rsqrt(ops.sum(ops.square(embeds), axis=-1, keepdims=True) + 1e-12)
