"""`tf-clip bench`: how fast a model is on this machine, by work, batch and engine, and where the time goes."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tf_clip.cli.arguments import EXIT_DONE, model_and_json, positive, runs

if TYPE_CHECKING:
    from tf_clip.benchmark.measure import Measurement
    from tf_clip.benchmark.profile import Operation
    from tf_clip.cli.arguments import Commands

_TITLES = {
    "image": "images to embeddings, images per second",
    "text": "captions to embeddings, captions per second",
    "joint": "pairs of an image and a caption to logits, pairs per second",
    "end_to_end": "the same from JPEG bytes and strings, pairs per second",
}
_NUMBERS = ("batch", "per second", "speed", "spread")
_SHOWN_OPERATIONS = 12
# LiteRT needs an extra and converts for minutes: it is measured only on request.
_DEFAULT_ENGINES = ("tensorflow", "xla")


def add(commands: Commands) -> None:
    """Adds the command's arguments."""
    parser = commands.add_parser(
        "bench", parents=[model_and_json()], help="measure how fast a model is on this machine"
    )
    parser.add_argument(
        "--batch",
        type=positive,
        nargs="+",
        default=[1, 8],
        metavar="N",
        help="batch sizes, of images and of texts (default: 1 8)",
    )
    parser.add_argument(
        "--engine",
        action="append",
        help="auto, tensorflow, xla or litert; may be given several times (default: tensorflow, xla)",
    )
    parser.add_argument(
        "--work",
        action="append",
        choices=tuple(_TITLES),
        help="what is measured; may be given several times (default: all)",
    )
    parser.add_argument("--rounds", type=positive, default=5, help="rounds; their median is shown (default: 5)")
    parser.add_argument(
        "--profile", type=Path, metavar="DIR", help="write a trace for TensorBoard, and show the slowest operations"
    )
    runs(parser, run)


def run(options: argparse.Namespace) -> int:
    """Measures, and shows a table."""
    from tf_clip.benchmark.measure import benchmark, work
    from tf_clip.benchmark.profile import profile
    from tf_clip.cli import tables
    from tf_clip.cli.loading import load
    from tf_clip.inference import ENGINES, compile_for_inference

    engines = list(dict.fromkeys(options.engine or _DEFAULT_ENGINES))
    for engine in engines:
        if engine not in ("auto", *ENGINES):
            raise ValueError(f"`--engine` must be one of {['auto', *ENGINES]}. Received: {engine}. Choose one.")
    kinds = list(dict.fromkeys(options.work or _TITLES))
    batches = sorted(set(options.batch))
    model, processor = load(options.model)
    with tables.progress("Measuring", len(kinds) * len(batches)) as advance:
        found = benchmark(
            model,
            processor,
            engines=engines,
            batches=batches,
            kinds=kinds,
            rounds=options.rounds,
            on_progress=advance,
        )
    operations: list[Operation] = []
    if options.profile:
        with tables.status("Recording a trace"):
            fast = compile_for_inference(model, processor, engine=engines[0])
            call = work(kinds[0], batches[-1], processor, fast)
            operations = profile(call, options.profile)
    if options.json:
        result: dict[str, Any] = {"model": options.model, "measurements": [_as_json(one) for one in found]}
        if options.profile:
            result["profile"] = [dataclasses.asdict(one) for one in operations]
        tables.print_json(result)
        return EXIT_DONE
    tables.show_groups(_rows(found, engines[0]), ("engine", *_NUMBERS), _NUMBERS)
    if options.profile:
        title = f"{kinds[0]}, batch {batches[-1]}, engine {engines[0]}"
        tables.show_groups({title: _profile_rows(operations)}, ("operation", "share", "calls"), ("share", "calls"))
        tables.say(f"The trace is for TensorBoard: tensorboard --logdir {options.profile}")
    return EXIT_DONE


def _as_json(one: Measurement) -> dict[str, Any]:
    return {**dataclasses.asdict(one), "per_second": one.per_second}


def _rows(found: list[Measurement], first: str) -> dict[str, list[list[str]]]:
    """Returns a row for each measurement, the speed relative to the first engine's at the same batch."""
    groups: dict[str, list[list[str]]] = {}
    base = {(one.kind, one.batch): one.seconds for one in found if one.engine == first}
    for one in found:
        relative = base[one.kind, one.batch] / one.seconds
        spread = f"{one.seconds / one.slowest:.2f} to {one.seconds / one.fastest:.2f}"
        row = [one.engine, str(one.batch), f"{one.per_second:,.1f}", f"{relative:.2f} x", spread]
        groups.setdefault(_TITLES[one.kind], []).append(row)
    return groups


def _profile_rows(operations: list[Operation]) -> list[list[str]]:
    shown = operations[:_SHOWN_OPERATIONS]
    rows = [[one.kind, f"{100 * one.share:.1f} %", str(one.calls)] for one in shown]
    rest = sum(one.share for one in operations[_SHOWN_OPERATIONS:])
    return [*rows, ["all others", f"{100 * rest:.1f} %", ""]] if rest else rows
