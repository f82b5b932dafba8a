"""Canonical composition (NFC) inside the TensorFlow graph, with core operations only.

Characters are taken apart, marks are put in order, and pairs are merged again until there is none left: the last
part is a loop like that of byte-pair encoding. All texts of a batch lie behind one another in one array.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tf_clip.preprocessing.text.unicode_tables import CODES, Normalization

# Of a number in the table: the combining class, how many characters the decomposition has, and where it begins.
_CLASS_BITS, _LENGTH_BITS = 8, 3
_CODE_BITS = 21
_PAGE_BITS = 8


class CharacterTable(tf.Module):
    """A whole number for each character, in pages, since most pages of Unicode are alike.

    Args:
        values: int32 `[0x110000]`.
    """

    def __init__(self, values: np.ndarray) -> None:
        super().__init__(name="character_table")
        pages, page_of = np.unique(values.astype(np.int32).reshape(-1, 1 << _PAGE_BITS), axis=0, return_inverse=True)
        self._first = tf.constant(page_of.reshape(-1) << _PAGE_BITS, tf.int32)
        self._values = tf.constant(pages.reshape(-1), tf.int32)

    def __call__(self, codes: tf.Tensor) -> tf.Tensor:
        """Looks code points up, int32 of any shape."""
        page = tf.bitwise.right_shift(codes, _PAGE_BITS)
        return tf.gather(self._values, tf.gather(self._first, page) + (codes & ((1 << _PAGE_BITS) - 1)))


class Characters(NamedTuple):
    """Texts as one array of characters; each text follows a tab, across which nothing combines.

    Args:
        codes: int32 `[n]` code points.
        first, last: int32 `[n]`, the first and the last of the characters before that each was made of.
    """

    codes: tf.Tensor
    first: tf.Tensor
    last: tf.Tensor

    def taken(self, index: tf.Tensor) -> Characters:
        """Returns the characters at some indices."""
        return Characters(*(tf.gather(array, index) for array in self))


class CanonicalComposition(tf.Module):
    """Brings texts to NFC.

    Args:
        data: combining classes, decompositions and compositions.

    Source: the Unicode Standard, section 3.11. Time and memory are linear but for one sort.
    """

    def __init__(self, data: Normalization) -> None:
        super().__init__(name="canonical_composition")
        parts: list[int] = []
        packed = data.combining_class.copy()
        for code, decomposed in data.decomposition.items():
            packed[code] |= (len(decomposed) | len(parts) << _LENGTH_BITS) << _CLASS_BITS
            parts.extend(decomposed)
        self._table = CharacterTable(packed)
        self._parts = tf.constant(parts, tf.int32)
        pairs = np.array(list(data.composition), np.int64)
        keys, values = (pairs[:, 0] << _CODE_BITS) + pairs[:, 1], np.array(list(data.composition.values()), np.int64)
        self._composed = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, values), CODES)

    def __call__(self, characters: Characters) -> Characters:
        """Returns the texts' NFC; `first` and `last` of a composed character span all that it was made of."""
        characters = self._decomposed(characters)
        return self._composed_again(*self._in_order(characters))

    def _decomposed(self, characters: Characters) -> Characters:
        packed = tf.bitwise.right_shift(self._table(characters.codes), _CLASS_BITS)
        lengths = packed & ((1 << _LENGTH_BITS) - 1)
        start = tf.bitwise.right_shift(packed, _LENGTH_BITS)
        counts = tf.maximum(lengths, 1)
        source = tf.repeat(tf.range(tf.size(counts)), counts)
        within = tf.range(tf.size(source)) - tf.gather(tf.cumsum(counts, exclusive=True), source)
        parts = tf.gather(self._parts, tf.gather(start, source) + within)
        whole = characters.taken(source)
        return whole._replace(codes=tf.where(tf.gather(lengths, source) > 0, parts, whole.codes))

    def _in_order(self, characters: Characters) -> tuple[Characters, tf.Tensor]:
        """Sorts each run of marks by class; returns the classes, too."""
        classes = self._table(characters.codes) & ((1 << _CLASS_BITS) - 1)
        run = tf.cumsum(tf.cast(classes == 0, tf.int64))
        keys = run * (1 << _CLASS_BITS) + tf.cast(classes, tf.int64)

        def in_order() -> tuple[tf.Tensor, ...]:
            index = tf.argsort(keys, stable=True)
            return *characters.taken(index), tf.gather(classes, index)

        is_sorted = tf.reduce_all(keys[1:] >= keys[:-1])
        *arrays, classes = tf.cond(is_sorted, lambda: (*characters, classes), in_order)
        return Characters(*arrays), classes

    def _composed_again(self, characters: Characters, classes: tf.Tensor) -> Characters:
        def step(
            codes: tf.Tensor, first: tf.Tensor, last: tf.Tensor, classes: tf.Tensor, _: tf.Tensor
        ) -> tuple[tf.Tensor, ...]:
            # What follows is about each character but the first, and the starter before it.
            group = tf.cumsum(tf.cast(classes == 0, tf.int32))[:-1] - 1
            base = tf.gather(tf.cast(tf.where(classes == 0)[:, 0], tf.int32), group)
            index = tf.range(1, tf.size(codes))
            before, own = classes[:-1], classes[1:]
            # A mark is hidden from the starter by one of the same class that stayed between them.
            is_open = (base == index - 1) | ((before > 0) & (before < own))
            pairs = tf.cast(tf.gather(codes, base), tf.int64) * (1 << _CODE_BITS) + tf.cast(codes[1:], tf.int64)
            composed = tf.cast(self._composed.lookup(pairs), tf.int32)
            candidates = tf.where(is_open & (composed < CODES), index, codes.dtype.max)
            chosen = tf.math.unsorted_segment_min(candidates, group, tf.size(codes))  # the first of each starter
            chosen = tf.boolean_mask(chosen, chosen < codes.dtype.max)

            at = tf.gather(base, chosen - 1)[:, tf.newaxis]
            codes = tf.tensor_scatter_nd_update(codes, at, tf.gather(composed, chosen - 1))
            first = tf.tensor_scatter_nd_min(first, at, tf.gather(first, chosen))
            last = tf.tensor_scatter_nd_max(last, at, tf.gather(last, chosen))
            keep = tf.tensor_scatter_nd_update(
                tf.ones_like(codes, tf.bool), chosen[:, tf.newaxis], tf.zeros_like(chosen, tf.bool)
            )
            arrays = [tf.boolean_mask(array, keep) for array in (codes, first, last, classes)]
            return *arrays, tf.size(chosen) > 0

        anything = tf.TensorShape([None])
        *arrays, _, _ = tf.while_loop(
            lambda *state: state[-1],
            step,
            (*characters, classes, tf.size(classes) > 1),
            shape_invariants=(*[anything] * 4, tf.TensorShape([])),
        )
        return Characters(*arrays)
