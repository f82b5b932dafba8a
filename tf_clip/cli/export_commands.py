"""What `tf-clip export` does: write a model for other programs to run."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Any

from tf_clip.cli import tables
from tf_clip.cli.commands import labels_of, load
from tf_clip.cli.main import EXIT_DONE
from tf_clip.export.write import DESCRIPTION, saved_model


def export(options: argparse.Namespace) -> int:
    """Writes a SavedModel, and says what it takes and gives."""
    has_labels = options.labels is not None or options.labels_file is not None
    if options.template and not has_labels:
        raise ValueError(
            "`--template` must come with `--labels` or `--labels-file`. Received: --template alone. Add one."
        )
    labels = labels_of(options) if has_labels else None
    model, processor = load(options.model)
    with tables.status(f"Writing {options.out}"):
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
        (name, _sides(signature["inputs"]), _sides(signature["outputs"]), "yes" if signature["batchable"] else "no")
        for name, signature in description["signatures"].items()
    ]
    tables.show_groups({"": rows}, ("signature", "takes", "gives", "batched"))
    tables.say("? is any number. Servers take the folder above the version.")
    return EXIT_DONE


def _sides(tensors: Mapping[str, Mapping[str, Any]]) -> str:
    return "\n".join(f"{name} {spec['dtype']} {_shape(spec['shape'])}" for name, spec in tensors.items())


def _shape(shape: Sequence[int | None]) -> str:
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"
