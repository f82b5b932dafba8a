"""What the reference tokenizer thinks of every character, as arrays that a graph can gather from."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

OTHER, LETTER, NUMBER, SPACE = range(4)
"""What a character is to CLIP's word pattern."""

CODES = 0x110000
_HANGUL_FIRST, _L_FIRST, _V_FIRST, _T_FIRST = 0xAC00, 0x1100, 0x1161, 0x11A7
_L_COUNT, _V_COUNT, _T_COUNT = 19, 21, 28


class Normalization(NamedTuple):
    """What NFC needs to know of characters.

    Args:
        combining_class: int32 `[0x110000]`.
        decomposition: from a character to the characters it is made of, none of which can be taken apart.
        composition: from two characters to the one that NFC makes of them.
    """

    combining_class: np.ndarray
    decomposition: Mapping[int, Sequence[int]]
    composition: Mapping[tuple[int, int], int]

    def may_change(self) -> np.ndarray:
        """Returns which characters a text must hold for NFC to change it, bool `[0x110000]`."""
        found = self.combining_class > 0
        found[[second for _, second in self.composition]] = True
        whole = set(self.composition.values())
        found[[code for code in self.decomposition if code not in whole]] = True
        return found


@functools.cache
def _file() -> dict[str, Any]:
    data: dict[str, Any] = json.loads(Path(__file__).with_name("unicode.json").read_text("utf-8"))
    return data


@functools.cache
def normalization(*, as_reference: bool = True) -> Normalization:
    """Returns what NFC needs to know.

    Args:
        as_reference: leave out what the reference's normalizer is too old to know: about a hundred marks, most
            of them added to Unicode since 2018. False gives Unicode 15.1.
    """
    data = _file()
    unknown = set(data["newer_than_reference"]) if as_reference else set()
    combining_class = np.zeros(CODES, np.int32)
    for number, spans in data["combining_class"].items():
        for first, last in spans:
            combining_class[first : last + 1] = int(number)
    combining_class[list(unknown)] = 0

    steps = {int(code): parts for code, parts in data["decomposition"].items() if int(code) not in unknown}
    not_composed = set(data["not_composed"])
    composition = {(parts[0], parts[1]): code for code, parts in steps.items() if code not in not_composed}
    for code, parts in _hangul().items():
        steps[code], composition[parts[0], parts[1]] = list(parts), code

    def taken_apart(code: int) -> list[int]:
        return [last for part in steps[code] for last in taken_apart(part)] if code in steps else [code]

    return Normalization(combining_class, {code: taken_apart(code) for code in steps}, composition)


def _hangul() -> dict[int, tuple[int, int]]:
    """Returns each syllable's two parts, by the Unicode Standard's arithmetic (section 3.12)."""
    parts = {}
    for index in range(_L_COUNT * _V_COUNT * _T_COUNT):
        pair, last = divmod(index, _T_COUNT)
        if last:
            parts[_HANGUL_FIRST + index] = (_HANGUL_FIRST + index - last, _T_FIRST + last)
        else:
            first, vowel = divmod(pair, _V_COUNT)
            parts[_HANGUL_FIRST + index] = (_L_FIRST + first, _V_FIRST + vowel)
    return parts


@functools.cache
def classes() -> np.ndarray:
    """Returns `OTHER`, `LETTER`, `NUMBER` or `SPACE` for each character, int32 `[0x110000]`."""
    found = np.full(CODES, OTHER, np.int32)
    for name, value in (("letters", LETTER), ("numbers", NUMBER), ("spaces", SPACE)):
        for first, last in _file()[name]:
            found[first : last + 1] = value
    return found


@functools.cache
def lower_case() -> np.ndarray:
    """Returns each character's lower case, int32 `[0x110000, 2]`, -1 where there is no second character."""
    found = np.stack([np.arange(CODES), np.full(CODES, -1)], axis=1).astype(np.int32)
    for code, letters in _file()["lower"].items():
        found[int(code), : len(letters)] = letters
    return found
