"""`Utf8Tokenizer`: plain UTF-8 bytes to token ids, with what every LiteRT runtime has built in."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tf_clip.export.tflite.fixed_arrays import BLANK, placed
from tf_clip.export.tflite.fixed_nfc import MAX_SIZE
from tf_clip.export.tflite.fixed_words import BOS_CODE, EOS_CODE, FixedWords, FixedWordSplitter, found
from tf_clip.export.tflite.pair_merging import ENDS_WORD, NOTHING, PairMerging
from tf_clip.export.tflite.utf8_codec import decoded, encoded, encoded_lengths
from tf_clip.preprocessing.text.tokenizer import BytePairTokenizer

# NFC, lower case and U+FFFD make no byte more than three.
_GROWTH = 3


class Utf8Tokenizer:
    """A `CLIPTokenizer` as integer arithmetic on arrays of a fixed size, for graphs without strings.

    Args:
        tokenizer: whose ids come out, for every text.
        max_length: of the output, in tokens; None takes the tokenizer's `model_max_length`.

    Call arguments:
        utf8: uint8 `[size]`, the text's bytes; what is behind them does not matter. Invalid UTF-8 is replaced as
            Python's `errors="replace"` does. Work grows with the size, not with the text.
        length: int32 scalar, how many bytes the text has. Of one that has more than `size` the first bytes are a text
            of their own, without a last character that is not whole; its last word may be half of one.

    Returns:
        A dictionary: `input_ids` and `attention_mask`, int32 `[max_length]`, padded as
        `tokenizer(text, padding="max_length")`; `num_tokens`, an int32 scalar, with start and end token and without
        padding; `is_cut`, a bool scalar, whether tokens or bytes of the text were left out.

    Raises:
        ValueError: the tokenizer cleans texts in Python, finds special tokens in normalized text, has ids from 65534
            on, or special tokens that are not ASCII or overlap; `max_length` is below 2; `utf8` has no size, or
            one above 1920.

    Special tokens written in a text are special tokens, as the tokenizer has it. A text that takes more than `size`
    bytes once it is NFC and in lower case is no exception, only slower.
    """

    def __init__(self, tokenizer: BytePairTokenizer, max_length: int | None = None) -> None:
        if not tokenizer.runs_in_graphs:
            raise ValueError(
                "`tokenizer` must not clean texts. Received: a tokenizer with clean='openai', which is Python code. "
                "Load it without clean."
            )
        self._tokenizer = tokenizer
        self._max_length = tokenizer.model_max_length if max_length is None else max_length
        if self._max_length < 2:
            raise ValueError(
                "`max_length` must leave room for the start and the end token. "
                f"Received: max_length={self._max_length}. Use at least 2."
            )
        vocabulary = tokenizer.vocabulary
        if vocabulary.normalized_tokens:
            raise ValueError(
                "`tokenizer` must find special tokens as they are written. "
                f"Received: normalized_tokens={sorted(vocabulary.normalized_tokens)}, which are found in any case. "
                "Load it without them, or export the text encoder alone, and tokenize in the application."
            )
        self._specials = {vocabulary.bos_token: BOS_CODE, vocabulary.eos_token: EOS_CODE}
        _require_distinct(list(self._specials))
        self._words = FixedWordSplitter()
        self._merging = PairMerging(
            vocabulary.symbols, vocabulary.merges, tokenizer.bos_token_id, tokenizer.eos_token_id
        )

    def __call__(self, utf8: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
        """Tokenizes; see the class."""
        size = utf8.shape[0]
        if size is None or not 0 < size <= MAX_SIZE:
            raise ValueError(
                f"`utf8` must have a fixed size of 1 to {MAX_SIZE} bytes. Received: {size}. "
                "77 tokens are seldom more than 400 bytes."
            )
        values = tf.where(tf.range(size) < length, tf.cast(utf8, tf.int32), BLANK)
        is_cut = length > size
        codes = tf.cond(tf.reduce_max(values) < 0x80, lambda: values, lambda: decoded(values, is_cut))
        words = self._words(self._marked(codes))
        ids, count = self._tokens(words)
        return {**self._framed(ids, count), "is_cut": is_cut | (count > self._max_length - 2)}

    def _marked(self, codes: tf.Tensor) -> tf.Tensor:
        """Replaces each special token by a code of its own, and spaces."""

        def replaced() -> tf.Tensor:
            marked = codes
            for text, code in self._specials.items():
                begins = found(codes, text)
                count = tf.cumsum(tf.cast(begins, tf.int32))
                before = tf.concat([np.zeros(len(text), np.int32), count], axis=0)[: codes.shape[0]]
                marked = tf.where(count > before, tf.where(begins, code, BLANK), marked)
            return marked

        may_be = [tf.reduce_any(codes == ord(letter)) for letter in sorted({text[0] for text in self._specials})]
        return tf.cond(functools.reduce(tf.logical_or, may_be), replaced, lambda: codes)

    def _tokens(self, words: FixedWords) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the tokens of words that are kept, padded, and how many there were."""
        size = words.codes.shape[0]
        last = ENDS_WORD * tf.cast(words.is_last, tf.int32)
        lengths = encoded_lengths(words.codes) * tf.cast(tf.logical_not(words.is_space), tf.int32)

        def in_bytes() -> tf.Tensor:
            return tf.cond(
                tf.reduce_max(words.codes) < 0x80,
                lambda: tf.where(words.is_space, NOTHING, words.codes + last),
                lambda: encoded(words.codes, lengths, last, size, NOTHING),
            )

        ids, count = tf.cond(
            tf.reduce_sum(lengths) <= size,
            lambda: self._kept(*self._merging(in_bytes())),
            lambda: self._kept(*self._merging(encoded(words.codes, lengths, last, _GROWTH * size, NOTHING))),
        )
        return ids, count

    def _kept(self, ids: tf.Tensor, is_token: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        longest = self._max_length - 2
        number = tf.cumsum(tf.cast(is_token, tf.int32))
        count = number[-1]
        places = number - 1
        if self._tokenizer.truncation_side == "left":
            places -= tf.maximum(count - longest, 0)
        # One more than is kept, since the end token takes the place of what follows.
        places = tf.where(is_token & (places >= 0), places, longest + 1)
        return placed(ids, places, longest + 1, self._tokenizer.pad_token_id), count

    def _framed(self, ids: tf.Tensor, count: tf.Tensor) -> dict[str, tf.Tensor]:
        """Puts start and end around tokens, and padding on its side."""
        tokenizer, length = self._tokenizer, self._max_length
        place = tf.range(length)
        total = tf.minimum(count, length - 2) + 2
        ids = tf.where(place == total - 1, tokenizer.eos_token_id, tf.concat([[tokenizer.bos_token_id], ids], axis=0))
        is_kept = place < total
        if tokenizer.padding_side == "left":
            ids = tf.gather(ids, tf.math.floormod(place + total, length))
            is_kept = place >= length - total
        return {"input_ids": ids, "attention_mask": tf.cast(is_kept, tf.int32), "num_tokens": total}


def _require_distinct(specials: Sequence[str]) -> None:
    """Fails when two places of a text could both be special tokens, and overlap."""
    for text, other in itertools.product(specials, repeat=2):
        rests = [text[place:] for place in range(text == other, len(text))]
        if not text.isascii() or any(rest.startswith(other) or other.startswith(rest) for rest in rests):
            raise ValueError(
                "The special tokens must be ASCII, and none may overlap another or itself. "
                f"Received: {text!r} and {other!r}. "
                "Export the text encoder alone, and tokenize in the application."
            )
