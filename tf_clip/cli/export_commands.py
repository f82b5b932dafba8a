"""What `tf-clip export` does: write a model for other programs to run."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tf_clip.cli import tables
from tf_clip.cli.commands import image_paths, labels_of, lines, load
from tf_clip.cli.main import EXIT_DONE
from tf_clip.export.savedmodel.write import DESCRIPTION, saved_model
from tf_clip.export.tflite.file import description_of
from tf_clip.export.tflite.measure import RecipeReport, litert_report
from tf_clip.export.tflite.write import litert


def export(options: argparse.Namespace) -> int:
    """Writes a model, and says what the files take and give."""
    return _litert(options) if options.format == "litert" else _saved_model(options)


def _given_labels(options: argparse.Namespace) -> list[str] | None:
    has_labels = options.labels is not None or options.labels_file is not None
    if options.template and not has_labels:
        raise ValueError(
            "`--template` must come with `--labels` or `--labels-file`. Received: --template alone. Add one."
        )
    return labels_of(options) if has_labels else None


def _saved_model(options: argparse.Namespace) -> int:
    labels = _given_labels(options)
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
        for row, signature in zip(_signature_rows(description), description["signatures"].values(), strict=True)
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


def _litert(options: argparse.Namespace) -> int:
    labels = _given_labels(options)
    if options.report and labels is None:
        raise ValueError(
            "`--report` must come with `--labels` or `--labels-file`. Received: --report alone. Say what to look for."
        )
    templates = options.template or ("{}",)
    calibration: dict[str, Any] = {
        "calibration_images": image_paths(options.calibration_images),
        "calibration_texts": lines(options.calibration_texts_file, "--calibration-texts-file")
        if options.calibration_texts_file
        else [],
    }
    parts = options.parts.split(",") if options.parts else None
    # Without a file that classifies, labels are for the report alone.
    classes: dict[str, Any] = (
        {} if parts and "classify" not in parts and options.report else {"labels": labels, "templates": templates}
    )
    model, processor = load(options.model)
    with tables.status(f"Writing {options.out}"):
        files = litert(
            model,
            processor,
            options.out,
            parts=parts,
            quantization=options.quantization,
            text_lengths=_lengths(options.text_lengths),
            name=options.name,
            overwrite=options.overwrite,
            **classes,
            **calibration,
        )
    reports = []
    if options.report:
        images = image_paths(options.report)
        with tables.status("Measuring every recipe"):
            reports = litert_report(
                model,
                processor,
                images,
                labels or [],
                templates=templates,
                targets=_targets(images, labels or []),
                **calibration,
            )
    _show_litert(options, files, reports)
    return EXIT_DONE


def _show_litert(options: argparse.Namespace, files: Mapping[str, Path], reports: Sequence[RecipeReport]) -> None:
    descriptions = {part: description_of(file.read_bytes()) for part, file in files.items()}
    if options.json:
        written = {
            part: {"file": str(file), "bytes": file.stat().st_size, **descriptions[part]}
            for part, file in files.items()
        }
        tables.print_json({"files": written, "report": [dataclasses.asdict(report) for report in reports]})
        return
    groups = {
        f"{file}, {file.stat().st_size / 1e6:,.2f} MB, {options.quantization}": _signature_rows(descriptions[part])
        for part, file in files.items()
    }
    tables.show_groups(groups, ("signature", "takes", "gives"))
    if reports:
        tables.show_groups({"": [_report_row(report, reports[0]) for report in reports]}, _REPORT, _REPORT[1:])
        tables.say("Times are shares of float32's; cosines, with the Keras model, the mean and the worst.")


_REPORT = ("recipe", "image MB", "text MB", "of float32", "image cosine", "text cosine", "agreement", "R@1", "times")


def _report_row(report: RecipeReport, first: RecipeReport) -> tuple[str, ...]:
    share = sum(report.sizes.values()) / sum(first.sizes.values())
    return (
        report.quantization,
        *(f"{report.sizes[part] / 1e6:,.2f}" for part in ("image", "text")),
        f"{share:.3f}",
        *(f"{mean:.5f} {worst:.5f}" for mean, worst in (report.image_cosine, report.text_cosine)),
        f"{report.agreement:.3f}",
        "" if report.recall is None else f"{report.recall:.3f}",
        f"{report.image_time:.2f} {report.text_time:.2f}",
    )


def _targets(images: Sequence[Path], labels: Sequence[str]) -> list[int] | None:
    """Returns the labels that the images are named as, if all are."""
    names = [image.stem for image in images]
    return [labels.index(name) for name in names] if set(names) <= set(labels) else None


def _lengths(given: str | None) -> list[int] | None:
    if given is None:
        return None
    if not all(length.strip().isdigit() for length in given.split(",")):
        raise ValueError(f"`--text-lengths` must be whole numbers. Received: {given}. Write 16,32.")
    return [int(length) for length in given.split(",")]


def _signature_rows(description: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    return [
        (name, _sides(signature["inputs"]), _sides(signature["outputs"]))
        for name, signature in description["signatures"].items()
    ]


def _sides(tensors: Mapping[str, Mapping[str, Any]]) -> str:
    return "\n".join(f"{name} {spec['dtype']} {_shape(spec['shape'])}" for name, spec in tensors.items())


def _shape(shape: Sequence[int | None]) -> str:
    return "[" + ", ".join("?" if size is None else str(size) for size in shape) + "]"
