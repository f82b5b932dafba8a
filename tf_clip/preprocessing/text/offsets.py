"""Where tokens come from: bytes of the text as it was given."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from tf_clip.preprocessing.text.normalization import Characters


def byte_offsets(
    texts: tf.Tensor, characters: Characters, lengths: tf.Tensor, marks: Sequence[tuple[str, bytes]]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the first byte of each token in its own text, and the byte after its last, int64 `[tokens]`.

    Args:
        texts: string `[n]`, with marks in place of special tokens.
        characters: what the texts' words are made of.
        lengths: int32 `[tokens]`, the bytes that each token covers of the words.
        marks: special tokens and the marks that stand for them.
    """
    # Tokens cover the words' bytes one after another, and so do characters.
    ends = tf.cumsum(lengths)
    character_of = tf.repeat(tf.range(tf.size(characters.codes)), _utf8_length(characters.codes))
    first = tf.gather(characters.first, tf.gather(character_of, ends - lengths))
    last = tf.gather(characters.last, tf.gather(character_of, ends - 1))
    begins, ends = _bytes_of_characters(texts, marks)
    return tf.gather(begins, first), tf.gather(ends, last)


def _bytes_of_characters(texts: tf.Tensor, marks: Sequence[tuple[str, bytes]]) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the first byte of each character in its own text, and the byte after its last, int64 `[characters]`.

    Characters are counted as `WordSplitter` does, with the tab before each text.
    """
    codes, begins = tf.strings.unicode_decode_with_offsets(tf.strings.join(["\t", texts]), "UTF-8", "replace")
    whole = tf.cast(tf.strings.length(texts), tf.int64)[:, tf.newaxis] + 1
    ends = tf.concat([begins[:, 1:], whole], axis=1)
    # A special token is longer than its mark, so all that follows moves; the tab is not in the text.
    zero = tf.constant(0, tf.int64)
    longer = tf.where(codes.values == ord("\t"), zero - 1, zero)
    for token, mark in marks:
        longer += tf.where(codes.values == mark[0], zero + len(token.encode()) - 1, zero)
    moved = tf.cumsum(longer)
    # Each text counts from its own start.
    before = tf.gather(tf.concat([[0], moved], axis=0), codes.row_starts())
    moved -= tf.gather(before, codes.value_rowids())
    return begins.values + moved - longer, ends.values + moved


def _utf8_length(codes: tf.Tensor) -> tf.Tensor:
    return 1 + sum(tf.cast(codes >= least, tf.int32) for least in (0x80, 0x800, 0x10000))
