"""Texts to words inside the TensorFlow graph: NFC, lower case, and CLIP's rules of where a word ends.

All of it is arithmetic on code points and look-ups in tables, with core operations only. TensorFlow's own lower case
and regular expressions know an older Unicode than the reference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_clip.preprocessing.text import unicode_tables
from tf_clip.preprocessing.text.byte_pair_encoding import BOS_MARK, EOS_MARK
from tf_clip.preprocessing.text.normalization import CanonicalComposition, Characters, CharacterTable
from tf_clip.preprocessing.text.special_tokens import NormalizedTokens
from tf_clip.preprocessing.text.unicode_tables import NUMBER, SPACE

# Bits of a number in the table: the distance to the lower case, the character's class, and whether it is unusual.
_CODE_BITS, _CLASS_BITS = 21, 2
_CODE_MASK = (1 << _CODE_BITS) - 1
_UNUSUAL = 1 << (_CODE_BITS + _CLASS_BITS)
_TAB = "\t"
SPELLED = ("<|startoftext|>", "<|endoftext|>")


class Words(NamedTuple):
    """The words of texts, all behind one another.

    Args:
        words: string `[w]`, UTF-8, lower-case.
        row_splits: int64 `[rows + 1]`, where each text's words begin.
        characters: what the words are made of; `first` and `last` count the characters of the texts as given.
    """

    words: tf.Tensor
    row_splits: tf.Tensor
    characters: Characters


class WordSplitter(tf.Module):
    """Finds the words of texts.

    Contractions ('s 't 're 've 'm 'll 'd), runs of letters, single number characters and runs of anything else that
    is no white space are words; so is each `BOS_MARK` and `EOS_MARK`.

    Args:
        normalized_tokens: special tokens to find in normalized text, and their marks.

    Source: Radford et al. 2021 (CLIP); NFC and lower case letter by letter as in Hugging Face's tokenizer.
    """

    def __init__(self, normalized_tokens: Mapping[str, bytes] = MappingProxyType({})) -> None:
        super().__init__(name="word_splitter")
        normalization = unicode_tables.normalization()
        lower, classes = unicode_tables.lower_case(), unicode_tables.classes().copy()
        # A mark is a word of its own wherever it stands, as a number character is.
        classes[[BOS_MARK[0], EOS_MARK[0]]] = NUMBER
        expands = lower[:, 1] >= 0
        unusual = normalization.may_change() | expands
        # Words are found in lower case: a few capitals are letters only there.
        classes = classes[lower[:, 0]]
        # The distance to the lower case, not its position: most pages of distances are alike, and are stored once.
        distance = (lower[:, 0] - np.arange(len(lower))) & _CODE_MASK
        self._table = CharacterTable(distance | classes << _CODE_BITS | np.where(unusual, _UNUSUAL, 0))
        self._compose = CanonicalComposition(normalization)
        self._normalized = _apart(self._normalize)
        self._expanding = tf.constant(np.flatnonzero(expands), tf.int32)
        self._second_letters = tf.constant(lower[expands, 1], tf.int32)
        marks = [(self._normal_form(token), self._normal_form(mark)[0]) for token, mark in normalized_tokens.items()]
        self._put_marks = NormalizedTokens(marks) if marks else None

    def __call__(self, texts: tf.Tensor) -> Words:
        """Splits texts.

        Args:
            texts: string `[n]`, without tabs; invalid UTF-8 is replaced by U+FFFD. Special tokens that are not to be
                found in normalized text are marks already.
        """
        codes = tf.strings.unicode_decode(tf.strings.reduce_join(tf.strings.join([_TAB, texts])), "UTF-8", "replace")
        index = tf.range(tf.size(codes))
        characters = Characters(codes, index, index)
        info = self._table(codes)
        *characters, info = tf.cond(
            tf.reduce_any(info >= _UNUSUAL), lambda: self._normalized(characters), lambda: (*characters, info)
        )
        codes = (characters[0] + info) & _CODE_MASK
        if self._put_marks:
            info, *characters[1:] = self._put_marks(Characters(_lowered(codes, info), *characters[1:]))
            codes = info & _CODE_MASK
        classes = tf.bitwise.right_shift(info, _CODE_BITS) & ((1 << _CLASS_BITS) - 1)

        is_word = classes != SPACE
        begins = _word_begins(codes, classes) & is_word
        kept = places(is_word)
        characters = Characters(codes, *characters[1:]).taken(kept)
        starts = tf.concat([places(tf.gather(begins, kept)), tf.size(kept, tf.int64)[tf.newaxis]], axis=0)
        words = tf.strings.unicode_encode(
            tf.RaggedTensor.from_row_splits(characters.codes, starts, validate=False), "UTF-8"
        )
        # The index of a text's first word is the number of words before its tab.
        count = tf.gather(tf.cumsum(tf.cast(begins, tf.int64)), places(codes == ord(_TAB)))
        return Words(words, tf.concat([count, tf.size(words, tf.int64)[tf.newaxis]], axis=0), characters)

    def _normal_form(self, text: str | bytes) -> list[int]:
        """Returns a text's characters as the table has them, in NFC and lower case."""
        codes = tf.strings.unicode_decode(tf.strings.join([_TAB, text]), "UTF-8")
        index = tf.range(tf.size(codes))
        codes, *_, info = self._normalize(Characters(codes, index, index))
        found: list[int] = _lowered((codes + info) & _CODE_MASK, info)[1:].numpy().tolist()
        return found

    def _normalize(self, characters: Characters) -> tuple[tf.Tensor, ...]:
        """Brings characters to NFC, and makes two of each whose lower case is two."""
        characters = self._compose(characters)
        matches = characters.codes[:, tf.newaxis] == self._expanding
        counts = 1 + tf.reduce_sum(tf.cast(matches, tf.int32), axis=1)
        index = tf.repeat(tf.range(tf.size(counts)), counts)
        is_second = tf.concat([tf.zeros_like(index[:1], tf.bool), index[1:] == index[:-1]], axis=0)
        second = tf.reduce_sum(tf.where(matches, self._second_letters, 0), axis=1)
        characters = characters.taken(index)
        codes = tf.where(is_second, tf.gather(second, index), characters.codes)
        return *characters._replace(codes=codes), self._table(codes)


def places(mask: tf.Tensor) -> tf.Tensor:
    """Returns the indices at which a mask is true, int64 `[m]`; `tf.boolean_mask` takes five times the operations."""
    return tf.reshape(tf.where(mask), [-1])


def _apart(function: Callable[..., Any]) -> Callable[..., Any]:
    """Makes a rarely needed branch a function of its own: a branch inside the graph costs time even if not taken."""
    apart: Callable[..., Any] = tf.function(function, autograph=False, experimental_attributes={"_noinline": True})
    return apart


def _lowered(codes: tf.Tensor, info: tf.Tensor) -> tf.Tensor:
    """Returns lower-case characters and what they are, as one number each."""
    return codes | info & (_UNUSUAL - 1) & ~_CODE_MASK


def _word_begins(codes: tf.Tensor, classes: tf.Tensor) -> tf.Tensor:
    """Returns which characters begin a word, or white space, bool `[n]`."""
    begins = tf.concat([tf.ones_like(classes[:1], tf.bool), classes[1:] != classes[:-1]], axis=0) | (classes == NUMBER)
    brackets = places(codes == ord("<"))
    begins = tf.cond(
        tf.size(brackets) > 0, lambda: begins | _apart(_after_spelled_tokens)(codes, begins, brackets), lambda: begins
    )
    quotes = places(begins & (codes == ord("'")))
    return tf.cond(tf.size(quotes) > 0, lambda: _with_contractions(codes, begins, quotes), lambda: begins)


def _after_spelled_tokens(codes: tf.Tensor, begins: tf.Tensor, brackets: tf.Tensor) -> tf.Tensor:
    """Returns which characters follow "<|endoftext|>" or "<|startoftext|>", written in capitals, bool `[n]`.

    The reference's pattern names both tokens and is applied to lower case. So text that is no special token still
    matches as one piece, where a match may begin: "<|ENDOFTEXT|>!!" ends with "|>" and "!!".
    """
    size = tf.size(codes, tf.int64)
    longest = max(map(len, SPELLED))
    window = tf.gather(tf.pad(codes, [[0, longest]]), brackets[:, tf.newaxis] + tf.range(longest, dtype=tf.int64))
    lengths = tf.zeros_like(brackets)
    for token in SPELLED:
        is_equal = tf.reduce_all(window[:, : len(token)] == [ord(letter) for letter in token], axis=1)
        lengths += tf.where(is_equal, tf.constant(len(token), tf.int64), 0)
    brackets, lengths = tf.boolean_mask(brackets, lengths > 0), tf.boolean_mask(lengths, lengths > 0)
    # One that follows another begins where that one ends.
    ends = brackets + lengths
    chain = tf.cumsum(tf.cast(tf.concat([tf.ones_like(ends[:1], tf.bool), brackets[1:] != ends[:-1]], 0), tf.int32)) - 1
    counts = tf.math.segment_max(tf.cast(tf.gather(begins, brackets), tf.int32), chain)
    ends = tf.boolean_mask(ends, (tf.gather(counts, chain) > 0) & (ends < size))
    return tf.tensor_scatter_nd_update(tf.zeros_like(begins), ends[:, tf.newaxis], tf.ones_like(ends, tf.bool))


def _with_contractions(codes: tf.Tensor, begins: tf.Tensor, quotes: tf.Tensor) -> tf.Tensor:
    """Joins each contraction's letters to its quote; without it a word would begin after the quote."""
    padded = tf.pad(codes, [[0, 3]])
    following = tf.gather(padded, quotes[:, tf.newaxis] + [1, 2])
    one = tf.reduce_any(following[:, :1] == [ord(letter) for letter in "stmd"], axis=1)
    pairs = [[ord(letter) for letter in pair] for pair in ("re", "ve", "ll")]
    two = tf.reduce_any(tf.reduce_all(following[:, tf.newaxis] == pairs, axis=2), axis=1)
    length = tf.where(one, tf.constant(2, tf.int64), tf.where(two, tf.constant(3, tf.int64), 0))
    quotes, length = tf.boolean_mask(quotes, length > 0), tf.boolean_mask(length, length > 0)
    padded = tf.pad(begins, [[0, 3]])
    padded = tf.tensor_scatter_nd_update(padded, quotes[:, tf.newaxis] + 1, tf.zeros_like(quotes, tf.bool))
    ends = (quotes + length)[:, tf.newaxis]
    return tf.tensor_scatter_nd_update(padded, ends, tf.ones_like(quotes, tf.bool))[: tf.size(begins)]
