"""From the records of a run to what is shown: ratios, shares of the peak, memory in sizes of the weights, goals."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from inputs import config_of
from measure import ratio
from peers import BASE, BY_NAME, ENGINES, MATMUL, PADS_TO_77, TORCH
from works import MATMUL_OPERATIONS, Work, operations

PROCESSORS = ("transformers eager", "transformers sdpa", "transformers sdpa, torchvision's processor")
IMAGE_GOALS = {1: 1.6, 8: 1.25, 32: 1.25}
IMPORT_SECONDS = 0.5
START = ("import", "load", "first", "ready_bytes", "load_bytes", "inference_bytes")


def summary(model: str, works: Sequence[Work], folder: Path, records: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns everything that is written about one model.

    Args:
        model: its name.
        works: what was done.
        folder: with the inputs and the weights.
        records: what was measured.
    """
    records = list(records)
    config = config_of(model)
    with np.load(folder / "inputs.npz") as file:
        lengths = file["attention_mask"].sum(1).tolist()
    weights = (folder / "weights" / "model.safetensors").stat().st_size
    found: dict[str, Any] = {
        "weights_bytes": weights,
        "works": {work.name: _work(work, records, operations(work, config, lengths)) for work in works},
        "profiles": {one["work"]: one["shares"] for one in records if one["record"] == "profile"},
        "starts": _starts(records),
        "command_line": next((one for one in records if one["record"] == "command line"), {}).get("times"),
        "memory": {name: size for one in records if one["record"] == "memory" for name, size in one["bytes"].items()},
    }
    found["goals"] = goals(found)
    return found


def _work(work: Work, records: Sequence[Mapping[str, Any]], count: int | None) -> dict[str, Any]:
    results: dict[str, Any] = {}
    peak, base_rounds = 0.0, []
    for record in records:
        if record["record"] != "work" or record["work"] != work.name:
            continue
        times, errors = record["times"], record["errors"]
        results |= {name: {"error": reason} for name, reason in errors.items() if name != MATMUL.name}
        base = times.get(BASE)
        here = max(
            (MATMUL_OPERATIONS / statistics.median(rounds) / 1e9 for rounds in record["matmul"].values() if rounds),
            default=0.0,
        )
        peak = max(peak, here)
        if base is None:
            continue
        base_rounds.append((base, here))
        for name, rounds in times.items():
            if name != BASE:
                results[name] = {**ratio(rounds, base), **_speed(rounds, count, here)}
    if base_rounds:
        # It ran beside each group, against whose peak its share is.
        all_rounds = [seconds for rounds, _ in base_rounds for seconds in rounds]
        shares = [_speed(rounds, count, here).get("share_of_peak") for rounds, here in base_rounds]
        speed = _speed(all_rounds, count, peak)
        if "share_of_peak" in speed:
            speed["share_of_peak"] = statistics.median(share for share in shares if share is not None)
        results = {BASE: {**ratio(all_rounds, all_rounds), **speed}, **results}
    ordered = {name: results[name] for name in BY_NAME if name in results}
    return {"kind": work.kind, "images": work.images, "texts": work.texts, "peak_gflops": peak, "peers": ordered}


def _speed(rounds: Sequence[float], count: int | None, peak: float) -> dict[str, float]:
    if count is None:
        return {}
    speed = count / statistics.median(rounds) / 1e9
    return {"gflops": speed, **({"share_of_peak": speed / peak} if peak else {})}


def _starts(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    starts: dict[str, Any] = {}
    for record in records:
        if record["record"] == "start" and (record["round"] or "error" in record):
            starts.setdefault(record["peer"], []).append(record)
    return {
        name: {"error": rounds[0]["error"]}
        if "error" in rounds[0]
        else {field: statistics.median(one[field] for one in rounds if field in one) for field in START}
        for name, rounds in starts.items()
    }


def goals(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns what was aimed at, what was measured, and whether that reaches it.

    Returns:
        Dictionaries of `goal`, `at_least` or `at_most`, `measured` (None where something is missing) and `reached`.
    """
    works: Mapping[str, Any] = found["works"]
    rows: list[dict[str, Any]] = []

    def add(goal: str, measured: float | None, *, at_least: float | None = None, at_most: float | None = None) -> None:
        bound = {"at_least": at_least} if at_least is not None else {"at_most": at_most}
        reached = measured is not None and (measured >= at_least if at_least is not None else measured <= at_most)
        rows.append({"goal": goal, **bound, "measured": measured, "reached": bool(reached)})

    def against(work: str, names: Sequence[str]) -> float | None:
        ratios = [works[work]["peers"].get(name, {}).get("ratio") for name in names]
        return min((value for value in ratios if value is not None), default=None)

    for name, work in works.items():
        kind, images, texts = work["kind"], work["images"], work["texts"]
        if kind == "image" and images in IMAGE_GOALS:
            label = f"images, batch {images}: speed against"
            add(f"{label} PyTorch's best", against(name, TORCH), at_least=IMAGE_GOALS[images])
            add(f"{label} ONNX Runtime and OpenVINO", against(name, ENGINES), at_least=1.05)
        if kind == "image" and images == 8:
            share = work["peers"].get(BASE, {}).get("share_of_peak")
            add("images, batch 8: share of the best matrix product", share, at_least=0.9)
        if kind == "text":
            label = f"captions, batch {texts}: speed against"
            add(f"{label} who pads to 77", against(name, PADS_TO_77), at_least=4.0)
            add(f"{label} transformers, padded to the longest", against(name, TORCH), at_least=1.15)
        if kind == "end_to_end":
            label = f"{images} JPEG files and {texts} strings: speed against transformers' best processor"
            add(label, against(name, PROCESSORS), at_least=1.5)
        if kind == "training":
            add("training step: speed against PyTorch's best", against(name, TORCH), at_least=1.0)
    if found["starts"]:
        _add_starts(found, add)
    return rows


def whole_process(start: Mapping[str, float]) -> float:
    """Returns the most memory that a process had while it encoded."""
    return start["inference_bytes"]


def beyond_imports(start: Mapping[str, float]) -> float:
    """Returns the same without what it had before a model was loaded."""
    return start["inference_bytes"] - start["ready_bytes"]


def _add_starts(found: Mapping[str, Any], add: Callable[..., None]) -> None:
    ours = found["starts"].get(BASE, {})
    load = ours.get("load_bytes")
    add("memory of loading, in sizes of the weights", load and load / found["weights_bytes"], at_most=1.3)
    torch = [start for name in TORCH[:2] if "inference_bytes" in (start := found["starts"].get(name, {}))]
    for label, size in (("", whole_process), (", without what the imports take", beyond_imports)):
        share = size(ours) / min(map(size, torch)) if torch and "inference_bytes" in ours else None
        add(f"memory of inference{label}, against PyTorch's", share, at_most=1.0)
    times = found["command_line"] or {}
    share = times["import tf_clip"] / IMPORT_SECONDS if times else None
    add(f"import of tf_clip, as a share of {IMPORT_SECONDS:g} seconds", share, at_most=1.0)
    whole = None
    if times:
        whole = (times["answer"] - times["compute"]) / times["import tensorflow, whole process"]
    add("command line: first answer without the compute, against importing TensorFlow", whole, at_most=1.3)
