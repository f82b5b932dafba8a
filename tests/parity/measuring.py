"""What the comparisons share: a difference, its bound, and a record of both for the summary and the page."""

from __future__ import annotations

import csv
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

A row is a library and a format, over all classes that load it. A cell is the largest difference of anything that came
out, in percent of what is allowed. [parity.csv](parity.csv) has a line for each class and each kind of output: the
largest difference of any element, of embeddings at unit length, of losses and gradients relative to the largest.

| from | lines | TensorFlow | JAX | PyTorch |
|---|---|---|---|---|
"""
_BACKENDS = ("tensorflow", "jax", "torch")


def write_page(folder: Path) -> None:
    """Writes all that was recorded as parity.csv, and the largest difference of each format as parity.md."""
    with (folder / "parity.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["class", "from", "compared", "allowed", *_BACKENDS])
        for (title, source, kind), cells in TABLE.items():
            shown = [f"{cells[name]:.2g}" if name in cells else "" for name in _BACKENDS]
            writer.writerow([title, source, kind, f"{BOUNDS[kind]:g}", *shown])
    lines = [PAGE]
    for source in dict.fromkeys(key[1] for key in TABLE):
        rows = [(BOUNDS[kind], cells) for (_, at, kind), cells in TABLE.items() if at == source]
        shown = []
        for name in _BACKENDS:
            shares = [cells[name] / bound for bound, cells in rows if name in cells]
            shown.append(f"{100 * max(shares):.1f}" if shares else "")
        lines.append(f"| {source} | {len(rows)} | {' | '.join(shown)} |\n")
    (folder / "parity.md").write_text("".join(lines), encoding="utf-8")
