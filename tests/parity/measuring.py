"""What the comparisons share: a difference, its bound, and a record of both for the summary."""

from __future__ import annotations

from typing import Any

import numpy as np

MEASURED: dict[str, tuple[float, float]] = {}
"""From what was compared to the largest difference seen and the bound it must keep."""


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
