"""What `tf-clip evaluate` does: read pictures and texts, embed them, measure, and write what was found."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tf_clip.cli import evaluation_page, tables
from tf_clip.cli.commands import embed_pictures, load
from tf_clip.cli.evaluation_data import Pictures, Skipped, read_pictures
from tf_clip.cli.html import as_data_uri
from tf_clip.cli.main import EXIT_DONE, EXIT_SOME_SKIPPED
from tf_clip.evaluation.classification import ClassificationReport
from tf_clip.evaluation.ranks import recall_curve
from tf_clip.evaluation.retrieval import RetrievalReport, nearest, retrieval_report
from tf_clip.evaluation.templates import template_set
from tf_clip.evaluation.zero_shot import TemplateRobustness, template_robustness, zero_shot_classifier
from tf_clip.models.clip import CLIPModel
from tf_clip.preprocessing.processor import CLIPProcessor
from tf_clip.tasks.embedding import embed_texts

_LONGEST_CURVE = 100
_THUMBNAIL = 192


def evaluate(options: argparse.Namespace) -> int:
    """Measures a model on pictures of known labels or captions."""
    return {"zero-shot": _zero_shot, "retrieval": _retrieval}[options.task](options)


def _zero_shot(options: argparse.Namespace) -> int:
    templates = template_set(options.template_set) if options.template_set else tuple(options.template or ("{}",))
    if options.robustness and len(templates) < 2:
        raise ValueError(
            "`--robustness` must have several templates to compare. Received: one. "
            "Add --template-set imagenet, or --template several times."
        )
    data = read_pictures(options.data, options.image_column, options.label_column)
    model, processor = load(options.model)
    embeds, data = _embedded(model, processor, data, options.batch_size)
    index_of = {name: index for index, name in enumerate(data.classes)}
    targets = np.array([index_of[label] for label in data.texts])
    robustness = None
    if options.robustness:
        with tables.progress("Comparing wordings", len(templates)) as advance:
            robustness = template_robustness(
                model, processor, embeds, targets, data.classes, templates, on_progress=advance
            )
        classifier = robustness.classifier
    else:
        with tables.status("Embedding the classes' names"):
            classifier = zero_shot_classifier(model, processor, data.classes, templates)
    report = classifier.report(embeds, targets)
    probabilities = classifier.probabilities(embeds)
    result = _zero_shot_result(options, data, report, probabilities, targets, templates, robustness)
    pictures = [_shown(Path(row["image"])) for row in result["worst"]]
    return _finish(options, result, evaluation_page.zero_shot_page(result, report, pictures))


def _zero_shot_result(
    options: argparse.Namespace,
    data: Pictures,
    report: ClassificationReport,
    probabilities: np.ndarray,
    targets: np.ndarray,
    templates: Sequence[str],
    robustness: TemplateRobustness | None,
) -> dict[str, Any]:
    wrong = np.flatnonzero(report.predictions != targets)
    worst = wrong[np.argsort(-report.confidences[wrong], kind="stable")][: options.worst]
    result: dict[str, Any] = {
        "task": "zero-shot",
        "model": options.model,
        "data": str(options.data),
        "pictures": len(data.paths),
        "classes": list(report.labels),
        "templates": list(templates),
        "metrics": report.metrics,
        "per_class": report.per_class,
        "confusion": report.confusion.tolist(),
        "calibration": [dataclasses.asdict(part) for part in report.calibration],
        "recall_curve": recall_curve(report.ranks, min(len(report.labels), _LONGEST_CURVE)).tolist(),
        "worst": [
            {
                "image": str(data.paths[row]),
                "label": data.texts[row],
                "predicted": report.labels[report.predictions[row]],
                "confidence": float(report.confidences[row]),
                "label_probability": float(probabilities[row, targets[row]]),
            }
            for row in worst
        ],
        "skipped": _skipped_rows(data),
    }
    if robustness:
        alone = zip(robustness.templates, robustness.top1.tolist(), strict=True)
        rows = [{"template": template, "top1": top1} for template, top1 in alone]
        result["robustness"] = {"metrics": robustness.metrics, "templates": rows}
    return result


def _retrieval(options: argparse.Namespace) -> int:
    if options.data.is_dir():
        raise ValueError(
            "`DATA` must be a table of images and captions for retrieval. "
            f"Received: {options.data}, a folder. Use `tf-clip evaluate zero-shot` for class folders."
        )
    data = read_pictures(options.data, options.image_column, options.caption_column)
    model, processor = load(options.model)
    image_embeds, data = _embedded(model, processor, data, options.batch_size)
    with tables.progress("Reading captions", len(data.texts)) as advance:
        text_embeds = embed_texts(model, processor, data.texts, on_progress=advance)
    # A picture of several captions has several rows, and counts once.
    paths, first_rows, image_of_text = _distinct(data.paths)
    image_embeds = image_embeds[first_rows]
    with tables.status("Ranking"):
        report = retrieval_report(image_embeds, text_embeds, image_of_text, chunk_size=options.chunk_size)
        worst = _worst_retrieved(report, image_embeds, text_embeds, image_of_text, paths, data.texts, options)
    curves = {
        "image_to_text": recall_curve(report.image_ranks, min(len(paths), _LONGEST_CURVE)).tolist(),
        "text_to_image": recall_curve(report.text_ranks, min(len(paths), _LONGEST_CURVE)).tolist(),
    }
    metrics = {"image_to_text": report.image_to_text, "text_to_image": report.text_to_image}
    result = {
        "task": "retrieval",
        "model": options.model,
        "data": str(options.data),
        "pictures": len(paths),
        "captions": len(data.texts),
        "metrics": metrics,
        "recall_curve": curves,
        "worst": worst,
        "skipped": _skipped_rows(data),
    }
    pictures = {
        "image_to_text": [[_shown(Path(row["image"]))] for row in worst["image_to_text"]],
        "text_to_image": [[_shown(Path(row["image"])), _shown(Path(row["first"]))] for row in worst["text_to_image"]],
    }
    return _finish(options, result, evaluation_page.retrieval_page(result, pictures))


def _worst_retrieved(
    report: RetrievalReport,
    image_embeds: np.ndarray,
    text_embeds: np.ndarray,
    image_of_text: np.ndarray,
    paths: Sequence[Path],
    captions: Sequence[str],
    options: argparse.Namespace,
) -> dict[str, list[dict[str, Any]]]:
    images = _last(report.image_ranks, options.worst)
    texts = _last(report.text_ranks, options.worst)
    first_texts = nearest(image_embeds[images], text_embeds, chunk_size=options.chunk_size)
    first_images = nearest(text_embeds[texts], image_embeds, chunk_size=options.chunk_size)
    own = [np.flatnonzero(image_of_text == image) for image in images]
    best = [
        places[nearest(image_embeds[image : image + 1], text_embeds[places])[0]]
        for image, places in zip(images, own, strict=True)
    ]
    return {
        "image_to_text": [
            {
                "image": str(paths[image]),
                "caption": captions[caption],
                "rank": int(report.image_ranks[image]),
                "first": captions[first],
            }
            for image, caption, first in zip(images, best, first_texts, strict=True)
        ],
        "text_to_image": [
            {
                "image": str(paths[image_of_text[text]]),
                "caption": captions[text],
                "rank": int(report.text_ranks[text]),
                "first": str(paths[first]),
            }
            for text, first in zip(texts, first_images, strict=True)
        ],
    }


def _last(ranks: np.ndarray, count: int) -> np.ndarray:
    """Returns where the largest ranks are, of those that are not 1."""
    order = np.argsort(-ranks, kind="stable")[:count]
    found: np.ndarray = order[ranks[order] > 1]
    return found


def _embedded(
    model: CLIPModel, processor: CLIPProcessor, data: Pictures, batch_size: int
) -> tuple[np.ndarray, Pictures]:
    """Returns the embeddings of the rows whose pictures can be read, and these rows; each file is read once."""
    paths, _, file_of_row = _distinct(data.paths)
    embedded = embed_pictures(model, processor, paths, batch_size)
    if not len(embedded.indices):
        raise ValueError(
            f"`DATA` must hold pictures that can be read. Received: {len(paths)} files, none of them; the first: "
            f"{embedded.failures[0]} Check the paths."
        )
    place = {int(file): row for row, file in enumerate(embedded.indices)}
    kept = [row for row, file in enumerate(file_of_row) if int(file) in place]
    skipped = [Skipped(str(paths[file]), reason) for file, reason in embedded.failures.items()]
    rows = np.array([place[int(file_of_row[row])] for row in kept])
    return embedded.embeds[rows], dataclasses.replace(
        data,
        paths=[data.paths[row] for row in kept],
        texts=[data.texts[row] for row in kept],
        skipped=[*data.skipped, *skipped],
    )


def _distinct(paths: Sequence[Path]) -> tuple[list[Path], np.ndarray, np.ndarray]:
    """Returns the different paths in their order, the first row of each, and which of them each row has."""
    index_of: dict[Path, int] = {}
    rows = np.array([index_of.setdefault(path, len(index_of)) for path in paths])
    return list(index_of), np.unique(rows, return_index=True)[1], rows


def _skipped_rows(data: Pictures) -> list[dict[str, str]]:
    return [dataclasses.asdict(row) for row in data.skipped]


def _shown(path: Path) -> str | None:
    try:
        return as_data_uri(path, _THUMBNAIL)
    except (OSError, ValueError):  # it was there when it was embedded
        return None


def _finish(options: argparse.Namespace, result: dict[str, Any], page: str) -> int:
    options.output.mkdir(parents=True, exist_ok=True)
    text = tables.printable(json.dumps(result, indent=2, ensure_ascii=False))
    (options.output / "report.json").write_text(text + "\n", encoding="utf-8")
    (options.output / "report.html").write_text(tables.printable(page), encoding="utf-8")
    if options.json:
        tables.print_json(result)
    else:
        _show(result["metrics"])
        tables.say(f"The page with charts and mistakes: {(options.output / 'report.html').resolve()}")
    for row in result["skipped"]:
        tables.warn(f"skipped {row['where']}: {row['reason']}")
    return EXIT_SOME_SKIPPED if result["skipped"] else EXIT_DONE


def _show(metrics: dict[str, Any]) -> None:
    if "top1" in metrics:
        tables.show_facts({name: f"{value:.4f}" for name, value in metrics.items()})
        return
    rows = [[name, *(f"{metrics[way][name]:.4f}" for way in metrics)] for name in metrics["image_to_text"]]
    ways = [way.replace("_", " ") for way in metrics]
    tables.show_groups({"retrieval": rows}, ["", *ways], numbers=ways)
