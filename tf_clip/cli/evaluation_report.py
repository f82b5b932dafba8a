"""What `tf-clip evaluate` writes and shows of its result."""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np

from tf_clip.cli import tables
from tf_clip.evaluation.ranks import recall_curve
from tf_clip.files import write_text

_LONGEST_CURVE = 100


def curve_of(ranks: np.ndarray, candidates: int) -> list[float]:
    """Returns recall at k for each k up to the number of candidates, at most 100.

    Args:
        ranks: int `[n]`, the rank of the right answer from 1.
        candidates: what could have been answered.
    """
    values: list[float] = recall_curve(ranks, min(candidates, _LONGEST_CURVE)).tolist()
    return values


def finish(options: argparse.Namespace, result: dict[str, Any], page: str) -> int:
    """Writes `report.json` and `report.html`, shows the metrics, and returns the exit status.

    Args:
        options: the command's, with `output` and `json`.
        result: the metrics and all that the JSON file holds.
        page: the HTML.
    """
    text = tables.printable(json.dumps(result, indent=2, ensure_ascii=False))
    write_text(options.output / "report.json", text + "\n")
    write_text(options.output / "report.html", tables.printable(page))
    if options.json:
        tables.print_json(result)
    else:
        _show(result["metrics"])
        tables.say(f"The page with charts and mistakes: {(options.output / 'report.html').resolve()}")
    return tables.report(result["skipped"])


def _show(metrics: dict[str, Any]) -> None:
    if "top1" in metrics:
        tables.show_facts({name: f"{value:.4f}" for name, value in metrics.items()})
        return
    rows = [[name, *(f"{metrics[way][name]:.4f}" for way in metrics)] for name in metrics["image_to_text"]]
    ways = [way.replace("_", " ") for way in metrics]
    tables.show_groups({"retrieval": rows}, ["", *ways], numbers=ways)
