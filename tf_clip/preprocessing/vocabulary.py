"""`Vocabulary`: what a CLIP tokenizer's files say, read and written in Hugging Face's layouts."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tf_clip.checkpoints.files import read_json

DEFAULT_MAX_LENGTH = 77
# Symbols and merges, as Hugging Face calls the two files and as KerasHub does.
_PAIRS = (("vocab.json", "merges.txt"), ("assets/tokenizer/vocabulary.json", "assets/tokenizer/merges.txt"))
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

    Raises:
        ValueError: a special token is not one of `symbols`.
    """

    symbols: Mapping[str, int]
    merges: tuple[tuple[str, str], ...]
    bos_token: str = "<|startoftext|>"
    eos_token: str = "<|endoftext|>"
    pad_token: str = "<|endoftext|>"
    model_max_length: int = DEFAULT_MAX_LENGTH

    def __post_init__(self) -> None:
        for name in ("bos_token", "eos_token", "pad_token"):
            token = getattr(self, name)
            if token not in self.symbols:
                raise ValueError(
                    f"`{name}` must be one of the vocabulary's symbols. Received: {name}={token!r}. "
                    "Add it to vocab.json, or name another token in tokenizer_config.json."
                )

    @functools.cached_property
    def symbol_of(self) -> dict[int, str]:
        """From id to symbol."""
        return {index: symbol for symbol, index in self.symbols.items()}

    @classmethod
    def read(cls, folder: str | Path) -> Vocabulary:
        """Reads symbols and merges in Hugging Face's or KerasHub's files, and `tokenizer_config.json`.

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
        options = {}
        if (folder / "tokenizer_config.json").is_file():
            options = _options(read_json(folder / "tokenizer_config.json"))
        return cls(symbols, merges, **options)

    def write(self, folder: str | Path) -> None:
        """Writes `vocab.json`, `merges.txt` and `tokenizer_config.json`, which transformers reads too."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "vocab.json").write_text(json.dumps(dict(self.symbols), ensure_ascii=False) + "\n", encoding="utf-8")
        lines = ["#version: 0.2", *(f"{left} {right}" for left, right in self.merges)]
        (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        config = {
            "tokenizer_class": "CLIPTokenizer",
            "model_max_length": self.model_max_length,
            "bos_token": self.bos_token,
            "eos_token": self.eos_token,
            "unk_token": self.eos_token,
            "pad_token": self.pad_token,
        }
        (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


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


def _options(config: Mapping[str, Any]) -> dict[str, Any]:
    """Picks from `tokenizer_config.json` what a `Vocabulary` holds."""
    options: dict[str, Any] = {}
    for name in ("bos_token", "eos_token", "pad_token"):
        token = config.get(name)
        if token is not None:  # a string, or an object that describes an added token
            options[name] = token["content"] if isinstance(token, Mapping) else token
    limit = config.get("model_max_length")
    if limit is not None and limit < _NO_LIMIT:
        options["model_max_length"] = int(limit)
    return options
