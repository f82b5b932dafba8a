"""How many weights every adapter has, beside the model's own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tf_clip.adapters.config import AnyConfig, ConfigUnion
from tf_clip.adapters.sites import Sites
from tf_clip.adapters.state import AdapterState

_COLUMNS = ("name", "architecture", "parameters", "share", "active", "trained")


def count(variables: Sequence[Any]) -> int:
    """Returns how many numbers variables hold."""
    return sum(math.prod(variable.shape) for variable in variables)


def _architecture(config: AnyConfig) -> str:
    return "union" if isinstance(config, ConfigUnion) else config.architecture or "bottleneck"


def rows(state: AdapterState, sites: Sites, base: Sequence[Any]) -> list[dict[str, Any]]:
    """Returns a row for each adapter and fusion, and one for the model without them.

    Args:
        state: of the model.
        sites: of the model.
        base: the model's own variables.
    """
    total = count(base)
    active = set() if state.active is None else set(state.active.names())
    found = []
    for name, config in state.configs.items():
        weights = [weight for adapter in sites.adapters(name) for weight in adapter.parameters]
        found.append((name, _architecture(config), weights, name in active))
    for name in state.fusions:
        weights = [weight for fusion in sites.fusions(name) for weight in fusion.weights]
        found.append((name, "fusion", weights, set(name.split(",")) <= active))
    table = [
        {
            "name": name,
            "architecture": architecture,
            "parameters": count(weights),
            "share": count(weights) / total,
            "active": is_active,
            "trained": any(weight.trainable for weight in weights),
        }
        for name, architecture, weights, is_active in found
    ]
    own = {"active": True, "trained": any(variable.trainable for variable in base)}
    return [*table, {"name": "model", "architecture": "", "parameters": total, "share": 1.0, **own}]


def as_text(table: list[dict[str, Any]]) -> str:
    """Returns the rows as a table to print."""
    lines = [list(_COLUMNS)]
    for row in table:
        words = [row["name"], row["architecture"], f"{row['parameters']:,}", f"{row['share']:.3%}"]
        lines.append([*words, *("yes" if row[column] else "no" for column in ("active", "trained"))])
    widths = [max(len(line[number]) for line in lines) for number in range(len(_COLUMNS))]

    def shown(line: list[str]) -> str:
        cells = [
            cell.rjust(width) if number in (2, 3) else cell.ljust(width)
            for number, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        return "  ".join(cells).rstrip()

    rule = "-" * len(shown(["x" * width for width in widths]))
    return "\n".join([shown(lines[0]), rule, *(shown(line) for line in lines[1:-1]), rule, shown(lines[-1])])
