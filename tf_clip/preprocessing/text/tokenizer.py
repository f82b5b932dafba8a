"""`BytePairTokenizer`: strings to token ids, the same in eager code, `tf.function`, `tf.data` and a served graph."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import tensorflow as tf
import tensorflow_text

from tf_clip.checkpoints import hub
from tf_clip.preprocessing.return_kinds import RETURN_TENSORS, converter
from tf_clip.preprocessing.text.byte_pair_encoding import BOS_MARK, EOS_MARK, BytePairEncoder
from tf_clip.preprocessing.text.offsets import byte_offsets
from tf_clip.preprocessing.text.special_tokens import may_overlap
from tf_clip.preprocessing.text.token_ids import TokenIds
from tf_clip.preprocessing.text.vocabulary import SIDES, Vocabulary
from tf_clip.preprocessing.text.words import WordSplitter, places

if TYPE_CHECKING:
    from typing_extensions import Self

_PADDINGS = (True, False, "longest", "max_length", "do_not_pad")
_TRUNCATIONS = (True, False, "longest_first", "only_first", "do_not_truncate")
_ASCII_SPACE = r"[\t\n\v\f\r]"
_UNKNOWN = -1


class BytePairTokenizer(TokenIds, tensorflow_text.TokenizerWithOffsets):
    """Turns strings into token ids by the byte-pair encoding of OpenAI's CLIP.

    Texts are NFC-normalized and lower-cased, white space is collapsed, words are split by CLIP's
    rules and merged by rank; each text starts with `bos_token` and ends with `eos_token`. Either of them,
    written inside a text, is the special token itself.

    A family's tokenizer is a subclass that states its own `defaults`.

    Args:
        vocab: from symbol to id, as in `vocab.json`.
        merges: pairs of symbols, best first, as in `merges.txt`.
        model_max_length: longest output, in tokens. This argument and those below take the class's `defaults` for None.
        bos_token, eos_token, pad_token: the special tokens, all in `vocab`. Hugging Face pads CLIP's texts with
            the end token, OpenCLIP with id 0, `"!"`.
        padding: how far a call pads unless it says otherwise, `"longest"` or `"max_length"`.
        padding_side, truncation_side: `"right"` or `"left"`.
        normalized_tokens: which of `bos_token` and `eos_token` are found in normalized text, and so in any case; the
            others are found only as they are written. Files call these `"normalized": true`.
        model_input_names: what a call returns, `"input_ids"` with or without `"attention_mask"`.
        clean: None, or `"openai"` to repair broken encodings and unescape HTML first, as OpenAI's own
            tokenizer does. That is Python code (`pip install "tf_clip[clean]"`): string tensors are refused.

    Call arguments:
        text: a string, a list of strings, or a string tensor of rank 0 or 1. Invalid UTF-8 is
            replaced by U+FFFD.
        padding: True or `"longest"` pads to the longest text, `"max_length"` to `max_length`; False
            does not pad, so that all texts must have one length unless lists are asked for. None takes the
            tokenizer's own.
        truncation: cut longer texts to `max_length`, keeping start and end token; False leaves them long.
        max_length: longest output, in tokens; None takes `model_max_length`.
        padding_side: None takes the tokenizer's own.
        add_special_tokens: put start and end around each text.
        return_tensors: `"tf"`, `"np"`, `"jax"`, `"pt"`, or None for lists of Python integers.

    Returns:
        A dictionary of what `model_input_names` lists: `input_ids`, and `attention_mask` (1 keeps a token), int32
        `[batch, length]`.

    Raises:
        TypeError: `text` is not made of strings.
        ValueError: an option is none of those above, or texts of several lengths are not padded (in a graph:
            `tf.errors.InvalidArgumentError`).

    Source: transformers 5's CLIPTokenizer, whose ids these are for every string. Differences: padding and truncation
    are on by default, since the tower takes nothing else; one string gives a batch of one.
    """

    defaults: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    """A family's own values of the arguments, where neither a caller nor a file gives them."""
    hugging_face_class: ClassVar[str] = "PreTrainedTokenizerFast"
    """The class that transformers reads the saved files with."""

    def __init__(
        self,
        vocab: Mapping[str, int],
        merges: Iterable[tuple[str, str]],
        *,
        model_max_length: int | None = None,
        bos_token: str | None = None,
        eos_token: str | None = None,
        pad_token: str | None = None,
        padding: str | None = None,
        padding_side: str | None = None,
        truncation_side: str | None = None,
        normalized_tokens: Iterable[str] | None = None,
        model_input_names: Sequence[str] | None = None,
        clean: str | None = None,
    ) -> None:
        options: dict[str, Any] = {
            "model_max_length": model_max_length,
            "bos_token": bos_token,
            "eos_token": eos_token,
            "pad_token": pad_token,
            "padding": padding,
            "padding_side": padding_side,
            "truncation_side": truncation_side,
            "normalized_tokens": None if normalized_tokens is None else frozenset(normalized_tokens),
            "model_input_names": None if model_input_names is None else tuple(model_input_names),
        }
        given = {name: value for name, value in options.items() if value is not None}
        vocabulary = Vocabulary(vocab, tuple(merges), **{**self.defaults, **given})
        super().__init__(vocabulary, name="byte_pair_tokenizer")
        self.model_max_length, self.model_input_names = vocabulary.model_max_length, vocabulary.model_input_names
        self.padding, self.padding_side = vocabulary.padding, vocabulary.padding_side
        self.truncation_side = vocabulary.truncation_side
        self._clean = _cleaner(clean)
        marks = {vocabulary.bos_token: BOS_MARK, vocabulary.eos_token: EOS_MARK}
        in_normalized = vocabulary.normalized_tokens
        # The longer token first, in case it begins with the other.
        as_written = sorted((token for token in marks if token not in in_normalized), key=len, reverse=True)
        self._marks = [(token, marks[token]) for token in as_written]
        self._marks_overlap = len(as_written) > 1 and may_overlap(as_written)
        self._splitter = WordSplitter({token: mark for token, mark in marks.items() if token in in_normalized})
        self._encoder = BytePairEncoder(vocab, vocabulary.merges, self.bos_token_id, self.eos_token_id)
        self._whole_words = self._find_whole_words()
        # How many bytes of its word a token covers: without the space after it; a mark is one byte.
        is_mark = (self.bos_token_id, self.eos_token_id).__contains__
        lengths = [1 if is_mark(index) else len(piece.rstrip(b" ")) for index, piece in enumerate(self._pieces)]
        self._lengths = tf.constant(lengths, tf.int32)
        # AutoGraph has nothing to translate here, and would take most of a first call's time.
        self._traced_encode = tf.function(
            self._encode_rows,
            autograph=False,
            input_signature=[
                tf.TensorSpec([None], tf.string),
                tf.TensorSpec([], tf.int32),
                tf.TensorSpec([], tf.int32),
                tf.TensorSpec([], tf.bool),
                tf.TensorSpec([], tf.bool),
            ],
        )

    @property
    def runs_in_graphs(self) -> bool:
        """Whether string tensors can be tokenized: not with `clean`."""
        return self._clean is None

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path, *, revision: str | None = None, clean: str | None = None
    ) -> Self:
        """Reads a checkpoint's tokenizer files.

        Args:
            name_or_path: a shipped name, a local folder or a Hub id.
            revision: branch, tag or commit on the Hub.
            clean: see the class.

        Raises:
            FileNotFoundError: there is no such checkpoint, or it has no tokenizer.
            ValueError: a file is broken or belongs to another kind of tokenizer.
        """
        return cls.from_folder(hub.resolve_folder(name_or_path, revision), clean=clean)

    @classmethod
    def from_folder(cls, folder: Path, *, clean: str | None = None) -> Self:
        """Reads the tokenizer files of a local folder; see `from_pretrained`."""
        vocabulary = Vocabulary.read(folder, cls.defaults)
        options = {name: value for name, value in vars(vocabulary).items() if name not in ("symbols", "merges")}
        return cls(vocabulary.symbols, vocabulary.merges, clean=clean, **options)

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes `vocab.json`, `merges.txt`, `tokenizer.json` and `tokenizer_config.json` into a folder."""
        self._vocabulary.write(folder, self.hugging_face_class, self.defaults)

    def save_vocabulary(self, save_directory: str | Path, filename_prefix: str | None = None) -> tuple[str, str]:
        """Writes the symbols and the merges alone.

        Args:
            save_directory: a folder; made when missing.
            filename_prefix: put before both names, with a hyphen.

        Returns:
            The paths of `vocab.json` and `merges.txt`.
        """
        return self._vocabulary.write_symbols(save_directory, filename_prefix)

    def __call__(
        self,
        text: Any,
        padding: bool | str | None = None,
        truncation: bool | str = True,
        max_length: int | None = None,
        return_tensors: str | None = "tf",
        *,
        padding_side: str | None = None,
        add_special_tokens: bool = True,
    ) -> dict[str, Any]:
        """Tokenizes; see the class."""
        padding = self.padding if padding is None else padding
        max_length = self.model_max_length if max_length is None else max_length
        side = self.padding_side if padding_side is None else padding_side
        _require_options(padding, truncation, max_length, return_tensors, side)
        is_padded, is_cut = padding not in (False, "do_not_pad"), truncation not in (False, "do_not_truncate")
        longest = max_length if is_cut else tf.int32.max
        pads_to = max_length if padding == "max_length" else 0
        convert = dict if return_tensors in ("tf", None) else converter(return_tensors)
        texts = _as_string_tensor(text, self._clean)
        ids, mask = self._traced_encode(texts, longest, pads_to, side == "left", add_special_tokens)
        if not is_padded and return_tensors is None:
            rows = [row[keep].tolist() for row, keep in zip(ids.numpy(), mask.numpy() > 0, strict=True)]
            outputs = {"input_ids": rows, "attention_mask": [[1] * len(row) for row in rows]}
        elif return_tensors is None:
            outputs = {"input_ids": ids.numpy().tolist(), "attention_mask": mask.numpy().tolist()}
        else:
            ids = ids if is_padded else _require_one_length(ids, mask, padding)
            outputs = {"input_ids": ids, "attention_mask": mask}
        return convert({name: outputs[name] for name in self.model_input_names})

    def encode(
        self,
        text: str,
        padding: bool | str = False,
        truncation: bool | str = False,
        max_length: int | None = None,
        *,
        add_special_tokens: bool = True,
    ) -> list[int]:
        """Returns one text's ids; as in Hugging Face's, neither padded nor cut unless asked for."""
        if not isinstance(text, (str, bytes)):
            raise TypeError(f"`text` must be one string. Received: {text!r}. For several, call batch_encode.")
        rows = self.batch_encode([text], padding, truncation, max_length, add_special_tokens=add_special_tokens)
        ids: list[int] = rows["input_ids"][0]
        return ids

    def batch_encode(
        self,
        texts: Iterable[str],
        padding: bool | str = False,
        truncation: bool | str = False,
        max_length: int | None = None,
        return_tensors: str | None = None,
        *,
        padding_side: str | None = None,
        add_special_tokens: bool = True,
    ) -> dict[str, Any]:
        """Calls the tokenizer with Hugging Face's defaults: lists, neither padded nor cut."""
        return self(
            texts,
            padding,
            truncation,
            max_length,
            return_tensors,
            padding_side=padding_side,
            add_special_tokens=add_special_tokens,
        )

    def tokenize(self, input: Any) -> tf.RaggedTensor:
        """Returns the ids of each text alone, without start, end, truncation and padding.

        Args:
            input: strings, as a Tensor or RaggedTensor of any rank.

        Returns:
            int32, one more dimension: a RaggedTensor, or a Tensor for a single string.
        """
        texts, shaped = _flattened(input)
        return shaped(self._tokens(texts))

    def tokenize_with_offsets(self, input: Any) -> tuple[tf.RaggedTensor, tf.RaggedTensor, tf.RaggedTensor]:
        """Returns the ids of each text and where in it they come from.

        Args:
            input: strings, as a Tensor or RaggedTensor of any rank.

        Returns:
            What `tokenize` returns, and int64 of the same shape: the first byte of each token and the byte after its
            last. Characters that NFC merges are one; a token that is part of a character has all of its bytes.
        """
        texts, shaped = _flattened(input)
        marked = self._marked(tf.strings.regex_replace(texts, _ASCII_SPACE, " "))
        words = self._splitter(marked)
        tokens = self._encoder.encode(words.words)
        lengths = tf.gather(self._lengths, tokens.values)
        starts, ends = byte_offsets(marked, words.characters, lengths, self._marks)
        splits = tf.gather(tokens.row_splits, words.row_splits)
        rows = tf.RaggedTensor.from_row_splits(tokens.values, splits, validate=False)
        return shaped(rows), shaped(rows.with_values(starts)), shaped(rows.with_values(ends))

    def _encode_rows(
        self, texts: tf.Tensor, longest: tf.Tensor, pads_to: tf.Tensor, pads_left: tf.Tensor, adds_special: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns `input_ids` and `attention_mask`, int32 `[batch, length]`."""
        rows = self._tokens(texts)
        added = tf.cast(adds_special, tf.int32)
        both = added + added
        splits = tf.cast(rows.row_splits, tf.int32)
        begin, end = splits[:-1], splits[1:]
        kept = tf.minimum(end - begin, longest - both)
        begin = end - kept if self.truncation_side == "left" else begin
        length = kept + both
        width = tf.maximum(tf.reduce_max(length), pads_to)  # without texts, reduce_max is the least integer
        # Each cell's position in its own text, from 0, the start token's. Below 0 and beyond the end is padding.
        shift = tf.where(pads_left, width - length, 0)
        place = tf.range(width) - shift[:, tf.newaxis]
        length = length[:, tf.newaxis]
        is_kept = (place >= 0) & (place < length)
        inside = (place >= added) & (place < length - added)
        special = tf.where(is_kept, tf.where(place == 0, 0, 1), 2)
        index = tf.where(inside, place + (begin - added + 3)[:, tf.newaxis], special)
        specials = tf.constant([self.bos_token_id, self.eos_token_id, self.pad_token_id], tf.int32)
        return tf.gather(tf.concat([specials, rows.values], axis=0), index), tf.cast(is_kept, tf.int32)

    def _tokens(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Encodes texts `[n]`: each distinct piece between white space once, and known words by one look-up."""
        indices, chunks, shape = tf.raw_ops.StringSplitV2(input=texts, sep="")
        distinct, index = tf.unique(chunks)
        known = self._whole_words.lookup(tf.strings.lower(distinct))
        rows = tf.gather(_filled(distinct, known, self._split_and_merge), index)
        # Where each text begins among all pieces.
        splits = tf.raw_ops.LowerBound(
            sorted_inputs=tf.transpose(indices[:, :1]), values=tf.range(shape[0] + 1)[tf.newaxis], out_type=tf.int64
        )
        return tf.RaggedTensor.from_row_splits(rows.values, tf.gather(rows.row_splits, splits[0]), validate=False)

    def _split_and_merge(self, texts: tf.Tensor) -> tf.RaggedTensor:
        """Encodes texts `[n]`."""
        words = self._splitter(self._marked(texts))
        rows = _filled(words.words, self._whole_words.lookup(words.words), self._encoder.encode)
        return tf.RaggedTensor.from_row_splits(
            rows.values, tf.gather(rows.row_splits, words.row_splits), validate=False
        )

    def _marked(self, texts: tf.Tensor) -> tf.Tensor:
        """Replaces special tokens that are found as they are written; this comes before normalization."""
        frames = ("{}", "{}")
        if self._marks_overlap:
            # One pass from the left finds both: the first token becomes "token\v\f", the second "\vtoken\f".
            either = "|".join(f"({re.escape(token)})" for token, _ in self._marks)
            texts = tf.strings.regex_replace(texts, either, "\\1\v\\2\f")
            frames = ("{}\v\f", "\v{}\f")
        for (token, mark), frame in zip(self._marks, frames, strict=False):
            texts = tf.strings.regex_replace(texts, re.escape(frame.format(token)), mark)
        return texts

    def _find_whole_words(self) -> tf.lookup.StaticHashTable:
        """Makes the table of words that are one token, and of the marks.

        An entry counts only if the merges make it one token, too; some vocabularies have entries that no text gives.
        """
        none = tf.lookup.KeyValueTensorInitializer([b""], tf.constant([_UNKNOWN], tf.int64))
        self._whole_words = tf.lookup.StaticHashTable(none, _UNKNOWN)
        # A piece with a space at its end is the end of a word. A word contains no white space.
        entries = {piece[:-1]: index for index, piece in enumerate(self._pieces) if piece.endswith(b" ")}
        entries = {word: index for word, index in entries.items() if word.split() == [word]}
        rows = self._split_and_merge(tf.constant(list(entries), tf.string, shape=[len(entries)]))
        is_whole = (rows.row_lengths() == 1).numpy()
        tokens = tf.gather(rows.values, tf.minimum(rows.row_starts(), tf.size(rows.values, tf.int64) - 1)).numpy()
        # Words are also looked up in lower case, so an entry must not contain a special token in any case.
        specials = [token.lower().encode() for token, _ in self._marks]
        whole = {
            word: index
            for (word, index), is_one, token in zip(entries.items(), is_whole, tokens, strict=True)
            if is_one and token == index and not any(special in word for special in specials)
        }
        whole |= {BOS_MARK: self.bos_token_id, EOS_MARK: self.eos_token_id}
        keys, values = tf.constant(list(whole)), tf.constant(list(whole.values()), tf.int64)
        return tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, values), _UNKNOWN)


