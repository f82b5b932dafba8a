"""The signatures of an exported model as rows of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def signature_rows(description: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Returns a row for each signature: its name, what it takes and what it gives.

    Args:
        description: what an exported model says of itself, with `signatures` by name.
    """
    return [
        (name, _sides(signature["inputs"]), _sides(signature["outputs"]))
        for name, signature in description["signatures"].items()
    ]


def _sides(tensors: Mapping[str, Mapping[str, Any]]) -> str:
    return "\n".join(f"{name} {spec['dtype']} {_shape(spec['shape'])}" for name, spec in tensors.items())


def _shape(shape: Sequence[int | None]) -> str:
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"
