"""`tf-clip models`: the published checkpoints that can be loaded."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from tf_clip.cli.arguments import EXIT_DONE, add_json, runs

if TYPE_CHECKING:
    from tf_clip.cli.arguments import Commands


def add(commands: Commands) -> None:
    """Adds the command's arguments."""
    parser = commands.add_parser("models", help="list the published checkpoints that can be loaded")
    parser.add_argument("containing", nargs="?", default="", help='a word in their names, such as "laion" or "B/32"')
    add_json(parser)
    runs(parser, run, uses_tensorflow=False)


def run(options: argparse.Namespace) -> int:
    """Lists the published checkpoints."""
    from tf_clip.cli import tables
    from tf_clip.families import cost, published

    found = published.known_models(options.containing)
    rows: list[dict[str, Any]] = [
        {
            "model": model.hub_id,
            "architecture": model.architecture,
            "image size": model.config.vision_config.image_size,
            "parameters": cost.parameter_count(model.config),
            "GFLOPs per image": giga(cost.operations_per_image(model.config)),
            "trained on": model.trained_on,
            "license": model.license,
            "format": model.layout,
            "images": model.images,
            "url": model.url,
            "sha256": model.sha256,
        }
        for model in found
    ]
    if options.json:
        tables.print_json(rows)
        return EXIT_DONE
    if not rows:
        raise ValueError(
            f"`containing` must be part of a name. Received: {options.containing!r}. Leave it out for all."
        )
    groups: dict[str, list[tuple[str, ...]]] = {}
    for model, row in zip(found, rows, strict=True):
        cells = (
            *(str(row[name]) for name in ("model", "architecture", "image size")),
            f"{row['parameters'] / 1e6:,.0f} M",
            f"{row['GFLOPs per image']:,.1f}",
        )
        groups.setdefault(f"{model.publisher}, {model.trained_on}, {model.license}", []).append(cells)
    headings = ("model", "architecture", "pixels", "parameters", "GFLOPs")
    tables.show_groups(groups, headings, numbers=("pixels", "parameters", "GFLOPs"))
    tables.say("Pass a model's name to --model or from_pretrained. GFLOPs are per image, two per multiply-add.")
    return EXIT_DONE


def giga(operations: int) -> float:
    """Returns operations in units of 10^9, to four digits."""
    return float(f"{operations / 1e9:.4g}")
