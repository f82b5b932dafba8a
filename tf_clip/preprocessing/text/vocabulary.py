"""`Vocabulary`: what a tokenizer's files say, read and written in Hugging Face's layouts."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tf_clip.checkpoints.files import read_json
from tf_clip.errors import require
from tf_clip.files import write_text

SIDES = ("right", "left")
_PADDINGS = ("longest", "max_length")
_OUTPUTS = ("input_ids", "attention_mask")
# Symbols and merges, as Hugging Face calls the two files and as KerasHub does.
_PAIRS = (("vocab.json", "merges.txt"), ("assets/tokenizer/vocabulary.json", "assets/tokenizer/merges.txt"))
# How OpenAI's CLIP finds words, as transformers writes it into tokenizer.json. The pattern names two special tokens,
# whatever the vocabulary calls its own.
_NORMALIZERS: list[dict[str, Any]] = [
    {"type": "NFC"},
    {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
    {"type": "Lowercase"},
]
_PATTERN = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
# transformers' names of special tokens in its order, and the field that tells each one's default.
_NAMES = {
    "bos_token": "bos_token",
    "eos_token": "eos_token",
    "unk_token": "eos_token",
    "sep_token": None,
    "pad_token": "pad_token",
    "cls_token": None,
    "mask_token": None,
}
# Files that set no limit say 1e30.
_NO_LIMIT = 1_000_000


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """The symbols of a byte-pair encoding, its merges, and the special tokens.

    Args:
        symbols: from symbol to id.
        merges: pairs of symbols, best first.
        bos_token, eos_token, pad_token: special tokens, each one of `symbols`.
        model_max_length: longest output, in tokens.
        padding: how far texts are padded unless a call says otherwise: `"longest"`, to the longest of a batch, or
            `"max_length"`, to `model_max_length`.
        padding_side, truncation_side: where tokens are added or cut, `"right"` or `"left"`.
        normalized_tokens: which of `bos_token` and `eos_token` are found in normalized text.
        model_input_names: what the model takes, `"input_ids"` with or without `"attention_mask"`.

    Raises:
        ValueError: a special token is not one of `symbols` or contains white space, or an option is not one of those
            above.
    """

    symbols: Mapping[str, int]
    merges: tuple[tuple[str, str], ...]
    bos_token: str
    eos_token: str
    pad_token: str
    model_max_length: int
    padding: str = "longest"
    padding_side: str = "right"
    truncation_side: str = "right"
    normalized_tokens: frozenset[str] = frozenset()
    model_input_names: tuple[str, ...] = _OUTPUTS

    def __post_init__(self) -> None:
        for name in ("bos_token", "eos_token", "pad_token"):
            token = getattr(self, name)
            if token not in self.symbols:
                raise ValueError(
                    f"`{name}` must be one of the vocabulary's symbols. Received: {name}={token!r}. "
                    "Add it to vocab.json, or name another token in tokenizer_config.json."
                )
            if token.split() != [token]:
                raise ValueError(f"`{name}` must hold no white space. Received: {name}={token!r}. Name another token.")
        for name, allowed in (
            ("padding", _PADDINGS),
            ("padding_side", SIDES),
            ("truncation_side", SIDES),
            ("model_input_names", (_OUTPUTS, _OUTPUTS[:1])),
        ):
            value = getattr(self, name)
            require(value in allowed, name, f"one of {allowed}", value, f"{allowed[0]!r} is usual.")
        others = self.normalized_tokens - {self.bos_token, self.eos_token}
        if others:
            raise ValueError(
                "`normalized_tokens` must be among bos_token and eos_token. "
                f"Received: {min(others)!r}, with bos_token={self.bos_token!r} and eos_token={self.eos_token!r}. "
                "Leave it out."
            )

    @functools.cached_property
    def symbol_of(self) -> dict[int, str]:
        """From id to symbol."""
        return {index: symbol for symbol, index in self.symbols.items()}

    @classmethod
    def read(cls, folder: str | Path, defaults: Mapping[str, Any]) -> Vocabulary:
        """Reads symbols and merges in Hugging Face's or KerasHub's files, and what others say of special tokens.

        Args:
            folder: where the files are.
            defaults: the other fields' values where no file gives them.

        Raises:
            FileNotFoundError: the folder has none of these.
            ValueError: a file is not what its name says.
        """
        folder = Path(folder)
        pair = next((pair for pair in _PAIRS if all((folder / name).is_file() for name in pair)), None)
        if pair:
            symbols, merges = read_json(folder / pair[0]), _read_merges(folder / pair[1])
        elif (folder / "tokenizer.json").is_file():
            symbols, merges = _read_tokenizer_json(folder / "tokenizer.json")
        else:
            raise FileNotFoundError(
                "`folder` must hold vocab.json and merges.txt, or tokenizer.json. "
                f"Received: folder={str(folder)!r}. Copy them from the checkpoint the model was trained with."
            )
        config, listed = _read_special_tokens(folder)
        options = {**defaults, **_options(config)}
        normalized = _normalized_tokens(config, listed, defaults)
        options["normalized_tokens"] = normalized & {options["bos_token"], options["eos_token"]}
        return cls(symbols, merges, **options)

    def write(self, folder: str | Path, tokenizer_class: str, defaults: Mapping[str, Any]) -> None:
        """Writes `vocab.json`, `merges.txt`, `tokenizer.json` and `tokenizer_config.json` for transformers, too.

        Args:
            folder: made when missing.
            tokenizer_class: transformers' class that these files are for.
            defaults: what `read` takes. Padding and model inputs are written where they are the family's own.
        """
        config = {
            "tokenizer_class": tokenizer_class,
            "model_max_length": self.model_max_length,
            "bos_token": self.bos_token,
            "eos_token": self.eos_token,
            "unk_token": self.eos_token,
            "pad_token": self.pad_token,
            "padding_side": self.padding_side,
            "truncation_side": self.truncation_side,
            "added_tokens_decoder": {str(token.pop("id")): token for token in self._added_tokens()},
        }
        for name, usual in (("padding", _PADDINGS[0]), ("model_input_names", _OUTPUTS)):
            if name in defaults or getattr(self, name) != usual:
                config[name] = getattr(self, name)
        self.write_symbols(folder)
        for file, values in (("tokenizer_config.json", config), ("tokenizer.json", self._tokenizer_json())):
            write_text(Path(folder) / file, json.dumps(values, indent=2, ensure_ascii=False) + "\n")

    def write_symbols(self, folder: str | Path, prefix: str | None = None) -> tuple[str, str]:
        """Writes `vocab.json` and `merges.txt`, with a prefix and a hyphen before both names; returns their paths."""
        symbols, merges = (Path(folder) / (f"{prefix}-{name}" if prefix else name) for name in _PAIRS[0])
        write_text(symbols, json.dumps(dict(self.symbols), ensure_ascii=False) + "\n")
        lines = ["#version: 0.2", *(f"{left} {right}" for left, right in self.merges)]
        write_text(merges, "\n".join(lines) + "\n")
        return str(symbols), str(merges)

    def _added_tokens(self) -> list[dict[str, Any]]:
        """Describes start and end, by id."""
        return [
            {
                "id": self.symbols[token],
                "content": token,
                "single_word": False,
                "lstrip": False,
                "rstrip": False,
                "normalized": token in self.normalized_tokens,
                "special": True,
            }
            for token in sorted({self.bos_token, self.eos_token}, key=self.symbols.__getitem__)
        ]

    def _tokenizer_json(self) -> dict[str, Any]:
        """Describes the whole tokenizer to the `tokenizers` library."""
        bytes_to_symbols = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
        split = {"type": "Split", "pattern": {"Regex": _PATTERN}, "behavior": "Removed", "invert": True}
        return {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": self._added_tokens(),
            "normalizer": {"type": "Sequence", "normalizers": _NORMALIZERS},
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, bytes_to_symbols]},
            "post_processor": {
                "type": "RobertaProcessing",
                "sep": [self.eos_token, self.symbols[self.eos_token]],
                "cls": [self.bos_token, self.symbols[self.bos_token]],
                "trim_offsets": False,
                "add_prefix_space": False,
            },
            "decoder": {**bytes_to_symbols, "add_prefix_space": True},
            "model": {
                "type": "BPE",
                "dropout": None,
                "unk_token": self.eos_token,
                "continuing_subword_prefix": "",
                "end_of_word_suffix": "</w>",
                "fuse_unk": False,
                "byte_fallback": False,
                "ignore_merges": False,
                "vocab": dict(self.symbols),
                "merges": [list(pair) for pair in self.merges],
            },
        }


def _read_merges(path: Path) -> tuple[tuple[str, str], ...]:
    # Split on "\n" alone: symbols may be characters that str.splitlines would cut at.
    lines = path.read_text(encoding="utf-8").split("\n")
    return tuple(_pair(line, path) for line in lines if line.strip() and not line.startswith("#version"))


def _read_tokenizer_json(path: Path) -> tuple[dict[str, int], tuple[tuple[str, str], ...]]:
    values = read_json(path)
    model = values.get("model", {})
    if model.get("type", "BPE") != "BPE" or model.get("end_of_word_suffix") != "</w>":
        raise ValueError(
            f"{path} must describe CLIP's byte-pair encoding with the suffix '</w>'. "
            f"Received: type={model.get('type')!r}, end_of_word_suffix={model.get('end_of_word_suffix')!r}. "
            "This tokenizer belongs to another kind of model."
        )
    steps = values.get("normalizer") or {}
    kinds = [step.get("type") for step in steps.get("normalizers", [steps])]
    if kinds != [step["type"] for step in _NORMALIZERS]:
        raise ValueError(
            f"{path} must normalize as CLIP does: {[step['type'] for step in _NORMALIZERS]}. Received: {kinds}. "
            "This tokenizer belongs to another kind of model."
        )
    symbols = dict(model["vocab"])
    symbols.update({token["content"]: token["id"] for token in values.get("added_tokens", ())})
    # tokenizers wrote "a b" until 0.19 and ["a", "b"] since.
    merges = tuple(_pair(merge, path) for merge in model["merges"])
    return symbols, merges


def _pair(merge: str | list[str], path: Path) -> tuple[str, str]:
    parts = merge.split(" ") if isinstance(merge, str) else merge
    if len(parts) != 2:
        raise ValueError(f"{path} must list merges as two symbols each. Received: {merge!r}. Download it again.")
    return parts[0], parts[1]


def _read_special_tokens(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Returns what a folder says of special tokens: by name, with the other options, and one by one.

    Source: transformers 5 for which file counts. Where `tokenizer_config.json` lists tokens, no other does.
    """
    path = folder / "tokenizer_config.json"
    config = read_json(path) if path.is_file() else {}
    if config.get("added_tokens_decoder") is not None:
        return config, list(config["added_tokens_decoder"].values())
    if (folder / "special_tokens_map.json").is_file():
        config |= read_json(folder / "special_tokens_map.json")
    path = folder / "tokenizer.json"
    return config, read_json(path).get("added_tokens") or [] if path.is_file() else []


