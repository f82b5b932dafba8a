"""Towers as Keras has them: called on images and on token ids exactly as they are given."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_clip.inference.work import BATCH_SIZES, AnySize, Size, rounded_length, rounded_up, text_lengths


def keras_images(tower: Any, normalization: tuple[np.ndarray, np.ndarray] | None) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns a function that encodes images with a tower.

    Args:
        tower: called on normalized images; its output's `image_embeds` are the features.
        normalization: what a byte is multiplied by and what is added then, float32 `[channels]` each, or None.
    """

    def encode(images: tf.Tensor) -> tf.Tensor:
        if images.dtype == tf.uint8 and normalization is not None:
            scale, shift = normalization
            images = tf.cast(images, tf.float32) * scale + shift
        return tf.cast(tower(images, training=False)["image_embeds"], tf.float32)

    return encode


class GivenTexts(NamedTuple):
    """Texts as they were given.

    Args:
        input_ids: int32 `[batch, length]`.
        mask: int32 `[batch, length]`, or None.
    """

    input_ids: np.ndarray
    mask: np.ndarray | None

    def take(self, indices: slice) -> GivenTexts:
        """Returns some of the texts."""
        return GivenTexts(self.input_ids[indices], None if self.mask is None else self.mask[indices])


@dataclasses.dataclass(frozen=True)
class KerasTextWork:
    """The work of a text tower as Keras has it; its rows are `GivenTexts`.

    Args:
        tower: called on token ids and, if one was given, a mask; its output's `text_embeds` are the features.
        vocab_size: number of token ids.
        longest: the longest text, in tokens.
        may_be_longer: whether texts may be padded at their right with a mask that hides the padding, which changes
            nothing in a causal tower that pools a text at its end. Compiled programs need it to have few sizes.
    """

    tower: Any
    vocab_size: int
    longest: int
    may_be_longer: bool
    name: str = "texts as given"

    def encode(self, input_ids: tf.Tensor, mask: tf.Tensor | None = None) -> tf.Tensor:
        """Encodes token ids."""
        options = {} if mask is None else {"attention_mask": mask}
        return tf.cast(self.tower(input_ids, training=False, **options)["text_embeds"], tf.float32)

    def rows(self, input_ids: np.ndarray, attention_mask: np.ndarray | None) -> GivenTexts:
        """See `TextWork`."""
        mask = None if attention_mask is None else attention_mask.astype(np.int32, copy=False)
        return GivenTexts(input_ids.astype(np.int32, copy=False), mask)

    def batches(self, texts: GivenTexts, most: int) -> Iterator[tuple[np.ndarray, GivenTexts]]:
        """Yields texts in their order; see `TextWork`."""
        for start in range(0, len(texts.input_ids), most):
            batch = texts.take(slice(start, start + most))
            yield np.arange(start, start + len(batch.input_ids)), batch

    def signature(self, size: AnySize | None) -> list[tf.TensorSpec]:
        """See `Work`."""
        return [tf.TensorSpec(size or (None, None), tf.int32, name) for name in ("input_ids", "mask")]

    def arrays(self, texts: GivenTexts, size: AnySize | None) -> tuple[np.ndarray, ...]:
        """Returns the ids, and the mask if there is one; padded texts always have one."""
        ids, mask = texts
        more_texts, more_tokens = (
            (0, 0 if wanted is None else wanted - given)
            for wanted, given in zip(size or (None, None), ids.shape, strict=True)
        )
        if more_tokens[1]:
            mask = np.pad(np.ones_like(ids) if mask is None else mask, ((0, 0), more_tokens))
            ids = np.pad(ids, ((0, 0), more_tokens), mode="edge")
        if more_texts[1]:
            ids = np.pad(ids, (more_texts, (0, 0)), mode="edge")
            mask = None if mask is None else np.pad(mask, (more_texts, (0, 0)), mode="edge")
        return (ids,) if mask is None else (ids, mask)

    def size_of(self, texts: GivenTexts) -> Size | None:
        """Returns the number of texts, rounded up, and their length, rounded up if they may be longer.

        None for too many texts, and where a first token is hidden from such a tower: that token then averages over all
        keys, also over those of the padding.
        """
        count, length = texts.input_ids.shape
        if count > BATCH_SIZES[-1]:
            return None
        if not self.may_be_longer:
            return rounded_up(count, BATCH_SIZES), length
        if texts.mask is not None and not texts.mask[:, 0].all():
            return None
        return rounded_up(count, BATCH_SIZES), rounded_length(length, self.longest)

    def graph_size(self, texts: GivenTexts) -> AnySize | None:
        """Returns the texts' length, which towers may need to know; None for those that take any."""
        return None if self.may_be_longer else (None, texts.input_ids.shape[1])

    def sizes(self, count: int) -> list[Size]:
        """Returns the sizes of compiled programs; of texts that must keep their length, that of the longest."""
        return [(count, length) for length in (text_lengths(self.longest) if self.may_be_longer else (self.longest,))]

    def example(self, size: Size) -> GivenTexts:
        """See `Work`; nothing is hidden."""
        ids = np.random.default_rng(0).integers(0, self.vocab_size, size).astype(np.int32)
        return GivenTexts(ids, np.ones_like(ids))
