"""The image of a run: a panel for each work, a bar for each library."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from peers import BASE

PANELS = ("image-1", "image-8", "image-32", "text-1", "text-16", "text-64", "joint-16x16", "end_to_end-8x16")
TITLES = {"image": "images", "text": "captions", "joint": "images x captions", "end_to_end": "files x strings"}
OURS, THEIRS = "#4477aa", "#bbbbbb"
LONGEST = 6.0
"""Where a bar is cut; its number is written beside it."""


def draw(works: Mapping[str, Any], path: Path) -> None:
    """Draws times relative to tf_clip's.

    Args:
        works: as `results.summary` returns them.
        path: the file to write.
    """
    shown = [works[name] for name in PANELS if name in works] or list(works.values())[:8]
    columns = min(3, max(1, len(shown)))
    lines = -(-len(shown) // columns)
    names = list(dict.fromkeys(name for work in shown for name in work["peers"]))
    size = (5.2 * columns + 2, (0.24 * len(names) + 0.9) * lines)
    figure, grid = pyplot.subplots(lines, columns, figsize=size, sharey=True, squeeze=False, constrained_layout=True)
    for axes, work in zip(grid.flat, shown, strict=False):
        for place, name in enumerate(names):
            ratio = work["peers"].get(name, {}).get("ratio")
            if ratio is None:
                axes.text(0.05, place, "-", va="center", fontsize=8)
                continue
            axes.barh(place, min(ratio, LONGEST), color=OURS if name.startswith("tf_clip") else THEIRS)
            axes.text(min(ratio, LONGEST) + 0.05, place, f"{ratio:.2f}", va="center", fontsize=8)
        sizes = " x ".join(str(count) for count in (work["images"], work["texts"]) if count)
        axes.axvline(1.0, color="#aa3377", linewidth=0.8)
        axes.set_title(f"{TITLES.get(work['kind'], work['kind'])}: {sizes}", fontsize=10)
        axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.set_xlim(0, LONGEST + 0.8)
    for axes in grid.flat[len(shown) :]:
        axes.axis("off")
    grid[0, 0].invert_yaxis()
    figure.suptitle(f"time relative to {BASE}'s: shorter is faster", fontsize=11)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)