def _filled(strings: tf.Tensor, known: tf.Tensor, encode: Callable[[tf.Tensor], tf.RaggedTensor]) -> tf.RaggedTensor:
    """Returns the tokens of strings, of which some are known to be one token, and the others are to be encoded.

    Args:
        strings: string `[n]`.
        known: int64 `[n]`, an id or `_UNKNOWN`.
        encode: from string `[m]` to int32 RaggedTensor `[m, (tokens)]`.
    """
    is_known = known != _UNKNOWN
    ids = tf.cast(known, tf.int32)

    def all_known() -> tuple[tf.Tensor, tf.Tensor]:
        return ids, tf.range(tf.size(ids, tf.int64) + 1)

    def some_unknown() -> tuple[tf.Tensor, tf.Tensor]:
        known_at, unknown_at = places(is_known), places(~is_known)
        encoded = encode(tf.gather(strings, unknown_at))
        count = tf.size(known_at, tf.int64)
        bank = tf.RaggedTensor.from_row_splits(
            tf.concat([tf.gather(ids, known_at), encoded.values], axis=0),
            tf.concat([tf.range(count), count + encoded.row_splits], axis=0),
            validate=False,
        )
        # `order` maps from the bank to the strings; its inverse maps from the strings to the bank.
        order = tf.concat([known_at, unknown_at], axis=0)
        rows = tf.gather(bank, tf.math.invert_permutation(order))
        return rows.values, rows.row_splits

    values, splits = tf.cond(tf.reduce_all(is_known), all_known, some_unknown)
    return tf.RaggedTensor.from_row_splits(values, splits, validate=False)


