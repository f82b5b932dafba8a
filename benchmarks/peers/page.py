"""What a run found, as a page with tables, as an image and as numbers."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from peers import BASE
from results import beyond_imports, whole_process
from works import COLUMNS, TITLES

HEADS = {"bench": "tf_clip and its peers, in one run", "attempts": "Ways to encode images and captions, in one run"}
COMMANDS = {"bench": "make bench", "attempts": 'make bench BENCH="--page attempts"'}
SHARES = ("image", "text")
SHOWN = ("ratio", "spread", "share_of_peak", "error")
LEAST_SHARE = 0.01
"""Of the time, for an operation to be listed."""
_EXPLAINED = """\
Cells are the time relative to tf_clip's: **2.00 takes twice as long as tf_clip**; the middle half of the rounds in
brackets. Every library has a process of its own; one computes at a time, the others are stopped, and all take turns in
each round. A cell is the median of the rounds' ratios to the tf_clip beside it. Before it is timed, a result is
compared with tf_clip's (within 1e-4; 2e-2 from JPEG files, since not every processor is exact); one that differs is an
error and has no time. `-` is what a library does not do, or what was not asked of it."""


def write_page(folder: Path, result: Mapping[str, Any]) -> None:
    """Writes a `.json`, a `.md` and a `.png` by the page's name into a folder."""
    sys.path.append(str(Path(__file__).resolve().parents[1]))
    from chart import draw
    from kept import keep

    name = result["page"]
    for found in result["models"].values():
        for work in found["works"].values():
            work["peers"] = {
                peer: {key: cell[key] for key in SHOWN if key in cell} for peer, cell in work["peers"].items()
            }
    result = keep(folder / f"{name}.json", result)
    (folder / f"{name}.md").write_text(page(result), encoding="utf-8")
    draw(next(iter(result["models"].values()))["works"], folder / f"{name}.png")


def page(result: Mapping[str, Any]) -> str:
    """Returns the page."""
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    parts = [
        f"# {HEADS[result['page']]}",
        f"Written by `{COMMANDS[result['page']]}` on {result['date']}: {result['machine']}, Python {result['python']}, "
        f"tf_clip at {result['commit'] or 'no commit'}, {versions}; up to {result['rounds']} rounds, random weights.",
        f"![Times relative to tf_clip's, by library]({result['page']}.png)",
        _EXPLAINED,
    ]
    for model, found in result["models"].items():
        parts += _model(model, found, with_goals=result["page"] == "bench")
    return "\n\n".join(parts) + "\n"


def _model(model: str, found: Mapping[str, Any], with_goals: bool) -> list[str]:
    parts = [f"## {model}", *(["### Goals", _goals(found["goals"])] if with_goals else [])]
    reasons: dict[str, list[str]] = {}
    for kind, title in TITLES.items():
        works = [work for work in found["works"].values() if work["kind"] == kind]
        if not works:
            continue
        parts += [f"### {title}", _table(works, f"library, {COLUMNS[kind]}", _time)]
        for work in works:
            for name, cell in work["peers"].items():
                if "error" in cell:
                    reasons.setdefault(f"{name}: {_one_line(cell['error'])}", []).append(_sizes(work))
    works = [work for work in found["works"].values() if work["kind"] in SHARES and work["peak_gflops"]]
    if works:
        parts += [
            "### Share of the machine's matrix product",
            "Operations a second, in percent of the fastest 2048 x 2048 x 2048 product in float32 of NumPy, TensorFlow "
            "and PyTorch in the same rounds. Captions count at their own length: what pads them computes for nothing.",
            _table(works, "library", _share, lambda work: f"{work['kind']} {_sizes(work)}"),
        ]
    if found["profiles"]:
        parts += ["### Where tf_clip's time goes", _profiles(found["profiles"])]
    if found["starts"]:
        parts += ["### Starting", _starts(found)]
    if reasons:
        lines = [f"- {reason} ({', '.join(sizes)})" for reason, sizes in reasons.items()]
        parts += ["### Errors", "\n".join(lines)]
    return parts


