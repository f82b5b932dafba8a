"""`Vocabulary`: what a CLIP tokenizer's files say, read and written in Hugging Face's layouts."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tf_clip.checkpoints.files import read_json

DEFAULT_MAX_LENGTH = 77
SIDES = ("right", "left")
_START, _END = "<|startoftext|>", "<|endoftext|>"
# Symbols and merges, as Hugging Face calls the two files and as KerasHub does.
_PAIRS = (("vocab.json", "merges.txt"), ("assets/tokenizer/vocabulary.json", "assets/tokenizer/merges.txt"))
# What transformers writes into tokenizer.json for CLIP.
_NORMALIZERS = [
    {"type": "NFC"},
    {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
    {"type": "Lowercase"},
]
_PATTERN = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
# transformers' names of special tokens in its order, and what CLIP has for each.
_NAMES = {
    "bos_token": _START,
    "eos_token": _END,
    "unk_token": _END,
    "sep_token": None,
    "pad_token": _END,
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
        padding_side, truncation_side: where tokens are added or cut, `"right"` or `"left"`.
        normalized_tokens: which of `bos_token` and `eos_token` are found in normalized text.

    Raises:
        ValueError: a special token is not one of `symbols` or holds white space, a side is neither, or a normalized
            token is none of the two.
    """

    symbols: Mapping[str, int]
    merges: tuple[tuple[str, str], ...]
    bos_token: str = _START
    eos_token: str = _END
    pad_token: str = _END
    model_max_length: int = DEFAULT_MAX_LENGTH
    padding_side: str = "right"
    truncation_side: str = "right"
    normalized_tokens: frozenset[str] = frozenset()

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
        for name in ("padding_side", "truncation_side"):
            if getattr(self, name) not in SIDES:
                raise ValueError(f"`{name}` must be one of {SIDES}. Received: {name}={getattr(self, name)!r}.")
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
    def read(cls, folder: str | Path) -> Vocabulary:
        """Reads symbols and merges in Hugging Face's or KerasHub's files, and what others say of special tokens.

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
        options = _options(config)
        specials = {options.get("bos_token", _START), options.get("eos_token", _END)}
        return cls(symbols, merges, **options, normalized_tokens=specials & _normalized_tokens(config, listed))

    def write(self, folder: str | Path) -> None:
        """Writes `vocab.json`, `merges.txt`, `tokenizer.json` and `tokenizer_config.json` for transformers, too."""
        self.write_symbols(folder)
        config = {
            "tokenizer_class": "CLIPTokenizer",
            "model_max_length": self.model_max_length,
            "bos_token": self.bos_token,
            "eos_token": self.eos_token,
            "unk_token": self.eos_token,
            "pad_token": self.pad_token,
            "padding_side": self.padding_side,
            "truncation_side": self.truncation_side,
            "added_tokens_decoder": {str(token.pop("id")): token for token in self._added_tokens()},
        }
        write = functools.partial(json.dumps, indent=2, ensure_ascii=False)
        (Path(folder) / "tokenizer_config.json").write_text(write(config) + "\n", encoding="utf-8")
        (Path(folder) / "tokenizer.json").write_text(write(self._tokenizer_json()) + "\n", encoding="utf-8")

    def write_symbols(self, folder: str | Path, prefix: str | None = None) -> tuple[str, str]:
        """Writes `vocab.json` and `merges.txt`, with a prefix and a hyphen before both names; returns their paths."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        symbols, merges = (folder / (f"{prefix}-{name}" if prefix else name) for name in _PAIRS[0])
        symbols.write_text(json.dumps(dict(self.symbols), ensure_ascii=False) + "\n", encoding="utf-8")
        lines = ["#version: 0.2", *(f"{left} {right}" for left, right in self.merges)]
        merges.write_text("\n".join(lines) + "\n", encoding="utf-8")
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


def _normalized_tokens(config: Mapping[str, Any], listed: Sequence[Mapping[str, Any]]) -> set[str]:
    """Returns the tokens that are called normalized.

    Source: transformers 5 for what counts where files contradict themselves: first the list; then the last name of
    a token, but not where it repeats an earlier one. A name without a description says no.
    """
    named = [config.get(name, default) for name, default in _NAMES.items()]
    described = dict.fromkeys(_described(token) for token in named if token is not None)
    flags = {content: bool(normalized) for content, normalized in [*described, *map(_described, listed)]}
    return {content for content, normalized in flags.items() if normalized}


def _described(token: str | Mapping[str, Any]) -> tuple[str, bool | None]:
    """Returns the text of a token and whether it is called normalized, None if it has no description."""
    return (token, None) if isinstance(token, str) else (token["content"], bool(token.get("normalized")))


def _options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Picks what a `Vocabulary` holds."""
    options: dict[str, Any] = {}
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
    return options
