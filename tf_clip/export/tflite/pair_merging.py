"""Byte-pair encoding on arrays of a fixed size, with what every LiteRT runtime has built in.

Each step of the loop merges the best pair of every piece at once; a piece is a part of a word that no token of the
vocabulary reaches out of. Symbols stay where their first byte is, and know where the next one is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tf_clip.export.tflite.fixed_arrays import shifted
from tf_clip.preprocessing.text.byte_pair_encoding import END_OF_WORD, byte_symbols

ENDS_WORD = 256
"""Is added to the last byte of a word."""
NOTHING = 512
"""Stands where no byte is."""
BOS_BYTE, EOS_BYTE = 0xFF, 0xFE
"""Bytes that UTF-8 does not have: the start and the end token, each a word of its own."""

# A pair of ids is one number of 32 bits.
_MAX_SYMBOLS = 65535
_KEYS_PER_BUCKET = 3
_TRIALS = 64


class PairHash(NamedTuple):
    """Where a key is, if it is there: in slot `(key ^ twists[key % len(twists)]) % len(keys)`.

    Args:
        twists: int32 `[buckets]`.
        keys: int32 `[slots]`, what is in each.
        places: int32 `[slots]`, which of the keys given that is, -1 in empty slots.

    Source: Belazzougui, Botelho and Dietzfelbinger 2009, "Hash, displace, and compress".
    """

    twists: np.ndarray
    keys: np.ndarray
    places: np.ndarray

    @classmethod
    def of(cls, keys: np.ndarray) -> PairHash:
        """Finds twists that bring each key to a slot of its own; the keys are distinct, int32 `[n]`."""
        slots, buckets = _prime_from(len(keys) * 21 // 20 + 2), _prime_from(len(keys) // _KEYS_PER_BUCKET + 2)
        generator = np.random.default_rng(0)
        twists, index = np.zeros(buckets, np.int32), np.full(slots, -1, np.int32)
        bucket_of = keys % buckets
        order = np.argsort(bucket_of, kind="stable")
        buckets_members = np.split(order, np.cumsum(np.bincount(bucket_of, minlength=buckets))[:-1])
        # The fullest first, while there is room; a single key fits any slot that is left.
        by_size = sorted(enumerate(buckets_members), key=lambda pair: -len(pair[1]))
        for bucket, members in by_size:
            if len(members) > 1:
                twists[bucket] = _twist(keys[members], index, generator)
                index[(keys[members] ^ twists[bucket]) % slots] = members
        singles = [(bucket, members[0]) for bucket, members in by_size if len(members) == 1]
        for (bucket, member), slot in zip(singles, np.flatnonzero(index < 0), strict=False):
            twists[bucket] = keys[member] ^ np.int32(slot)
            index[slot] = member
        return cls(twists, np.where(index < 0, 0, np.append(keys, np.int32(0))[index]).astype(np.int32), index)


class PairMerging:
    """Merges bytes by rank.

    Args:
        vocab: from symbol to id; must hold every byte symbol, with and without `</w>`.
        merges: pairs of symbols, best first.
        bos_token_id, eos_token_id: ids that `BOS_BYTE` and `EOS_BYTE` encode to.

    Raises:
        ValueError: an id is too large.
    """

    def __init__(
        self, vocab: Mapping[str, int], merges: Iterable[tuple[str, str]], bos_token_id: int, eos_token_id: int
    ) -> None:
        self._none = max(vocab.values()) + 1  # an id that no symbol has
        if self._none >= _MAX_SYMBOLS:
            raise ValueError(
                f"`vocab` must have ids below {_MAX_SYMBOLS - 1}. Received: an id of {self._none - 1}. "
                "Export the text encoder alone, and tokenize in the application."
            )
        # No word goes on after its end, and a pair listed twice keeps its better rank.
        ranks = {pair: rank for rank, pair in reversed(list(enumerate(merges))) if not pair[0].endswith(END_OF_WORD)}
        symbols = byte_symbols()
        byte_ids = [vocab[symbol] for symbol in symbols] + [vocab[symbol + END_OF_WORD] for symbol in symbols]
        byte_ids[BOS_BYTE], byte_ids[EOS_BYTE] = bos_token_id, eos_token_id
        # Ids lie around zero here, so that a pair of them is one number of 32 bits.
        self._middle, self._base = self._none // 2, self._none + 1
        self._byte_ids = np.array([*byte_ids, self._none], np.int32) - self._middle
        self._borders = _borders(ranks, symbols)

        pairs = np.array([(vocab[left], vocab[right]) for left, right in ranks], np.int32).reshape(-1, 2)
        pairs -= self._middle
        self._hash = PairHash.of(pairs[:, 0] * self._base + pairs[:, 1])
        self._worst = max(ranks.values(), default=0) + 1
        merged = np.array([*(vocab[left + right] for left, right in ranks), self._none], np.int32)
        self._ranks = np.array([*ranks.values(), self._worst], np.int32)[self._hash.places]
        self._merged = merged[self._hash.places] - self._middle

    def __call__(self, values: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Encodes words.

        Args:
            values: int32 `[n]`, bytes, `ENDS_WORD` more for the last of a word, or `NOTHING`.

        Returns:
            int32 `[n]`, the id of the token that begins at each place, and bool `[n]`, whether one does.
        """
        size = values.shape[0]
        place = tf.range(size)
        pair = tf.minimum(values, ENDS_WORD) * (NOTHING + 1) + shifted(values, 1, NOTHING)
        piece = tf.cumsum(tf.cast(tf.gather(self._borders, pair), tf.int32), exclusive=True)

        def step(ids: tf.Tensor, following: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            ranks, merged = self._looked_up(ids * self._base + tf.gather(ids, following))
            best = tf.gather(tf.math.unsorted_segment_min(ranks, piece, size), piece)
            chosen = ranks == tf.minimum(best, self._worst - 1)
            is_gone = _is_after(chosen, following)
            chosen, is_gone = tf.cond(
                tf.reduce_any(chosen & is_gone),
                lambda: _without_overlaps(chosen, following, self._is_symbol(ids)),
                lambda: (chosen, is_gone),
            )
            ids = tf.where(is_gone, self._none - self._middle, tf.where(chosen, merged, ids))
            following = tf.where(chosen, tf.gather(following, following), following)
            return ids, following, tf.reduce_any(chosen)

        # The last one is followed by itself; it ends a word, or is none, and has no pair to merge.
        start = (tf.gather(self._byte_ids, values), tf.minimum(place + 1, size - 1), tf.constant(True))
        ids, _, _ = tf.while_loop(lambda *state: state[-1], step, start)
        return ids + self._middle, self._is_symbol(ids)

    def _is_symbol(self, ids: tf.Tensor) -> tf.Tensor:
        return ids != self._none - self._middle

    def _looked_up(self, keys: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns pairs' ranks and what becomes of them."""
        twists = tf.gather(self._hash.twists, tf.math.floormod(keys, len(self._hash.twists)))
        slots = tf.math.floormod(tf.bitwise.bitwise_xor(keys, twists), len(self._hash.keys))
        is_known = tf.gather(self._hash.keys, slots) == keys
        return tf.where(is_known, tf.gather(self._ranks, slots), self._worst), tf.gather(self._merged, slots)


def _is_after(chosen: tf.Tensor, following: tf.Tensor) -> tf.Tensor:
    """Returns which symbols are the right halves of the chosen pairs, bool `[n]`."""
    return tf.math.unsorted_segment_max(tf.cast(chosen, tf.int32), following, chosen.shape[0]) > 0


def _without_overlaps(chosen: tf.Tensor, following: tf.Tensor, is_symbol: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Keeps the 1st, 3rd, 5th ... of each run of neighbors, "aaaa" is two pairs, not three; and their right halves."""
    run = tf.cumsum(tf.cast(is_symbol & tf.logical_not(chosen), tf.int32))  # equal within a run of chosen neighbors
    ones = tf.cast(chosen, tf.int32)
    count = tf.cumsum(ones)
    before_run = tf.gather(tf.math.unsorted_segment_min(count - ones, run, chosen.shape[0] + 1), run)
    chosen = chosen & (tf.math.floormod(count - before_run, 2) == 1)
    return chosen, _is_after(chosen, following)


def _borders(pairs: Iterable[tuple[str, str]], symbols: list[str]) -> np.ndarray:
    """Returns which two neighboring bytes no token reaches across, bool `[257 * 513]`.

    The first one is a byte, or `ENDS_WORD` for any that does, the second as in a text.
    """
    byte_of = {symbol: byte for byte, symbol in enumerate(symbols)}
    is_border = np.ones((ENDS_WORD + 1, NOTHING + 1), bool)
    for left, right in pairs:
        is_last = len(right) == 1 + len(END_OF_WORD) and right.endswith(END_OF_WORD)
        is_border[byte_of[left[-1]], byte_of[right[0]] + ENDS_WORD * is_last] = False
    return is_border.reshape(-1)


def _twist(keys: np.ndarray, index: np.ndarray, generator: np.random.Generator) -> np.int32:
    """Tries numbers until one brings all keys of a bucket to different empty slots."""
    while True:
        trials = generator.integers(-(2**31), 2**31, _TRIALS).astype(np.int32)
        slots = np.sort((keys ^ trials[:, np.newaxis]) % len(index), axis=1)
        fits = (index[slots] < 0).all(axis=1) & (np.diff(slots, axis=1) > 0).all(axis=1)
        if fits.any():
            twist: np.int32 = trials[np.argmax(fits)]
            return twist


def _prime_from(number: int) -> int:
    """Returns the least prime that is not below a number."""
    while any(number % divisor == 0 for divisor in range(2, int(number**0.5) + 1)):
        number += 1
    return number
