"""`tf-clip export litert`: .tflite files for phones and browsers, and a report of what each recipe costs."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tf_clip.cli import tables
from tf_clip.cli.arguments import EXIT_DONE
from tf_clip.cli.inputs import image_paths, labels_if_given, lines
from tf_clip.cli.loading import load
from tf_clip.cli.signatures import signature_rows
from tf_clip.export.tflite.measure import RecipeReport, litert_report
from tf_clip.export.tflite.runtime import description_of
from tf_clip.export.tflite.write import litert

_REPORT = ("recipe", "image MB", "text MB", "of float32", "image cosine", "text cosine", "agreement", "R@1", "times")


def run(options: argparse.Namespace) -> int:
    """Writes the files, shows their signatures, and with `--report` measures every recipe."""
    labels = labels_if_given(options)
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
        f"{file}, {file.stat().st_size / 1e6:,.2f} MB, {options.quantization}": signature_rows(descriptions[part])
        for part, file in files.items()
    }
    tables.show_groups(groups, ("signature", "takes", "gives"))
    if reports:
        tables.show_groups({"": [_report_row(report, reports[0]) for report in reports]}, _REPORT, _REPORT[1:])
        tables.say("Times are shares of float32's; cosines, with the Keras model, the mean and the worst.")


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
