"""What the comparisons share: a difference, its bound, and a record of both for the summary and the page."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

MEASURED: dict[str, tuple[float, float]] = {}
"""From what was compared to the largest difference seen and the bound it must keep."""

TABLE: dict[tuple[str, str, str], dict[str, float]] = {}
"""From class, format and what was compared to the largest difference by backend."""

# By the last part of a result's name, the number of a block left away. Embeddings inside CLIPModel have unit length.
BOUNDS = {
    "loss": 1e-5,
    "image_embeds": 1e-5,
    "text_embeds": 1e-5,
    "logits": 1e-4,
    "logits_per_image": 2e-4,
    "logits_per_text": 2e-4,
    "last_hidden_state": 1e-4,
    "pooler_output": 1e-4,
    "hidden_states": 1e-4,
    "attentions": 1e-4,
    "text_features": 1e-4,
    "image_features": 1e-4,
    "gradients": 1e-4,
    "weights": 1e-6,
    "peak": 1.3,
}


def largest(ours: Any, theirs: Any) -> float:
    """Returns the largest absolute difference; shapes must be equal, as broadcasting would hide a mistake."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape
    return float(np.abs(ours - theirs).max())


def report(label: str, difference: float, bound: float) -> None:
    """Prints and records a difference, and fails when it is beyond the bound or not a number."""
    print(f"\n  {label}: {difference:.2g} (at most {bound:g})", end="")
    worst, _ = MEASURED.get(label, (0.0, bound))
    MEASURED[label] = (max(difference, worst), bound)
    assert difference <= bound, f"{label}: {difference:.2g} is more than {bound:g}"


def compare(row: tuple[str, str], backend: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    """Compares all results of two runs and records the largest difference of each kind.

    Args:
        row: the class and the format, or whatever else a row of the page is about.
        backend: the column.
        ours, theirs: results by name; ours must have all of theirs.
    """
    assert theirs and theirs.keys() <= ours.keys(), (sorted(ours), sorted(theirs))
    for name in sorted(theirs):
        kind = next(part for part in reversed(name.split(".")) if not part.isdigit())
        difference = largest(ours[name], theirs[name])
        if kind == "loss":
            # A loss of random models at a scale of 100 is tens, of which float32 keeps seven digits.
            difference /= max(1.0, float(theirs[name]))
        if kind.endswith("_embeds"):
            # Outside CLIPModel they are not of unit length.
            difference = largest(*(x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (ours[name], theirs[name])))
        record(row, kind, backend, difference)


def record(row: tuple[str, str], kind: str, backend: str, difference: float) -> None:
    """Records a difference, or another measure, for the page, too."""
    cells = TABLE.setdefault((*row, kind), {})
    cells[backend] = max(difference, cells.get(backend, 0.0))
    report(f"{row[0]}, {row[1]}, {kind}, {backend}", difference, BOUNDS[kind])


PAGE = """# Parity: what was compared, and how far apart it was

`make parity` makes each checkpoint with the library named, loads it here on each backend, runs both on the same
inputs, and writes this page. Weights are random, every one of them moved from its initial value; ViT-B/32 and RN50
have the real models' sizes, the others are tiny with every width different. All in float32.

The first table has a row for each class and format. A cell is the largest difference of anything that came out, in
percent of what is allowed. The tables below have the differences themselves: of any element, of embeddings at unit
length, of losses and gradients relative to the largest.

"""
_COLUMNS = "TensorFlow | JAX | PyTorch |"
_BACKENDS = ("tensorflow", "jax", "torch")


def write_page(path: Path) -> None:
    """Writes all that was recorded: a row a class and format, then all differences, a section a class."""
    lines = [PAGE, f"| class | from | {_COLUMNS}\n|---|---|---|---|---|\n"]
    for title, source in dict.fromkeys(key[:2] for key in TABLE):
        kinds = {key[2]: cells for key, cells in TABLE.items() if key[:2] == (title, source)}
        shares = {
            name: max(cells[name] / BOUNDS[kind] for kind, cells in kinds.items() if name in cells)
            for name in _BACKENDS
            if any(name in cells for cells in kinds.values())
        }
        lines.append(f"| {title} | {source} | {_row({name: f'{100 * share:.1f}' for name, share in shares.items()})}\n")
    for title in dict.fromkeys(key[0] for key in TABLE):
        lines.append(f"\n## {title}\n\n| from | compared | allowed | {_COLUMNS}\n|---|---|---|---|---|---|\n")
        for (_, source, kind), cells in ((key, cells) for key, cells in TABLE.items() if key[0] == title):
            shown = _row({name: f"{difference:.2g}" for name, difference in cells.items()})
            lines.append(f"| {source} | `{kind}` | {BOUNDS[kind]:g} | {shown}\n")
    path.write_text("".join(lines), encoding="utf-8")


def _row(cells: Mapping[str, str]) -> str:
    return " | ".join(cells.get(name, "") for name in _BACKENDS) + " |"
