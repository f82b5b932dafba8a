"""`tf-clip evaluate zero-shot`: how often a model chooses the right class of an image."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from tf_clip.cli import evaluation_page, tables
from tf_clip.cli.evaluation_data import embed_pairs
from tf_clip.cli.evaluation_report import curve_of, finish
from tf_clip.cli.loading import load
from tf_clip.data.reading import read_pairs
from tf_clip.evaluation.classification import ClassificationReport
from tf_clip.evaluation.templates import template_set
from tf_clip.evaluation.zero_shot import TemplateRobustness, template_robustness, zero_shot_classifier


def run(options: argparse.Namespace) -> int:
    """Classifies images by the names of their classes, and writes what was found."""
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
        "skipped": data.skipped_rows(),
    }
    if robustness:
        result["robustness"] = _compared(robustness)
    images = [data.image(data.text_rows[place]) for place in worst]
    return finish(options, result, evaluation_page.zero_shot_page(result, report, images))


def _classified(report: ClassificationReport) -> dict[str, Any]:
    return {
        "metrics": report.metrics,
        "per_class": report.per_class,
        "confusion": report.confusion.tolist(),
        "calibration": [dataclasses.asdict(part) for part in report.calibration],
        "recall_curve": curve_of(report.ranks, len(report.labels)),
    }


def _compared(robustness: TemplateRobustness) -> dict[str, Any]:
    alone = zip(robustness.templates, robustness.top1.tolist(), strict=True)
    return {
        "metrics": robustness.metrics,
        "templates": [{"template": template, "top1": top1} for template, top1 in alone],
    }
