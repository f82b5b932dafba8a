"""The figures that a page and its image are made from, kept in a file beside the page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

LINE = 1500
"""Characters of a line at most; what is longer is opened."""


def keep(path: Path, result: Any) -> Any:
    """Writes figures as JSON with seven digits, a line for each part, and returns what the file says.

    Args:
        path: the file.
        result: dictionaries, lists, strings, numbers and None; NaN is written as null.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_lines(_rounded(result)) + "\n", encoding="utf-8")
    return json.loads(path.read_text(encoding="utf-8"))


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _rounded(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(one) for one in value]
    if isinstance(value, float):
        return float(f"{value:.7g}") if value == value else None
    return value


def _lines(value: Any, indent: str = "") -> str:
    line = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, dict) or (len(line) <= LINE and indent):
        return line
    deeper = indent + " "
    parts = (f"{deeper}{json.dumps(name)}: {_lines(one, deeper)}" for name, one in value.items())
    return "{\n" + ",\n".join(parts) + f"\n{indent}}}"
