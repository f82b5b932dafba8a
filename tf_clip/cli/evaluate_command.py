"""What `tf-clip evaluate` does: read images and texts, embed them, measure, and write what was found."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np

from tf_clip.cli import evaluation_page, tables
from tf_clip.cli.commands import load
from tf_clip.cli.evaluation_data import EmbeddedImages, embed_pairs
from tf_clip.cli.main import EXIT_DONE, EXIT_SOME_SKIPPED
from tf_clip.data.reading import read_pairs
from tf_clip.evaluation.classification import ClassificationReport
from tf_clip.evaluation.ranks import recall_curve
from tf_clip.evaluation.retrieval import nearest, retrieval_report
from tf_clip.evaluation.templates import template_set
from tf_clip.evaluation.zero_shot import TemplateRobustness, template_robustness, zero_shot_classifier
from tf_clip.tasks.embedding import embed_texts

_LONGEST_CURVE = 100
_THUMBNAIL = 192


def evaluate(options: argparse.Namespace) -> int:
    """Measures a model on images of known labels or captions."""
    return {"zero-shot": _zero_shot, "retrieval": _retrieval}[options.task](options)


def _zero_shot(options: argparse.Namespace) -> int:
    templates = template_set(options.template_set) if options.template_set else tuple(options.template or ("{}",))
    if options.robustness and len(templates) < 2:
        raise ValueError(
            "`--robustness` must have several templates to compare. Received: one. "
            "Add --template-set imagenet, or --template several times."
        )
    if Path(options.data).is_dir():
        pairs = read_pairs(options.data, template="{}")
    else:
        pairs = read_pairs(options.data, image_column=options.image_column, caption_column=options.label_column)
    model, processor = load(options.model)
    data = embed_pairs(model, processor, pairs, options.batch_size, one_text=True)
    classes = sorted(set(data.texts))
    index_of = {name: index for index, name in enumerate(classes)}
    targets = np.array([index_of[label] for label in data.texts])
    embeds = data.image_embeds[data.image_of_text]
    robustness = None
    if options.robustness:
        with tables.progress("Comparing wordings", len(templates)) as advance:
            robustness = template_robustness(model, processor, embeds, targets, classes, templates, on_progress=advance)
        classifier = robustness.classifier
    else:
        with tables.status("Embedding the classes' names"):
            classifier = zero_shot_classifier(model, processor, classes, templates)
    report = classifier.report(embeds, targets)
    probabilities = classifier.probabilities(embeds)
    wrong = np.flatnonzero(report.predictions != targets)
    worst = wrong[np.argsort(-report.confidences[wrong], kind="stable")][: options.worst]
    result = {
        "task": "zero-shot",
        "model": options.model,
        "data": options.data,
        "images": len(targets),
        "classes": list(report.labels),
        "templates": list(templates),
        **_classified(report),
        "worst": [
            {
                "image": data.pairs.where(data.text_rows[place]),
                "label": data.texts[place],
                "predicted": report.labels[report.predictions[place]],
                "confidence": float(report.confidences[place]),
                "label_probability": float(probabilities[place, targets[place]]),
            }
            for place in worst
        ],
        "skipped": _skipped(data),
    }
    if robustness:
        result["robustness"] = _compared(robustness)
    images = [data.image(data.text_rows[place], _THUMBNAIL) for place in worst]
    return _finish(options, result, evaluation_page.zero_shot_page(result, report, images))


def _classified(report: ClassificationReport) -> dict[str, Any]:
    return {
        "metrics": report.metrics,
        "per_class": report.per_class,
        "confusion": report.confusion.tolist(),
        "calibration": [dataclasses.asdict(part) for part in report.calibration],
        "recall_curve": recall_curve(report.ranks, min(len(report.labels), _LONGEST_CURVE)).tolist(),
    }


def _compared(robustness: TemplateRobustness) -> dict[str, Any]:
    alone = zip(robustness.templates, robustness.top1.tolist(), strict=True)
    return {
        "metrics": robustness.metrics,
        "templates": [{"template": template, "top1": top1} for template, top1 in alone],
    }


def _retrieval(options: argparse.Namespace) -> int:
    if Path(options.data).is_dir():
        raise ValueError(
            "`DATA` must be a table or archive of images and captions for retrieval. "
            f"Received: {options.data}, a folder. Use `tf-clip evaluate zero-shot` for class folders."
        )
    pairs = read_pairs(options.data, image_column=options.image_column, caption_column=options.caption_column)
    model, processor = load(options.model)
    data = embed_pairs(model, processor, pairs, options.batch_size, one_text=False)
    with tables.progress("Reading captions", len(data.texts)) as advance:
        text_embeds = embed_texts(model, processor, data.texts, on_progress=advance)
    with tables.status("Ranking"):
        report = retrieval_report(data.image_embeds, text_embeds, data.image_of_text, chunk_size=options.chunk_size)
        images, texts = _last(report.image_ranks, options.worst), _last(report.text_ranks, options.worst)
        first_texts = nearest(data.image_embeds[images], text_embeds, chunk_size=options.chunk_size)
        first_images = nearest(text_embeds[texts], data.image_embeds, chunk_size=options.chunk_size)
    names = [pairs.where(row) for row in data.image_rows]
    longest = min(len(names), _LONGEST_CURVE)
    result: dict[str, Any] = {
        "task": "retrieval",
        "model": options.model,
        "data": options.data,
        "images": len(names),
        "captions": len(data.texts),
        "shared_captions": _shared(data),
        "metrics": {"image_to_text": report.image_to_text, "text_to_image": report.text_to_image},
        "recall_curve": {
            "image_to_text": recall_curve(report.image_ranks, longest).tolist(),
            "text_to_image": recall_curve(report.text_ranks, longest).tolist(),
        },
        "worst": {
            "image_to_text": [
                {
                    "image": names[image],
                    "caption": data.texts[_best_caption(data, text_embeds, image)],
                    "rank": int(report.image_ranks[image]),
                    "first": data.texts[first],
                }
                for image, first in zip(images, first_texts, strict=True)
            ],
            "text_to_image": [
                {
                    "image": names[data.image_of_text[text]],
                    "caption": data.texts[text],
                    "rank": int(report.text_ranks[text]),
                    "first": names[first],
                }
                for text, first in zip(texts, first_images, strict=True)
            ],
        },
        "skipped": _skipped(data),
    }
    shown = {
        "image_to_text": [[_image(data, image)] for image in images],
        "text_to_image": [
            [_image(data, data.image_of_text[text]), _image(data, first)]
            for text, first in zip(texts, first_images, strict=True)
        ],
    }
    if result["shared_captions"]:
        tables.warn(evaluation_page.SHARED.format(count=result["shared_captions"]))
    return _finish(options, result, evaluation_page.retrieval_page(result, shown))


def _shared(data: EmbeddedImages) -> int:
    """Returns how many captions another image has, too, word for word."""
    owners: dict[str, set[int]] = {}
    for text, image in zip(data.texts, data.image_of_text.tolist(), strict=True):
        owners.setdefault(text, set()).add(image)
    return sum(len(owners[text]) > 1 for text in data.texts)


def _image(data: EmbeddedImages, image: int) -> str | None:
    return data.image(data.image_rows[image], _THUMBNAIL)


def _best_caption(data: EmbeddedImages, text_embeds: np.ndarray, image: int) -> int:
    own = np.flatnonzero(data.image_of_text == image)
    return int(own[nearest(data.image_embeds[image : image + 1], text_embeds[own])[0]])


def _last(ranks: np.ndarray, count: int) -> np.ndarray:
    """Returns where the largest ranks are, of those that are not 1."""
    order = np.argsort(-ranks, kind="stable")[:count]
    found: np.ndarray = order[ranks[order] > 1]
    return found


def _skipped(data: EmbeddedImages) -> list[dict[str, str]]:
    return [{"where": row.where, "reason": row.why} for row in data.skipped]


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