def _flattened(input: Any) -> tuple[tf.Tensor, Callable[[tf.RaggedTensor], Any]]:
    """Returns strings in one dimension, and what brings rows of tokens to the strings' own shape."""
    if isinstance(input, tf.RaggedTensor):
        return input.flat_values, input.with_flat_values
    strings = tf.convert_to_tensor(input, tf.string)
    if strings.shape.rank is None:
        raise ValueError("`input` must have a known rank. Received: strings of unknown rank. Call tf.ensure_shape.")
    if strings.shape.rank == 0:
        return strings[tf.newaxis], lambda rows: rows.values
    if strings.shape.rank == 1:
        return strings, lambda rows: rows
    nested = tf.RaggedTensor.from_tensor(strings, ragged_rank=strings.shape.rank - 1)
    return nested.flat_values, nested.with_flat_values


def _as_string_tensor(text: Any, clean: Callable[[str], str] | None) -> tf.Tensor:
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
        if clean is not None:
            texts = [clean(one if isinstance(one, str) else one.decode("utf-8", errors="replace")) for one in texts]
        # Lone surrogates, which Python allows in a str, are not UTF-8: they become "?" rather than a crash.
        encoded = [one.encode("utf-8", errors="replace") if isinstance(one, str) else one for one in texts]
        text = tf.constant(encoded, tf.string, shape=[len(encoded)])
    elif clean is not None:
        raise TypeError(
            "`text` must be Python strings for a tokenizer with clean='openai', which runs outside of graphs. "
            "Received: a tensor. Pass strings, or clean them before and use a tokenizer with clean=None."
        )
    if text.dtype != tf.string or text.shape.rank not in (0, 1):
        raise TypeError(
            "`text` must be a string tensor of rank 0 or 1. "
            f"Received: text of dtype {text.dtype.name} and shape {text.shape}. Flatten it first."
        )
    return tf.reshape(text, [-1])


