"""Where CLIP's words are in a text, on arrays of a fixed size, with what every LiteRT runtime has built in."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tf_clip.export.tflite.fixed_arrays import BLANK, PagedTable, placed, shifted
from tf_clip.export.tflite.fixed_nfc import FixedComposition
from tf_clip.export.tflite.pair_merging import BOS_BYTE, ENDS_WORD, EOS_BYTE
from tf_clip.preprocessing.text import unicode_tables
from tf_clip.preprocessing.text.unicode_tables import CODES, NUMBER, SPACE
from tf_clip.preprocessing.text.words import SPELLED

BOS_CODE, EOS_CODE = CODES, CODES + 1
"""Beyond Unicode: what stands for the start and the end token in a text."""

# Is added to what a character is when it asks for more work.
_UNUSUAL = 4
_QUOTE = ord("'")


class FixedWords(NamedTuple):
    """The characters of a text and how they make words.

    Args:
        codes: int32 `[n]`, NFC and lower case; one beyond Unicode is its byte less `ENDS_WORD`.
        is_space: bool `[n]`, which are white space; so is what follows the text.
        is_last: bool `[n]`, which end a word.
    """

    codes: tf.Tensor
    is_space: tf.Tensor
    is_last: tf.Tensor


class FixedWordSplitter:
    """Finds the words of a text; see `tf_clip.preprocessing.text.words.WordSplitter`, whose words these are."""

    def __init__(self) -> None:
        normalization = unicode_tables.normalization()
        lower, classes = unicode_tables.lower_case(), unicode_tables.classes()
        expands = lower[:, 1] >= 0
        unusual = normalization.may_change() | expands
        # A lower-case character says what the other one is. A special token is a word of its own, as a number is.
        kinds = np.append(classes[lower[:, 0]] + _UNUSUAL * unusual, [NUMBER] * 2)
        lower_codes = np.append(lower[:, 0], [BOS_BYTE - ENDS_WORD, EOS_BYTE - ENDS_WORD])
        self._table = PagedTable(lower_codes - np.arange(len(lower_codes)), kinds)
        self._compose = FixedComposition(normalization, len(kinds))
        self._expanding = np.flatnonzero(expands).astype(np.int32)
        self._second_letters = lower[expands, 1]

    def __call__(self, codes: tf.Tensor) -> FixedWords:
        """Splits a text.

        Args:
            codes: int32 `[n]`, spaces behind the text, which takes n bytes at most in UTF-8.
        """
        distances, kinds = self._table(codes)
        codes, classes = tf.cond(
            tf.reduce_max(kinds) >= _UNUSUAL,
            lambda: self._normalized(codes),
            lambda: (codes + distances, kinds),
        )
        begins = (classes != shifted(classes, -1, SPACE)) | (classes == NUMBER)
        begins = tf.cond(
            tf.reduce_any(codes == ord("<")), lambda: begins | _after_spelled_tokens(codes, begins), lambda: begins
        )
        begins = tf.cond(tf.reduce_any(codes == _QUOTE), lambda: _with_contractions(codes, begins), lambda: begins)
        return FixedWords(codes, classes == SPACE, shifted(begins, 1, True))

    def _normalized(self, codes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Brings a text to NFC and to lower case, which is two letters for some."""
        codes = self._compose(codes)
        size = codes.shape[0]
        matches = codes[:, tf.newaxis] == self._expanding
        expands = tf.reduce_any(matches, axis=1)
        second = tf.reduce_sum(tf.cast(matches, tf.int32) * self._second_letters, axis=1)
        places = tf.range(size) + tf.cumsum(tf.cast(expands, tf.int32), exclusive=True)
        values = tf.concat([codes, second], axis=0)
        codes = placed(values, tf.concat([places, tf.where(expands, places + 1, size)], axis=0), size, BLANK)
        distances, kinds = self._table(codes)
        return codes + distances, tf.math.floormod(kinds, _UNUSUAL)


def found(codes: tf.Tensor, text: str) -> tf.Tensor:
    """Returns where a text begins in another, bool `[n]`."""
    size = codes.shape[0]
    following = tf.concat([codes, [BLANK] * len(text)], axis=0)
    windows = tf.gather(
        following, np.arange(size, dtype=np.int32)[:, np.newaxis] + np.arange(len(text), dtype=np.int32)
    )
    return tf.reduce_all(windows == _codes_of(text), axis=1)


def _after_spelled_tokens(codes: tf.Tensor, begins: tf.Tensor) -> tf.Tensor:
    """Returns which characters follow "<|endoftext|>" or "<|startoftext|>", written in capitals, bool `[n]`.

    Such a match begins where a word does, or where another such match ends: all of a chain or none.
    """
    size = codes.shape[0]
    matches = [found(codes, token) for token in SPELLED]
    ends = [shifted(match, -len(token), False) for match, token in zip(matches, SPELLED, strict=True)]
    heads = (matches[0] | matches[1]) & tf.logical_not(ends[0] | ends[1])
    chain = tf.cumsum(tf.cast(heads, tf.int32))
    counts = tf.math.unsorted_segment_max(tf.cast(heads & begins, tf.int32), chain, size + 1)
    is_match = tf.gather(counts, chain) > 0
    ends = [shifted(match & is_match, -len(token), False) for match, token in zip(matches, SPELLED, strict=True)]
    return ends[0] | ends[1]


def _with_contractions(codes: tf.Tensor, begins: tf.Tensor) -> tf.Tensor:
    """Lets contractions take their letters from the word that would begin there."""
    pairs = tf.stack([shifted(codes, 1, BLANK), shifted(codes, 2, BLANK)], axis=1)[:, tf.newaxis]
    starts = begins & (codes == _QUOTE)
    one = starts & tf.reduce_any(pairs[:, :, 0] == _codes_of("stmd"), axis=1)
    two = starts & tf.reduce_any(
        tf.reduce_all(pairs == [_codes_of(pair) for pair in ("re", "ve", "ll")], axis=2), axis=1
    )
    begins = begins & tf.logical_not(shifted(one | two, -1, False))
    return begins | shifted(one, -2, False) | shifted(two, -3, False)


def _codes_of(text: str) -> list[int]:
    return [ord(letter) for letter in text]
