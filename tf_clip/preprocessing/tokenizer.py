"""`CLIPTokenizer`: strings to token ids, the same in eager code, `tf.function` and `tf.data`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf
import tensorflow_text

from tf_clip.checkpoints import hub
from tf_clip.preprocessing.byte_pair_encoding import (
    BOS_MARK,
    END_OF_WORD,
    EOS_MARK,
    BytePairEncoder,
    byte_symbols,
)
from tf_clip.preprocessing.vocabulary import DEFAULT_MAX_LENGTH, Vocabulary

if TYPE_CHECKING:
    from typing_extensions import Self

# Unicode white space; RE2's own \s is ASCII's and lacks the vertical tab.
_WHITE_SPACE = r"[\s\p{Z}\x0b\x{85}]+"
_WORD = r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"

_PADDINGS = (True, False, "longest", "max_length", "do_not_pad")
_RETURN_TENSORS = ("tf", "np", None)


class CLIPTokenizer(tf.Module):
    """Turns strings into the ids that CLIP's text tower reads.

    Texts are NFC-normalised and lower-cased, white space is collapsed, words are split by CLIP's
    rules and merged by rank; each text starts with `<|startoftext|>` and ends with `<|endoftext|>`.
    Either, written inside a text, is the special token itself.

    Args:
        vocab: from symbol to id, as in `vocab.json`.
        merges: pairs of symbols, best first, as in `merges.txt`.
        model_max_length: longest output, in tokens.
        bos_token, eos_token, pad_token: the special tokens, all in `vocab`. Hugging Face pads with
            the end token, OpenCLIP with id 0, `"!"`.

    Call arguments:
        text: a string, a list of strings, or a string tensor of rank 0 or 1. Invalid UTF-8 is
            replaced by U+FFFD.
        padding: True or `"longest"` pads to the longest text, `"max_length"` to `max_length`; False
            does not pad, so that all texts must have one length unless lists are asked for.
        truncation: cut longer texts to `max_length`, keeping the end token; False leaves them long.
        max_length: longest output, in tokens; None takes `model_max_length`.
        return_tensors: `"tf"`, `"np"`, or None for lists of Python integers.

    Returns:
        A dictionary with `input_ids` and `attention_mask` (1 keeps a token), int32 `[batch, length]`.

    Raises:
        TypeError: `text` is not made of strings.
        ValueError: an option is none of those above, or texts of several lengths are not padded.

    Source: transformers 5's CLIPTokenizer. Differences: padding and truncation are on by default,
    since the tower takes nothing else; one string gives a batch of one.
    """

    def __init__(
        self,
        vocab: Mapping[str, int],
        merges: Iterable[tuple[str, str]],
        *,
        model_max_length: int = DEFAULT_MAX_LENGTH,
        bos_token: str = "<|startoftext|>",
        eos_token: str = "<|endoftext|>",
        pad_token: str = "<|endoftext|>",
    ) -> None:
        super().__init__(name="clip_tokenizer")
        self._vocabulary = Vocabulary(vocab, tuple(merges), bos_token, eos_token, pad_token, model_max_length)
        self.model_max_length = model_max_length
        self.bos_token_id, self.eos_token_id, self.pad_token_id = vocab[bos_token], vocab[eos_token], vocab[pad_token]
        self._specials = (bos_token, eos_token)
        self._encoder = BytePairEncoder(vocab, self._vocabulary.merges, self.bos_token_id, self.eos_token_id)
        self._traced_encode = tf.function(
            self._encode_rows,
            input_signature=[
                tf.TensorSpec([None], tf.string),
                tf.TensorSpec([], tf.int32),
                tf.TensorSpec([], tf.int32),
            ],
        )

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        return max(self._vocabulary.symbols.values()) + 1

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, *, revision: str | None = None) -> Self:
        """Reads a checkpoint's tokenizer files.

        Args:
            name_or_path: a shipped name, a local folder or a Hub id.
            revision: branch, tag or commit on the Hub.

        Raises:
            FileNotFoundError: there is no such checkpoint, or it has no tokenizer.
            ValueError: a file is broken or belongs to another kind of tokenizer.
        """
        vocabulary = Vocabulary.read(hub.resolve_folder(name_or_path, revision))
        return cls(
            vocabulary.symbols,
            vocabulary.merges,
            model_max_length=vocabulary.model_max_length,
            bos_token=vocabulary.bos_token,
            eos_token=vocabulary.eos_token,
            pad_token=vocabulary.pad_token,
        )

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes `vocab.json`, `merges.txt` and `tokenizer_config.json` into a folder."""
        self._vocabulary.write(folder)

    def __call__(
        self,
        text: Any,
        padding: bool | str = True,
        truncation: bool = True,
        max_length: int | None = None,
        return_tensors: str | None = "tf",
    ) -> dict[str, Any]:
        """Tokenizes; see the class."""
        max_length = self.model_max_length if max_length is None else max_length
        _require_options(padding, truncation, max_length, return_tensors)
        texts = _as_string_tensor(text)
        longest = max_length if truncation else tf.int32.max
        pads_to = max_length if padding == "max_length" else 0
        ids, lengths = self._traced_encode(texts, longest, pads_to)

        if return_tensors is None and padding in (False, "do_not_pad"):
            rows = [row[:length].tolist() for row, length in zip(ids.numpy(), lengths.numpy(), strict=True)]
            return {"input_ids": rows, "attention_mask": [[1] * len(row) for row in rows]}
        if padding in (False, "do_not_pad") and tf.executing_eagerly() and len(set(lengths.numpy().tolist())) > 1:
            raise ValueError(
                "`padding` must be True or 'max_length' for texts of several lengths. "
                f"Received: padding={padding!r}, lengths in tokens {sorted(set(lengths.numpy().tolist()))}."
            )
        outputs = {"input_ids": ids, "attention_mask": tf.sequence_mask(lengths, tf.shape(ids)[1], tf.int32)}
        if return_tensors == "tf":
            return outputs
        arrays = {name: tensor.numpy() for name, tensor in outputs.items()}
        return arrays if return_tensors == "np" else {name: array.tolist() for name, array in arrays.items()}

    def tokenize(self, text: Any) -> tf.RaggedTensor:
        """Returns the ids of each text alone, without start, end, truncation and padding.

        Args:
            text: a string, a list of strings, or a string tensor of rank 0 or 1.

        Returns:
            int32 RaggedTensor `[batch, (tokens)]`.
        """
        texts = _as_string_tensor(text)
        texts = tf.strings.unicode_transcode(texts, "UTF-8", "UTF-8", errors="replace")
        texts = tf.strings.regex_replace(texts, _WHITE_SPACE, " ")
        # Special tokens are found before anything else is changed, and as written: an upper-case
        # "<|ENDOFTEXT|>" is ordinary text. The marks survive all that follows.
        for token, mark in zip(self._specials, (BOS_MARK, EOS_MARK), strict=True):
            texts = tf.strings.regex_replace(texts, re.escape(token), b" " + mark + b" ")
        texts = tensorflow_text.normalize_utf8(texts, "NFC")
        # The reference lower-cases letter by letter; ICU would turn a sigma that ends a word into another.
        texts = tf.strings.regex_replace(texts, "Σ", "σ")
        # tf.strings.lower ends a text at its first NUL; a tab, free by now, takes its place meanwhile.
        texts = tf.strings.lower(tf.strings.regex_replace(texts, r"\x00", "\t"), encoding="utf-8")
        texts = tf.strings.regex_replace(texts, r"\t", "\x00")
        texts = tf.strings.regex_replace(texts, _WORD, r"\0 ")
        words = tf.strings.split(texts, " ")
        words = tf.ragged.boolean_mask(words, words != "")
        return words.with_values(self._encoder.encode(words.values)).merge_dims(1, 2)

    def _encode_rows(self, texts: tf.Tensor, longest: tf.Tensor, pads_to: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns ids `[batch, length]` and each row's own length `[batch]`."""
        tokens = self.tokenize(texts)[:, : longest - 2]
        column = tf.ones([tf.shape(texts)[0], 1], tf.int32)
        rows = tf.concat([column * self.bos_token_id, tokens, column * self.eos_token_id], axis=1)
        lengths = tf.cast(rows.row_lengths(), tf.int32)
        width = tf.maximum(tf.reduce_max(tf.concat([lengths, [0]], axis=0)), pads_to)
        ids = rows.to_tensor(default_value=self.pad_token_id, shape=[None, None])
        missing = width - tf.shape(ids)[1]
        return tf.pad(ids, [[0, 0], [0, missing]], constant_values=self.pad_token_id), lengths

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
        symbol_of = self._vocabulary.symbol_of
        byte_of = {symbol: byte for byte, symbol in enumerate(byte_symbols())}
        skipped = {self.bos_token_id, self.eos_token_id, self.pad_token_id} if skip_special_tokens else set()
        text = b""
        for index in np.asarray(ids).tolist():
            if index in skipped:
                continue
            if index not in symbol_of:
                raise ValueError(
                    f"`ids` must be ids of the vocabulary. Received: {index}. Decode with the tokenizer that made them."
                )
            symbol = symbol_of[index]
            if index in (self.bos_token_id, self.eos_token_id):
                text += symbol.encode()
            else:
                text += bytes(byte_of[character] for character in symbol.removesuffix(END_OF_WORD))
                text += b" " if symbol.endswith(END_OF_WORD) else b""
        return text.decode("utf-8", errors="replace").strip()

    def batch_decode(self, ids: Any, skip_special_tokens: bool = False) -> list[str]:
        """Turns rows of ids back into strings; see `decode`."""
        return [self.decode(row, skip_special_tokens=skip_special_tokens) for row in ids]


def _as_string_tensor(text: Any) -> tf.Tensor:
    if not tf.is_tensor(text):
        texts: Sequence[Any] = (
            [text] if isinstance(text, (str, bytes)) else list(text) if _is_iterable(text) else [text]
        )
        for one in texts:
            if not isinstance(one, (str, bytes, np.str_, np.bytes_)):
                raise TypeError(
                    f"`text` must be a string or a list of strings. Received: text holding {one!r}. "
                    "Convert it with str()."
                )
        # Lone surrogates, which Python allows in a str, are not UTF-8: they become "?" rather than a crash.
        encoded = [one.encode("utf-8", errors="replace") if isinstance(one, str) else one for one in texts]
        text = tf.constant(encoded, tf.string, shape=[len(encoded)])
    if text.dtype != tf.string or text.shape.rank not in (0, 1):
        raise TypeError(
            "`text` must be a string tensor of rank 0 or 1. "
            f"Received: text of dtype {text.dtype.name} and shape {text.shape}. Flatten it first."
        )
    return tf.reshape(text, [-1])


def _is_iterable(value: Any) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, Mapping)


def _require_options(padding: Any, truncation: Any, max_length: int, return_tensors: Any) -> None:
    if padding not in _PADDINGS:
        raise ValueError(f"`padding` must be one of {_PADDINGS}. Received: padding={padding!r}. True is usual.")
    if not isinstance(truncation, bool):
        raise ValueError(f"`truncation` must be True or False. Received: truncation={truncation!r}. True is usual.")
    if max_length < 2:
        raise ValueError(
            f"`max_length` must leave room for the start and the end token. Received: max_length={max_length}. "
            "Use at least 2."
        )
    if return_tensors not in _RETURN_TENSORS:
        raise ValueError(
            f"`return_tensors` must be one of {_RETURN_TENSORS}. Received: return_tensors={return_tensors!r}. "
            "For JAX or PyTorch, take 'np' and convert."
        )
