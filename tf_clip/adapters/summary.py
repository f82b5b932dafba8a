"""How many weights every adapter has, beside the model's own."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tf_clip.adapters.adding import adapters_of
from tf_clip.adapters.config import AnyConfig, ConfigUnion
from tf_clip.layers.adapter_sites import is_of_adapter

if TYPE_CHECKING:
    from tf_clip.adapters.model import AdaptableModel

_COLUMNS = ("name", "architecture", "parameters", "share", "active", "trained")


def count(variables: list[Any]) -> int:
    """Returns how many numbers variables hold."""
    return sum(math.prod(variable.shape) for variable in variables)


def base_variables(model: AdaptableModel) -> list[Any]:
    """Returns the model's own weights, without those of adapters and the state of random numbers."""
    weights: Any = model.weights  # type: ignore[attr-defined]
    return [v for v in weights if not is_of_adapter(v) and "seed_generator" not in v.path]


def _architecture(config: AnyConfig) -> str:
    return "union" if isinstance(config, ConfigUnion) else config.architecture or "bottleneck"


def rows(model: AdaptableModel) -> list[dict[str, Any]]:
    """Returns a row for each adapter and fusion, and one for the model without them."""
    state, base = model.adapter_state, base_variables(model)
    total = count(base)
    active = set() if state.active is None else set(state.active.names())
    found = []
    for name, config in state.configs.items():
        weights = [weight for adapter in adapters_of(model, name) for weight in adapter.parameters]
        found.append((name, _architecture(config), weights, name in active))
    for name in state.fusions:
        layers = [
            location.place.fusions[name] for location in model.adapter_locations() if name in location.place.fusions
        ]
        weights = [weight for layer in layers for weight in layer.weights]
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