def _normalized_tokens(
    config: Mapping[str, Any], listed: Sequence[Mapping[str, Any]], defaults: Mapping[str, Any]
) -> frozenset[str]:
    """Returns the tokens that are called normalized.

    Source: transformers 5, where files contradict themselves: the list comes first; then the last of a token's names,
    unless it repeats an earlier one. A name without a description means "not normalized".
    """
    named = [config.get(name, defaults.get(default or "")) for name, default in _NAMES.items()]
    described = dict.fromkeys(_described(token) for token in named if token is not None)
    flags = {content: bool(normalized) for content, normalized in [*described, *map(_described, listed)]}
    return frozenset(content for content, normalized in flags.items() if normalized)


def _described(token: str | Mapping[str, Any]) -> tuple[str, bool | None]:
    """Returns the text of a token and whether it is called normalized, None if it has no description."""
    return (token, None) if isinstance(token, str) else (token["content"], bool(token.get("normalized")))


def _options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Picks what a `Vocabulary` holds."""
    options: dict[str, Any] = {}
    if config.get("padding") in _PADDINGS:
        options["padding"] = config["padding"]
    for name in ("padding_side", "truncation_side"):
        if config.get(name) is not None:
            options[name] = config[name]
    for name in ("bos_token", "eos_token", "pad_token"):
        token = config.get(name)
        if token is not None:
            options[name], _ = _described(token)
    limit = config.get("model_max_length")
    if limit is not None and limit < _NO_LIMIT:
        options["model_max_length"] = int(limit)
    names = config.get("model_input_names")
    if names is not None:
        options["model_input_names"] = tuple(name for name in _OUTPUTS if name in names)  # others are other models'
    return options
