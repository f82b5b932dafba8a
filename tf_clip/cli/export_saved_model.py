"""`tf-clip export saved-model`: a TensorFlow SavedModel, and what TensorFlow Serving needs beside it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

from tf_clip.cli import tables
from tf_clip.cli.arguments import EXIT_DONE
from tf_clip.cli.inputs import labels_if_given
from tf_clip.cli.loading import load
from tf_clip.cli.signatures import signature_rows
from tf_clip.export.savedmodel.write import DESCRIPTION, saved_model


def run(options: argparse.Namespace) -> int:
    """Writes a SavedModel, and shows its signatures."""
    labels = labels_if_given(options)
    make_kit = None if options.no_kit else _kit_maker()
    model, processor = load(options.model)
    with tables.status(f"Writing {options.out}") as status:

        def add_kit(folder: Path) -> None:
            if make_kit is not None:
                make_kit(folder, name=options.name, on_progress=lambda what: status.update(f"Serving kit: {what}"))

        folder = saved_model(
            model,
            processor,
            options.out,
            labels=labels,
            templates=options.template or ("{}",),
            version=options.version,
            dtype=options.dtype,
            on_bad_row=options.on_bad_row,
            top_k=options.top_k,
            name=options.name,
            overwrite=options.overwrite,
            before_publishing=add_kit,
        )
    description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    if options.json:
        tables.print_json({"folder": str(folder), "bytes": size, **description})
        return EXIT_DONE
    labels_told = "none" if labels is None else f"{len(labels)}, in the signature classify"
    tables.show_facts(
        {
            "written": f"{folder}, {size / 1e6:,.1f} MB",
            "name": description["model"],
            "weights": description["dtype"],
            "labels": labels_told,
        }
    )
    rows = [
        (*row, "yes" if signature["batchable"] else "no")
        for row, signature in zip(signature_rows(description), description["signatures"].values(), strict=True)
    ]
    tables.show_groups({"": rows}, ("signature", "takes", "gives", "batched"))
    tables.say("? is any number. Servers take the folder above the version.")
    if make_kit is not None:
        tables.say(f"How to serve and ask it: {options.out / 'serving' / 'README.md'}")
    return EXIT_DONE


def _kit_maker() -> Callable[..., object]:
    """Returns what writes the serving kit; at once an error if something for it is missing, not after minutes."""
    try:
        from tf_clip.export.kit.write import serving_kit
    except ImportError as error:
        raise ImportError(f"{error}, or leave the kit out with --no-kit.") from error
    return serving_kit
