"""Byte-pair encoding inside the TensorFlow graph: words in, token ids out.

A batch's distinct words lie behind one another in flat arrays, so that one step of the loop merges
the best pair of every word at once. The loop ends when no word has a pair left to merge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

END_OF_WORD = "</w>"
_NO_MERGE = np.int64(2**62)

# A word of this one byte stands for a special token; white space never occurs inside a real word.
BOS_MARK, EOS_MARK = b"\n", b"\r"


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
        self._byte_ids = tf.constant([inner, last], tf.int64)  # [is last byte of its word, byte]

        pairs = np.array([[_id_of(vocab, a), _id_of(vocab, b)] for a, b in merges], np.int64).reshape(-1, 2)
        self._merged_ids = tf.constant([_id_of(vocab, a + b) for a, b in merges] or [0], tf.int64)
        # A pair listed twice keeps its better rank.
        keys, ranks = np.unique(pairs[:, 0] * self._vocab_size + pairs[:, 1], return_index=True)
        # A table may not be empty: the key -1, which no pair has, keeps one without merges alive.
        keys, ranks = np.append(keys, -1), np.append(ranks, _NO_MERGE)
        self._ranks = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, ranks), int(_NO_MERGE))

    def encode(self, words: tf.Tensor) -> tf.RaggedTensor:
        """Encodes words.

        Args:
            words: string `[n]`, UTF-8, none empty.

        Returns:
            int32 RaggedTensor `[n, (tokens)]`.
        """
        # Each distinct word is merged once, however often a batch repeats it.
        distinct, index = tf.unique(words)
        num_words = tf.size(distinct, tf.int64)
        values = tf.io.decode_raw(tf.strings.reduce_join(distinct), tf.uint8)
        word_of = tf.repeat(tf.range(num_words), tf.strings.length(distinct))
        is_last = tf.concat([word_of[1:] != word_of[:-1], tf.ones_like(word_of[:1], tf.bool)], axis=0)
        symbols = tf.gather_nd(
            self._byte_ids, tf.stack([tf.cast(is_last, tf.int32), tf.cast(values, tf.int32)], axis=1)
        )
        symbols, word_of = self._merge_all(symbols, word_of, num_words)
        encoded = tf.RaggedTensor.from_value_rowids(
            tf.cast(symbols, tf.int32), word_of, nrows=num_words, validate=False
        )
        return tf.gather(encoded, index)

    def _merge_all(self, symbols: tf.Tensor, word_of: tf.Tensor, num_words: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        def step(symbols: tf.Tensor, word_of: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            keys = symbols[:-1] * self._vocab_size + symbols[1:]
            ranks = tf.where(word_of[:-1] == word_of[1:], self._ranks.lookup(keys), _NO_MERGE)
            best = tf.math.unsorted_segment_min(ranks, word_of[:-1], num_words)
            chosen = (ranks == tf.gather(best, word_of[:-1])) & (ranks != _NO_MERGE)
            chosen = _without_overlaps(chosen)
            merged = tf.gather(self._merged_ids, tf.where(chosen, ranks, 0))
            # The left symbol becomes the pair; the right one goes.
            symbols = tf.concat([tf.where(chosen, merged, symbols[:-1]), symbols[-1:]], axis=0)
            kept = tf.concat([tf.ones_like(symbols[:1], tf.bool), ~chosen], axis=0)
            return symbols[kept], word_of[kept], tf.reduce_any(chosen)

        symbols, word_of, _ = tf.while_loop(
            lambda _symbols, _word_of, merged_any: merged_any,
            step,
            (symbols, word_of, tf.constant(True)),
            shape_invariants=(tf.TensorShape([None]), tf.TensorShape([None]), tf.TensorShape([])),
        )
        return symbols, word_of


def _without_overlaps(chosen: tf.Tensor) -> tf.Tensor:
    """Keeps the 1st, 3rd, 5th ... of each run of neighbours: "aaaa" is two pairs, not three."""
    run = tf.cumsum(tf.cast(~chosen, tf.int64))  # equal within a run of chosen neighbours
    count = tf.cumsum(tf.cast(chosen, tf.int64))
    before_run = tf.math.unsorted_segment_min(count - tf.cast(chosen, tf.int64), run, tf.size(chosen, tf.int64) + 1)
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
