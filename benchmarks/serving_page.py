"""What a load test found, as a page with a table and an image."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from kept import keep
from matplotlib import pyplot

COLOURS = ("#4477aa", "#66ccee", "#228833", "#ccbb44")


def write_page(folder: Path, result: dict[str, Any]) -> None:
    """Writes `serving.json`, `serving.md` and `serving.png` into a folder."""
    result = keep(folder / "serving.json", result)
    (folder / "serving.md").write_text(_page(result), encoding="utf-8")
    _draw(result, folder / "serving.png")


def _page(result: dict[str, Any]) -> str:
    answers, soak = result["answers"], result["soak"]
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(answers["kinds"].items()))
    rows = "\n".join(
        f"| {cell['setting']} | {cell['clients']} | {cell['throughput']:.2f} x | "
        + " | ".join(f"{cell[name]:.1f} x" for name in ("p50", "p95", "p99"))
        + f" | {cell['calls']:,} |"
        for cell in result["settings"]
    )
    return f"""# The local server under load

Written by `make bench-serving` on {result["run"]}:
{result["minutes"]:g} minutes of load on loopback, on the shipped `pictogram-clip`. Clients and server share the
machine.

**{answers["calls"]:,} calls ({kinds}): {answers["wrong"]} wrong answers, {answers["lost"]} lost.** An answer is wrong
when it differs from the Python model's by more than 1e-5.

![Throughput and time against clients for each batch setting, and the long run over time](serving.png)

## Batch settings

Each client has one call under way at a time. Throughput and times are ratios to one client without batching: its
calls a second, and its median time.

| `--max-batch-size` and waiting | clients | throughput | p50 | p95 | p99 | calls |
|---|---|---|---|---|---|---|
{rows}

"no batching" is `--max-batch-size 1`, where the client sends the rows of a call one by one; "waiting" waits five times
as long for company as the one above it (`--batch-timeout-ms 10`).

## The long run

{soak["clients"]} clients for {soak["seconds"]:.0f} seconds. The server was killed with `kill -9` and started again,
and changed to two newer versions, all under load. It was away for {soak["down"]:.1f} times as long as it takes to
start on an idle machine; the longest call, with its retries, took {soak["longest"]:.1f} times as long as it was away.
The server's memory at the end, after two changes of version, was {soak["memory"]:.2f} times what it was before them.
"""


def _draw(result: dict[str, Any], path: Path) -> None:
    figure, (left, middle, right) = pyplot.subplots(1, 3, figsize=(15, 4.4), constrained_layout=True)
    names = list(dict.fromkeys(cell["setting"] for cell in result["settings"]))
    for name, color in zip(names, COLOURS, strict=True):
        cells = [cell for cell in result["settings"] if cell["setting"] == name]
        clients = [cell["clients"] for cell in cells]
        left.plot(clients, [cell["throughput"] for cell in cells], "o-", color=color, label=name)
        middle.plot(clients, [cell["p50"] for cell in cells], "o-", color=color, label=name)
        middle.plot(clients, [cell["p99"] for cell in cells], "o:", color=color)
    for axes, title in ((left, "calls a second"), (middle, "time of a call: p50, and p99 dotted")):
        axes.set(xscale="log", xlabel="clients", title=f"{title}, relative to\none client without batching")
        axes.set_xticks(clients, [str(count) for count in clients])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
        axes.set_ylim(bottom=0)
    left.legend(frameon=False)
    _draw_timeline(right, result["soak"])
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _draw_timeline(axes: Any, soak: dict[str, Any]) -> None:
    shown = (("throughput", "calls a second"), ("time", "median time"), ("memory", "memory"))
    for (name, label), color in zip(shown, COLOURS, strict=False):
        values = [math.nan if value is None else value for value in soak["timeline"][name]]
        axes.plot([(step + 0.5) / len(values) for step in range(len(values))], values, color=color, label=label)
    for where, event in soak["events"]:
        axes.axvline(where, color="#aa3377", linewidth=0.8, linestyle="--")
        axes.text(where, 2.95, f" {event}", rotation=90, va="top", ha="right", fontsize=8, color="#aa3377")
    axes.set(title="the long run, relative to each median", xlabel="share of the run", xlim=(0, 1), ylim=(0, 3))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, loc="upper right")
