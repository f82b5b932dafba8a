"""Special tokens that are found in normalized text, as a checkpoint's files may ask for: in any case, after NFC."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import tensorflow as tf

from tf_clip.preprocessing.text.normalization import Characters


class NormalizedTokens(tf.Module):
    """Makes each special token in normalized text one character, its mark.

    The leftmost token counts, and of those that begin together the longest.

    Args:
        tokens: the characters of each token in its own normal form, and its mark.

    Source: `AddedVocabulary` of Hugging Face's tokenizers. Of two tokens with one normal form the first is found
    here, and one by chance there.
    """

    def __init__(self, tokens: Sequence[tuple[Sequence[int], int]]) -> None:
        super().__init__(name="normalized_tokens")
        self._tokens = sorted(tokens, key=lambda pair: -len(pair[0]))
        self._longest = max(len(letters) for letters, _ in tokens)
        self._may_overlap = may_overlap([letters for letters, _ in tokens])
        self._apart = tf.function(self._with_marks, autograph=False, experimental_attributes={"_noinline": True})

    def __call__(self, characters: Characters) -> Characters:
        """Puts marks in; each spans all that its token was made of."""
        firsts = sorted({letters[0] for letters, _ in self._tokens})
        could_begin = tf.reduce_any(characters.codes[:, tf.newaxis] == firsts, axis=1)
        return Characters(
            *tf.cond(tf.reduce_any(could_begin), lambda: self._apart(characters, could_begin), lambda: characters)
        )

    def _with_marks(self, characters: Characters, could_begin: tf.Tensor) -> Characters:
        codes, first, last = characters
        begins = tf.where(could_begin)  # [candidates, 1], as scattering takes it
        window = tf.gather(tf.pad(codes, [[0, self._longest]]), begins + tf.range(self._longest, dtype=tf.int64))
        lengths, marks = tf.zeros_like(begins[:, 0]), tf.zeros_like(window[:, 0])
        for letters, mark in reversed(self._tokens):
            is_equal = tf.reduce_all(window[:, : len(letters)] == letters, axis=1)
            lengths = tf.where(is_equal, tf.constant(len(letters), tf.int64), lengths)
            marks = tf.where(is_equal, mark, marks)
        begins, lengths, marks = (tf.boolean_mask(array, lengths > 0) for array in (begins, lengths, marks))
        if self._may_overlap:
            kept = _one_after_another(begins[:, 0], begins[:, 0] + lengths)
            begins, lengths, marks = (tf.boolean_mask(array, kept) for array in (begins, lengths, marks))
        ends = begins + lengths[:, tf.newaxis]
        # Neighbors share a place, where one begins and the other ends.
        borders = tf.zeros([tf.size(codes) + 1], tf.int32)
        borders = tf.tensor_scatter_nd_add(borders, begins, tf.ones_like(marks))
        inside = tf.cumsum(tf.tensor_scatter_nd_sub(borders, ends, tf.ones_like(marks)))[:-1] > 0
        is_mark = tf.tensor_scatter_nd_update(tf.zeros_like(inside), begins, tf.ones_like(marks, tf.bool))
        codes = tf.tensor_scatter_nd_update(codes, begins, marks)
        last = tf.tensor_scatter_nd_update(last, begins, tf.gather(last, ends[:, 0] - 1))
        return Characters(codes, first, last).taken(tf.reshape(tf.where(is_mark | ~inside), [-1]))


def may_overlap(tokens: Sequence[Sequence[int] | str]) -> bool:
    """Returns whether one token can begin inside another, or inside itself."""
    return any(
        one[start : start + len(other)] == other[: len(one) - start]
        for one, other in itertools.product(tokens, repeat=2)
        for start in range(1, len(one))
    )


def _one_after_another(begins: tf.Tensor, ends: tf.Tensor) -> tf.Tensor:
    """Returns which runs are left, bool `[n]`, if each in turn takes its place and those that begin inside it fall."""
    count = tf.size(begins)
    # From each run to the one that follows it, and from the last to one that is none; the steps double.
    step = tf.concat([tf.searchsorted(begins, ends), count[tf.newaxis]], axis=0)
    is_left = tf.one_hot(0, count + 1, dtype=tf.int32)

    def double(is_left: tf.Tensor, step: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return tf.tensor_scatter_nd_max(is_left, step[:, tf.newaxis], is_left), tf.gather(step, step)

    is_left, _ = tf.while_loop(lambda _, step: tf.reduce_any(step < count), double, (is_left, step))
    return is_left[:-1] > 0
