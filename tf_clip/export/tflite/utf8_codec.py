"""UTF-8 to code points and back, as arithmetic on arrays of a fixed size."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tf_clip.export.tflite.fixed_arrays import BLANK, packed, placed, shifted

REPLACEMENT = 0xFFFD

_CONTINUATION = 0b10
# What the fixed bits of a sequence's bytes add up to, by how many bytes it has.
_OFFSETS = {2: 0x3080, 3: 0xE2080, 4: 0x3C82080}


def _lengths() -> np.ndarray:
    """Returns how many bytes a sequence has by its first, 0 where none begins, int32 `[256]`."""
    lengths = np.zeros(256, np.int32)
    for first, last, length in [(0x00, 0x7F, 1), (0xC2, 0xDF, 2), (0xE0, 0xEF, 3), (0xF0, 0xF4, 4)]:
        lengths[first : last + 1] = length
    return lengths


def _second_bytes() -> np.ndarray:
    """Returns which second byte may follow a first one, bool `[256 * 16]`: by both, of the second the upper half."""
    allowed = np.zeros((256, 16), bool)
    allowed[0xC2:0xF5, 0x8:0xC] = True
    allowed[0xE0, 0x8:0xA] = allowed[0xF0, 0x8] = False  # a shorter sequence would do
    allowed[0xED, 0xA:0xC] = allowed[0xF4, 0x9:0xC] = False  # surrogates, and what is beyond Unicode
    return allowed.reshape(-1)


def decoded(values: tf.Tensor, is_cut: tf.Tensor) -> tf.Tensor:
    """Returns the code points of UTF-8, spaces behind them.

    Args:
        values: int32 `[n]`, bytes, spaces behind them.
        is_cut: bool, whether the text went on: a character that is not whole at the very end is left out then.

    Source: the Unicode Standard, section 3.9, "Substitution of Maximal Subparts", as Python's `errors="replace"`.
    """
    size = values.shape[0]
    following = tf.concat([values, [BLANK] * 3], axis=0)
    second, third, fourth = (following[by : by + size] for by in (1, 2, 3))
    length = tf.gather(_lengths(), values)
    has_second = tf.gather(_second_bytes(), values * 16 + tf.bitwise.right_shift(second, 4))
    has_third = has_second & (length >= 3) & (tf.bitwise.right_shift(third, 6) == _CONTINUATION)
    has_fourth = has_third & (length >= 4) & (tf.bitwise.right_shift(fourth, 6) == _CONTINUATION)
    found = [tf.cast(mask, tf.int32) for mask in (has_second, has_third, has_fourth)]
    taken = 1 + found[0] + found[1] + found[2]

    two = values * 64 + second
    three = two * 64 + third
    codes = tf.where(has_second, two - _OFFSETS[2], values)
    codes = tf.where(has_third, three - _OFFSETS[3], codes)
    codes = tf.where(has_fourth, three * 64 + fourth - _OFFSETS[4], codes)
    codes = tf.where(taken == length, codes, REPLACEMENT)
    is_unfinished = (length > taken) & (tf.range(size) + taken == size) & is_cut
    codes = tf.where(is_unfinished, BLANK, codes)

    belongs_to_another = sum(shifted(mask, -by, 0) for by, mask in enumerate(found, 1)) > 0
    return packed(codes, tf.logical_not(belongs_to_another), size, BLANK)


def encoded_lengths(codes: tf.Tensor) -> tf.Tensor:
    """Returns how many bytes each code point takes in UTF-8, int32."""
    return 1 + sum(tf.cast(codes >= first, tf.int32) for first in (0x80, 0x800, 0x10000))


def encoded(codes: tf.Tensor, lengths: tf.Tensor, last: tf.Tensor, size: int, fill: int) -> tf.Tensor:
    """Returns the UTF-8 of code points.

    Args:
        codes: int32 `[n]`.
        lengths: int32 `[n]`, as `encoded_lengths` has them, or 0 for what is left out.
        last: int32 `[n]`, what is added to the last byte of each.
        size: of the new array, which must hold all.
        fill: what stands behind them.
    """
    halves = [codes, *(tf.bitwise.right_shift(codes, by) for by in (6, 12, 18))]
    marks = [0, 0xC0, 0xE0, 0xF0]
    ends = tf.cumsum(lengths) - 1
    values, places = [], []
    for index, (half, mark) in enumerate(zip(halves, marks, strict=True)):
        byte = half + mark
        if index < 3:
            byte = tf.where(lengths == index + 1, byte, half - halves[index + 1] * 64 + 0x80)
        values.append(byte if index else byte + last)
        places.append(tf.where(lengths > index, ends - index, size))
    return placed(tf.concat(values, axis=0), tf.concat(places, axis=0), size, fill)