def _profiles(profiles: Mapping[str, Mapping[str, float]]) -> str:
    explained = (
        "Kinds of TensorFlow's operations, in percent of the time of all, summed over the threads. What a thread waits "
        "for another is not in it."
    )
    kinds = {kind for shares in profiles.values() for kind in shares}
    most = {kind: max(shares.get(kind, 0.0) for shares in profiles.values()) for kind in kinds}
    names = " | ".join(name.replace("-", " ") for name in profiles)
    rows = [f"| operation | {names} |", f"|---|{'---|' * len(profiles)}"]
    for kind in sorted(most, key=lambda kind: -most[kind]):
        if most[kind] >= LEAST_SHARE:
            cells = (f"{100 * shares.get(kind, 0.0):.1f}" for shares in profiles.values())
            rows.append(f"| `{kind}` | {' | '.join(cells)} |")
    return explained + "\n\n" + "\n".join(rows)


def _goals(goals: Sequence[Mapping[str, Any]]) -> str:
    rows = ["| goal | aimed at | measured | reached |", "|---|---|---|---|"]
    for goal in goals:
        aim = f"at least {goal['at_least']:g}" if "at_least" in goal else f"at most {goal['at_most']:g}"
        measured = "not measured" if goal["measured"] is None else f"{goal['measured']:.2f}"
        rows.append(f"| {goal['goal']} | {aim} | {measured} | {'yes' if goal['reached'] else '**no**'} |")
    return "\n".join(rows)


def _table(works: Sequence[Mapping[str, Any]], corner: str, cell: Any, head: Any = None) -> str:
    head = head or _sizes
    names = list(dict.fromkeys(name for work in works for name in work["peers"]))
    rows = [f"| {corner} | {' | '.join(head(work) for work in works)} |", f"|---|{'---|' * len(works)}"]
    for name in names:
        cells = [cell(name, work["peers"].get(name)) for work in works]
        if any(text != "-" for text in cells):
            rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _sizes(work: Mapping[str, Any]) -> str:
    return " x ".join(str(size) for size in (work["images"], work["texts"]) if size)


def _time(name: str, cell: Mapping[str, Any] | None) -> str:
    if cell is None:
        return "-"
    if "error" in cell:
        return "error"
    low, high = cell["spread"]
    return "1" if name == BASE else f"{cell['ratio']:.2f} ({low:.2f} to {high:.2f})"


def _share(name: str, cell: Mapping[str, Any] | None) -> str:
    return f"{100 * cell['share_of_peak']:.0f}" if cell and "share_of_peak" in cell else "-"


def _starts(found: Mapping[str, Any]) -> str:
    base = found["starts"].get(BASE, {})
    rows = [
        "| library | import | load a checkpoint | first embedding | memory: loading | inference | beyond imports |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, start in found["starts"].items():
        if "error" in start or "error" in base or not base:
            rows.append(f"| {name} |{' error |' * 6}")
            continue
        cells = [f"{start[field] / base[field]:.2f}" for field in ("import", "load", "first")]
        cells.append(f"{start['load_bytes'] / found['weights_bytes']:.2f}")
        cells += [f"{size(start) / size(base):.2f}" for size in (whole_process, beyond_imports)]
        rows.append(f"| {name} | {' | '.join(cells)} |")
    explained = (
        "Times are relative to tf_clip's, each in a new process, with the files in the system's cache; "
        "`first embedding` counts from the import on. tf_clip imports TensorFlow late: its import alone is short. "
        "Which engine is the fastest it has measured in a process before, and remembers. "
        "Memory of loading is what it adds at its peak, in sizes of the weights; memory of inference is the whole "
        "process's peak at 8 images and 16 captions, relative to tf_clip's, and the same without what the process "
        "had before a model was loaded. Engines that load a file for each shape are left out."
    )
    return explained + "\n\n" + "\n".join(rows)


def _one_line(text: str) -> str:
    return " ".join(text.split())[:200].replace("|", "/")