def _is_iterable(value: Any) -> bool:
    return isinstance(value, Iterable) and not isinstance(value, Mapping)


def _cleaner(clean: str | None) -> Callable[[str], str] | None:
    if clean is None:
        return None
    if clean != "openai":
        raise ValueError(f"`clean` must be None or 'openai'. Received: clean={clean!r}. None is usual.")
    try:
        import ftfy
    except ImportError:
        raise ImportError("clean='openai' needs ftfy. Install it: pip install 'tf_clip[clean]'") from None
    return lambda text: html.unescape(html.unescape(ftfy.fix_text(text)))


def _require_one_length(ids: tf.Tensor, mask: tf.Tensor, padding: Any) -> tf.Tensor:
    """Returns `ids` if no text had to be padded, and fails else: in a graph, when it runs."""
    message = "`padding` must be True or 'max_length' for texts of several lengths."
    if tf.executing_eagerly():
        lengths = sorted(set(tf.reduce_sum(mask, axis=1).numpy().tolist()))
        if len(lengths) > 1:
            raise ValueError(f"{message} Received: padding={padding!r}, lengths in tokens {lengths}.")
        return ids
    with tf.control_dependencies([tf.debugging.Assert(tf.reduce_all(mask == 1), [message])]):
        return tf.identity(ids)


def _require_options(padding: Any, truncation: Any, max_length: int, return_tensors: Any, padding_side: Any) -> None:
    # Not `errors.require`: a string's way to its ids would enter one more file.
    for argument, value, allowed in (
        ("padding", padding, _PADDINGS),
        ("truncation", truncation, _TRUNCATIONS),
        ("padding_side", padding_side, SIDES),
        ("return_tensors", return_tensors, (*RETURN_TENSORS, None)),
    ):
        if value not in allowed:
            raise ValueError(
                f"`{argument}` must be one of {allowed}. Received: {argument}={value!r}. {allowed[0]!r} is usual."
            )
    if max_length < 2:
        raise ValueError(
            f"`max_length` must leave room for the start and the end token. Received: max_length={max_length}. "
            "Use at least 2."
        )
