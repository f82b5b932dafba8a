"""Canonical composition (NFC) on arrays of a fixed size, with what every LiteRT runtime has built in."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tf_clip.export.tflite.fixed_arrays import BLANK, PagedTable, packed, placed, shifted
from tf_clip.preprocessing.text.unicode_tables import Normalization

_LONGEST = 4  # characters that one is taken apart to
_CLASSES = 256
MAX_SIZE = 1920
"""Of a text, in bytes: characters are sorted by numbers of 31 bits, which hold two places and a class."""
# Hangul syllables are left whole: their parts would only come together again.
_SYLLABLES = range(0xAC00, 0xAC00 + 11172)


class FixedComposition:
    """Brings a text to NFC.

    Args:
        data: combining classes, decompositions and compositions.
        codes: how many there are; those that `data` does not know stay as they are.

    Source: the Unicode Standard, section 3.11.
    """

    def __init__(self, data: Normalization, codes: int) -> None:
        classes, row, first, second = (np.zeros(codes, np.int32) for _ in range(4))
        classes[: len(data.combining_class)] = data.combining_class
        apart = {code: list(parts) for code, parts in data.decomposition.items() if code not in _SYLLABLES}
        row[list(apart)] = np.arange(1, len(apart) + 1)
        self._counts = np.array([1, *map(len, apart.values())], np.int32)
        self._parts = np.array([part + [0] * (_LONGEST - len(part)) for part in [[0], *apart.values()]], np.int32)

        # What a second character adds to the first one's code; characters with equal sums are one kind of first ones.
        seconds = {code: number for number, code in enumerate(sorted({pair[1] for pair in data.composition}), 1)}
        second[list(seconds)] = list(seconds.values())
        sums: dict[int, list[int]] = {}
        for (left, right), whole in data.composition.items():
            sums.setdefault(left, [0] * (len(seconds) + 1))[seconds[right]] = whole - left
        kinds = {kind: number for number, kind in enumerate(sorted(set(map(tuple, sums.values()))), 1)}
        first[list(sums)] = [kinds[tuple(kind)] for kind in sums.values()]
        self._sums = np.array([[0] * (len(seconds) + 1), *kinds], np.int32)
        self._table = PagedTable(classes, first * self._sums.shape[1], second)
        self._rows = PagedTable(row)

    def __call__(self, codes: tf.Tensor) -> tf.Tensor:
        """Returns the text's NFC.

        Args:
            codes: int32 `[n]`, spaces behind the text, which takes n bytes at most in UTF-8.

        Returns:
            int32 `[n]`, spaces behind the text.
        """
        apart = self._in_order(self._decomposed(codes))
        # The space in front goes again.
        return self._composed(apart)[1 : codes.shape[0] + 1]

    def _decomposed(self, codes: tf.Tensor) -> tf.Tensor:
        """Takes characters apart, behind a space: int32 `[n * 3 / 2 + 1]`, as no two bytes become more than three."""
        size = codes.shape[0] * 3 // 2 + 1
        (row,) = self._rows(codes)
        parts = tf.gather(self._parts, row)
        is_whole = tf.cast(row == 0, tf.int32) * codes
        counts = tf.gather(self._counts, row)
        starts = tf.cumsum(counts, exclusive=True) + 1
        values, places = [], []
        for index in range(_LONGEST):
            values.append(parts[:, index] + is_whole if index == 0 else parts[:, index])
            places.append(tf.where(counts > index, starts + index, size))
        return placed(tf.concat(values, axis=0), tf.concat(places, axis=0), size, BLANK)

    def _in_order(self, codes: tf.Tensor) -> tf.Tensor:
        """Sorts each run of marks by class."""
        classes = self._table(codes)[0]
        following = shifted(classes, 1, 0)
        is_unsorted = tf.reduce_any((classes > following) & (following > 0))

        def in_order() -> tf.Tensor:
            size = codes.shape[0]
            run = tf.cumsum(tf.cast(classes == 0, tf.int32))
            keys = (run * _CLASSES + classes) * size + tf.range(size)
            return tf.gather(codes, tf.math.top_k(-keys, size).indices)

        return tf.cond(is_unsorted, in_order, lambda: codes)

    def _composed(self, codes: tf.Tensor) -> tf.Tensor:
        size = codes.shape[0]
        place = tf.range(size)

        def step(codes: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            classes, first, second = self._table(codes)
            is_starter = tf.cast(classes == 0, tf.int32)
            through = tf.cumsum(is_starter)
            group = through - is_starter  # of the starter before each character
            starters = tf.math.unsorted_segment_max(is_starter * place, through, size + 1)
            base = tf.maximum(tf.gather(starters, group), 0)
            added = tf.gather(self._sums.reshape(-1), tf.gather(first, base) + second)
            # A mark is hidden from the starter by one of the same class that stayed between them.
            is_open = shifted(classes, -1, 0) < tf.maximum(classes, 1)
            candidates = tf.where(is_open & (added != 0), place, size)
            chosen = candidates == tf.minimum(
                tf.gather(tf.math.unsorted_segment_min(candidates, group, size + 1), group), size - 1
            )
            added *= tf.cast(chosen, tf.int32)
            codes += tf.math.unsorted_segment_sum(added, base, size)
            return packed(codes, tf.logical_not(chosen), size, BLANK), tf.reduce_any(chosen)

        return tf.while_loop(lambda *state: state[-1], step, (codes, tf.constant(True)))[0]
