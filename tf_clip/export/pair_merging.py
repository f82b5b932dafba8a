"""Byte-pair encoding on arrays of a fixed size, with what every LiteRT runtime has built in.

Each step of the loop merges the best pair of every piece at once; a piece is a part of a word that no token of the
vocabulary reaches out of. Symbols stay where their first byte is, and know where the next one is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import tensorflow as tf

from tf_clip.export.fixed_arrays import shifted
from tf_clip.export.pair_hash import PairHash
from tf_clip.preprocessing.byte_pair_encoding import END_OF_WORD, byte_symbols

ENDS_WORD = 256
"""Is added to the last byte of a word."""
NOTHING = 512
"""Stands where no byte is."""
BOS_BYTE, EOS_BYTE = 0xFF, 0xFE
"""Bytes that UTF-8 does not have: the start and the end token, each a word of its own."""

# Of a pair's priority in the loop: its rank is above the bits of its place.
_PLACE_BITS = 12
MAX_BYTES = 1 << _PLACE_BITS
_MAX_SYMBOLS = 65535


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
        self._worst = (max(ranks.values(), default=0) + 1) << _PLACE_BITS
        priorities = np.array([*(rank << _PLACE_BITS for rank in ranks.values()), self._worst], np.int32)
        merged = np.array([*(vocab[left + right] for left, right in ranks), self._none], np.int32)
        self._priorities = priorities[self._hash.index]
        self._merged = merged[self._hash.index] - self._middle

    def __call__(self, values: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Encodes words.

        Args:
            values: int32 `[n]`, n at most `MAX_BYTES`: bytes, `ENDS_WORD` more for the last of a word, or `NOTHING`.

        Returns:
            int32 `[n]`, the id of the token that begins at each place, and bool `[n]`, whether one does.
        """
        size = values.shape[0]
        place = tf.range(size)
        pair = tf.minimum(values, ENDS_WORD) * (NOTHING + 1) + shifted(values, 1, NOTHING)
        piece = tf.cumsum(tf.cast(tf.gather(self._borders, pair), tf.int32), exclusive=True)

        def step(ids: tf.Tensor, following: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            priority, merged = self._looked_up(ids * self._base + tf.gather(ids, following))
            priority += place  # of equal ones the first
            best = tf.gather(tf.math.unsorted_segment_min(priority, piece, size), piece)
            chosen = priority == tf.minimum(best, self._worst - 1)
            is_gone = tf.math.unsorted_segment_max(tf.cast(chosen, tf.int32), following, size) > 0
            ids = tf.where(is_gone, self._none - self._middle, tf.where(chosen, merged, ids))
            following = tf.where(chosen, tf.gather(following, following), following)
            return ids, following, tf.reduce_any(chosen)

        # The last one is followed by itself; it ends a word, or is none, and has no pair to merge.
        start = (tf.gather(self._byte_ids, values), tf.minimum(place + 1, size - 1), tf.constant(True))
        ids, _, _ = tf.while_loop(lambda *state: state[-1], step, start)
        return ids + self._middle, ids != self._none - self._middle

    def _looked_up(self, keys: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns pairs' priorities, but for their places, and what becomes of them."""
        twists = tf.gather(self._hash.twists, tf.math.floormod(keys, len(self._hash.twists)))
        slots = tf.math.floormod(tf.bitwise.bitwise_xor(keys, twists), len(self._hash.keys))
        is_known = tf.gather(self._hash.keys, slots) == keys
        return tf.where(is_known, tf.gather(self._priorities, slots), self._worst), tf.gather(self._merged, slots)


def _borders(pairs: Iterable[tuple[str, str]], symbols: list[str]) -> np.ndarray:
    """Returns which two neighbouring bytes no token reaches across, bool `[257 * 513]`.

    The first one is a byte, or `ENDS_WORD` for any that does, the second as in a text.
    """
    byte_of = {symbol: byte for byte, symbol in enumerate(symbols)}
    is_border = np.ones((ENDS_WORD + 1, NOTHING + 1), bool)
    for left, right in pairs:
        is_last = len(right) == 1 + len(END_OF_WORD) and right.endswith(END_OF_WORD)
        is_border[byte_of[left[-1]], byte_of[right[0]] + ENDS_WORD * is_last] = False
    return is_border.reshape(-1)
