"""Byte-pair encoding inside the TensorFlow graph: words in, token ids out.

The words lie behind one another in flat arrays, so that one step of the loop merges the best pair of every word at
once. Where no token of the vocabulary can ever reach across two neighbors, a word falls into pieces that go on
independently: a word of ten million random letters is done in some thirty steps. The loop ends when no piece has a
pair left to merge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

END_OF_WORD = "</w>"

# A word of this one byte stands for a special token; white space never occurs inside a real word.
BOS_MARK, EOS_MARK = b"\n", b"\r"

# In place of a pair's rank: not to be merged yet, or never to be part of one token.
_NOT_NOW, _NEVER = np.int64(2**61), np.int64(2**62)


def byte_symbols() -> list[str]:
    """Returns the printable character that stands for each byte 0..255 in a vocabulary.

    Source: Radford et al. 2019 (GPT-2): printable bytes stand for themselves, the others for the
    characters from U+0100 on.
    """
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAC + 1), *range(0xAE, 0xFF + 1)]
    symbols = {byte: chr(byte) for byte in printable}
    others = (byte for byte in range(256) if byte not in symbols)
    symbols.update({byte: chr(256 + index) for index, byte in enumerate(others)})
    return [symbols[byte] for byte in range(256)]


class BytePairEncoder(tf.Module):
    """Merges a word's bytes by rank, as the vocabulary's merge list says.

    Args:
        vocab: from symbol to id; must hold every byte symbol, with and without `</w>`.
        merges: pairs of symbols, best first.
        bos_token_id, eos_token_id: ids that `BOS_MARK` and `EOS_MARK` encode to.

    Raises:
        ValueError: the vocabulary lacks a symbol that a byte or a merge needs.
    """

    def __init__(
        self,
        vocab: Mapping[str, int],
        merges: Sequence[tuple[str, str]],
        bos_token_id: int,
        eos_token_id: int,
    ) -> None:
        super().__init__(name="byte_pair_encoder")
        self._vocab_size = max(vocab.values()) + 1
        symbols = byte_symbols()
        inner = [_id_of(vocab, symbol) for symbol in symbols]
        last = [_id_of(vocab, symbol + END_OF_WORD) for symbol in symbols]
        last[BOS_MARK[0]], last[EOS_MARK[0]] = bos_token_id, eos_token_id
        self._byte_ids = tf.constant([*inner, *last], tf.int64)  # 256 more for the last byte of a word

        ends_word = np.zeros(self._vocab_size, bool)
        ends_word[[index for symbol, index in vocab.items() if symbol.endswith(END_OF_WORD)]] = True
        ends_word[[bos_token_id, eos_token_id]] = True
        self._ends_word = tf.constant(ends_word)

        merges = [pair for pair in merges if not pair[0].endswith(END_OF_WORD)]  # no word goes on after its end
        pairs = [(_id_of(vocab, left), _id_of(vocab, right)) for left, right in merges]
        merged = [_id_of(vocab, left + right) for left, right in merges]
        self._merged_ids = tf.constant(merged or [0], tf.int64)
        ranks = _ranks(pairs, merged)
        # A table may not be empty: the key -1, which no pair has, keeps one without merges alive.
        keys = np.array([left * self._vocab_size + right for left, right in ranks] + [-1], np.int64)
        values = np.array([*ranks.values(), _NEVER], np.int64)
        self._ranks = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, values), int(_NEVER))

    def encode(self, words: tf.Tensor) -> tf.RaggedTensor:
        """Encodes words.

        Args:
            words: string `[n]`, UTF-8, none empty.

        Returns:
            int32 RaggedTensor `[n, (tokens)]`.
        """
        values = tf.cast(tf.io.decode_raw(tf.strings.reduce_join(words), tf.uint8), tf.int64)
        ends = tf.cumsum(tf.strings.length(words))
        # The last byte of each word has symbols of its own.
        is_last = tf.scatter_nd(ends[:, tf.newaxis] - 1, 256 * tf.ones_like(ends, tf.int64), tf.shape(values))
        symbols = self._merge_all(tf.gather(self._byte_ids, values + is_last))
        row_ends = tf.reshape(tf.where(tf.gather(self._ends_word, symbols)), [-1]) + 1
        return tf.RaggedTensor.from_row_splits(
            tf.cast(symbols, tf.int32), tf.concat([[0], row_ends], axis=0), validate=False
        )

    def _merge_all(self, symbols: tf.Tensor) -> tf.Tensor:
        def step(symbols: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            left = symbols[:-1]
            # Nothing is merged with what follows the end of a word.
            ranks = self._ranks.lookup(left * self._vocab_size + symbols[1:])
            piece_of = tf.cumsum(tf.cast(ranks == _NEVER, tf.int32))  # a border belongs to the piece after it
            best = tf.math.segment_min(ranks, piece_of)
            chosen = _without_overlaps((ranks == tf.gather(best, piece_of)) & (ranks < _NOT_NOW))
            merged = tf.gather(self._merged_ids, tf.where(chosen, ranks, 0))
            # The left symbol becomes the pair; the right one goes.
            symbols = tf.concat([tf.where(chosen, merged, left), symbols[-1:]], axis=0)
            kept = tf.where(tf.concat([[True], ~chosen], axis=0))
            return tf.gather(symbols, tf.reshape(kept, [-1])), tf.reduce_any(chosen)

        return tf.while_loop(
            lambda _symbols, merged_any: merged_any,
            step,
            (symbols, tf.size(symbols) > 1),
            shape_invariants=(tf.TensorShape([None]), tf.TensorShape([])),
        )[0]


def _ranks(pairs: Sequence[tuple[int, int]], merged: Sequence[int]) -> dict[tuple[int, int], int]:
    """Returns the rank of each pair that is merged, and `_NOT_NOW` for those that a token can reach across.

    A token reaches across two neighbors if it is merged from a pair whose left half ends with the first, and whose
    right half begins with the second, at some step of their own merging.
    """
    made_of: dict[int, list[tuple[int, int]]] = {}
    for pair, token in zip(pairs, merged, strict=True):
        made_of.setdefault(token, []).append(pair)
    outer: tuple[dict[int, set[int]], dict[int, set[int]]] = ({}, {})

    def begins_or_ends_with(token: int, side: int) -> set[int]:
        if token not in outer[side]:
            found = {token}
            for pair in made_of.get(token, ()):
                found |= begins_or_ends_with(pair[side], side)
            outer[side][token] = found
        return outer[side][token]

    ranks = {
        (left, right): int(_NOT_NOW)
        for pair in set(pairs)
        for left in begins_or_ends_with(pair[0], 1)
        for right in begins_or_ends_with(pair[1], 0)
    }
    # A pair listed twice keeps its better rank.
    ranks.update({pair: rank for rank, pair in reversed(list(enumerate(pairs)))})
    return ranks


def _without_overlaps(chosen: tf.Tensor) -> tf.Tensor:
    """Keeps the 1st, 3rd, 5th ... of each run of neighbors: "aaaa" is two pairs, not three."""
    run = tf.cumsum(tf.cast(~chosen, tf.int32))  # equal within a run of chosen neighbors
    count = tf.cumsum(tf.cast(chosen, tf.int32))
    before_run = tf.math.segment_min(count - tf.cast(chosen, tf.int32), run)
    position_in_run = count - tf.gather(before_run, run)  # from 1
    return chosen & (position_in_run % 2 == 1)


def _id_of(vocab: Mapping[str, int], symbol: str) -> int:
    try:
        return vocab[symbol]
    except KeyError:
        raise ValueError(
            f"`vocab` must hold every byte symbol and every merge's parts and result. Received: no {symbol!r}. "
            "Use the vocab.json and merges.txt of one checkpoint."
        ) from None
