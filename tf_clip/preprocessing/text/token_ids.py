"""What token ids stand for: back to strings, and the special tokens around them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_text

from tf_clip.preprocessing.text.byte_pair_encoding import END_OF_WORD, byte_symbols
from tf_clip.preprocessing.text.vocabulary import Vocabulary

_SPACES = r"[\t-\r\x1c- \x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000}]+"  # as str.strip


class TokenIds(tensorflow_text.Detokenizer):
    """Turns ids into strings and symbols, with the methods of Hugging Face's tokenizers.

    Args:
        vocabulary: the symbols, the merges and the special tokens.
        name: the module's name.

    Attributes:
        bos_token_id, eos_token_id, pad_token_id: the special tokens' ids.
    """

    def __init__(self, vocabulary: Vocabulary, name: str) -> None:
        super().__init__(name=name)
        self._vocabulary = vocabulary
        self.bos_token_id = vocabulary.symbols[vocabulary.bos_token]
        self.eos_token_id = vocabulary.symbols[vocabulary.eos_token]
        self.pad_token_id = vocabulary.symbols[vocabulary.pad_token]
        self._special_ids = frozenset((self.bos_token_id, self.eos_token_id, self.pad_token_id))
        self._pieces = _pieces(vocabulary)
        spoken = [b"" if index in self._special_ids else piece for index, piece in enumerate(self._pieces)]
        self._spoken = tf.constant(spoken)

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        return len(self._pieces)

    @property
    def vocabulary(self) -> Vocabulary:
        """The symbols, the merges and the special tokens."""
        return self._vocabulary

    def detokenize(self, input: Any) -> tf.Tensor:
        """Turns ids back into strings, inside a graph, too; special tokens are left out.

        Args:
            input: ids, integers, a Tensor or RaggedTensor of rank 1 at least.

        Returns:
            Strings, one dimension less.

        Raises:
            tf.errors.InvalidArgumentError: an id is not in the vocabulary.
        """
        if not (isinstance(input, tf.RaggedTensor) or tf.is_tensor(input)):
            input = tf.ragged.constant(input, tf.int32)
        pieces = tf.ragged.map_flat_values(lambda ids: tf.gather(self._spoken, ids), input)

        def as_text(joined: tf.Tensor) -> tf.Tensor:
            text = tf.strings.unicode_transcode(joined, "UTF-8", "UTF-8", errors="replace")
            return tf.strings.regex_replace(text, f"^{_SPACES}|{_SPACES}$", "")

        return tf.ragged.map_flat_values(as_text, tf.strings.reduce_join(pieces, axis=-1))

    def decode(self, ids: Any, skip_special_tokens: bool = False) -> str:
        """Turns one text's ids back into a string.

        Args:
            ids: integers `[length]`.
            skip_special_tokens: leave out start, end and padding.

        Returns:
            The text, lower-case and with a space after each word: `"a cat , isn 't it ?"`.

        Raises:
            ValueError: an id is not in the vocabulary.
        """
        skipped = self._special_ids if skip_special_tokens else ()
        kept = [index for index in np.asarray(ids).tolist() if index not in skipped]
        self._require_known(kept)
        return b"".join(self._pieces[index] for index in kept).decode("utf-8", errors="replace").strip()

    def batch_decode(self, ids: Any, skip_special_tokens: bool = False) -> list[str]:
        """Turns rows of ids back into strings; see `decode`."""
        return [self.decode(row, skip_special_tokens=skip_special_tokens) for row in ids]

    def convert_tokens_to_ids(self, tokens: str | Iterable[str]) -> int | list[int]:
        """Looks symbols up; an unknown one gets the end token's id, as in Hugging Face's.

        Args:
            tokens: one symbol of the vocabulary, such as `"cat</w>"`, or several.
        """
        if isinstance(tokens, str):
            return self._vocabulary.symbols.get(tokens, self.eos_token_id)
        return [self._vocabulary.symbols.get(token, self.eos_token_id) for token in tokens]

    def convert_ids_to_tokens(self, ids: int | Iterable[int]) -> str | list[str]:
        """Looks ids up: one, or several.

        Raises:
            ValueError: an id is not in the vocabulary.
        """
        several = np.atleast_1d(np.asarray(ids)).tolist()
        self._require_known(several)
        tokens = [self._vocabulary.symbol_of[index] for index in several]
        return tokens if isinstance(ids, Iterable) and np.ndim(np.asarray(ids)) else tokens[0]

    def build_inputs_with_special_tokens(
        self, token_ids_0: Sequence[int], token_ids_1: Sequence[int] | None = None
    ) -> list[int]:
        """Puts start and end around ids; a second text follows after an end of its own."""
        ids = [self.bos_token_id, *token_ids_0, self.eos_token_id]
        return ids if token_ids_1 is None else [*ids, self.eos_token_id, *token_ids_1, self.eos_token_id]

    def get_special_tokens_mask(
        self,
        token_ids_0: Sequence[int],
        token_ids_1: Sequence[int] | None = None,
        already_has_special_tokens: bool = False,
    ) -> list[int]:
        """Returns 1 for each id that is a special token, and 0 for the others.

        Args:
            token_ids_0: ids of a text.
            token_ids_1: ids of a second one.
            already_has_special_tokens: whether `token_ids_0` has its start and end token. False asks about what
                `build_inputs_with_special_tokens` returns.

        Raises:
            ValueError: there is a second text, though the first has its special tokens.
        """
        if not already_has_special_tokens:
            second = [] if token_ids_1 is None else [1, *[0] * len(token_ids_1), 1]
            return [1, *[0] * len(token_ids_0), 1, *second]
        if token_ids_1 is not None:
            raise ValueError(
                "`token_ids_1` must be None when `already_has_special_tokens`. Received: two texts. "
                "Pass all ids as token_ids_0."
            )
        return [int(index in self._special_ids) for index in token_ids_0]

    def create_token_type_ids_from_sequences(
        self, token_ids_0: Sequence[int], token_ids_1: Sequence[int] | None = None
    ) -> list[int]:
        """Returns a zero for each id of `build_inputs_with_special_tokens`: there are no token types."""
        return [0] * len(self.build_inputs_with_special_tokens(token_ids_0, token_ids_1))

    def _require_known(self, ids: Iterable[int]) -> None:
        unknown = [index for index in ids if index not in self._vocabulary.symbol_of]
        if unknown:
            raise ValueError(
                f"`ids` must be ids of the vocabulary. Received: {unknown[0]}. Use the tokenizer that made them."
            )


def _pieces(vocabulary: Vocabulary) -> list[bytes]:
    """Returns the bytes that each id stands for in a decoded text."""
    byte_of = {symbol: byte for byte, symbol in enumerate(byte_symbols())}
    specials = (vocabulary.bos_token, vocabulary.eos_token)
    pieces = [b""] * (max(vocabulary.symbols.values()) + 1)
    for symbol, index in vocabulary.symbols.items():
        letters = symbol.removesuffix(END_OF_WORD)
        if symbol in specials or not all(letter in byte_of for letter in letters):
            pieces[index] = symbol.encode()
        else:
            space = b" " if symbol.endswith(END_OF_WORD) else b""
            pieces[index] = bytes(byte_of[letter] for letter in letters) + space
    return pieces
