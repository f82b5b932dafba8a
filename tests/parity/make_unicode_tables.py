"""Writes tf_clip/preprocessing/text/unicode.json: what the reference tokenizer thinks of every character.

Letters, numbers, white space and lower case are asked of Hugging Face's `tokenizers` library, one character
after the other: its rules come from three libraries with three versions of Unicode, and no one version has them.
Decompositions and combining classes are Unicode 15.1's, the newest that a supported Python has; those of
characters that the reference's own normalizer is too old for are listed apart.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tokenizers
import unicodedata2
from tokenizers import Regex, normalizers, pre_tokenizers

CODES = [code for code in range(0x110000) if not 0xD800 <= code < 0xE000]
HANGUL_SYLLABLES = range(0xAC00, 0xD7A4)


def tables() -> dict[str, Any]:
    """Returns the content of the file."""
    lower = normalizers.Lowercase().normalize_str
    letters, numbers = matched(r"\p{L}"), matched(r"\p{N}")
    return {
        "source": f"tokenizers {tokenizers.__version__}, Unicode {unicodedata2.unidata_version}",
        "letters": spans(letters),
        "numbers": spans(numbers),
        "spaces": spans(matched(r"\s")),
        "lower": {str(code): [ord(c) for c in lower(chr(code))] for code in CODES if lower(chr(code)) != chr(code)},
        "combining_class": classes(),
        "decomposition": decompositions(),
        "not_composed": [code for code in map(int, decompositions()) if not is_composed(code)],
        "newer_than_reference": [code for code in CODES if is_newer(code)],
    }


def matched(pattern: str) -> list[int]:
    """Returns the characters that a regular expression of the reference matches."""
    find = pre_tokenizers.Split(Regex(pattern), "removed", invert=True).pre_tokenize_str
    return [code for code in CODES if find(chr(code))]


def spans(codes: Iterable[int]) -> list[list[int]]:
    """Writes sorted numbers as first and last of each run."""
    found: list[list[int]] = []
    for code in codes:
        if found and found[-1][1] == code - 1:
            found[-1][1] = code
        else:
            found.append([code, code])
    return found


def classes() -> dict[str, list[list[int]]]:
    by_class: dict[int, list[int]] = {}
    for code in CODES:
        if unicodedata2.combining(chr(code)):
            by_class.setdefault(unicodedata2.combining(chr(code)), []).append(code)
    return {str(number): spans(codes) for number, codes in sorted(by_class.items())}


def decompositions() -> dict[str, list[int]]:
    """Returns canonical decompositions of one step; those of Hangul follow a formula instead."""
    found = {}
    for code in CODES:
        parts = unicodedata2.decomposition(chr(code))
        if parts and not parts.startswith("<") and code not in HANGUL_SYLLABLES:
            found[str(code)] = [int(part, 16) for part in parts.split()]
    return found


def is_composed(code: int) -> bool:
    """Whether NFC puts a character together again."""
    return unicodedata2.normalize("NFC", unicodedata2.normalize("NFD", chr(code))) == chr(code)


def is_newer(code: int) -> bool:
    """Whether the reference's normalizer takes a character for one that does not combine nor decompose."""
    character, reference = chr(code), normalizers.NFD().normalize_str
    if unicodedata2.decomposition(character) and not unicodedata2.decomposition(character).startswith("<"):
        return reference(character) == character
    if not unicodedata2.combining(character):
        return False
    # Marks of a low and of a high class, one of which changes places with this one unless it is unknown.
    tries = [f"a{character}\u0334", f"a\u0345{character}"]
    unknown = any(reference(text) != unicodedata2.normalize("NFD", text) for text in tries)
    assert not unknown or all(reference(text) == text for text in tries), hex(code)
    return unknown


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(tables(), separators=(",", ":")).replace('],"', '],\n"') + "\n", "utf-8")
