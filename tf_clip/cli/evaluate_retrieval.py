"""`tf-clip evaluate retrieval`: how well a model finds captions by images, and images by captions."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from tf_clip.cli import evaluation_page, tables
from tf_clip.cli.evaluation_data import EmbeddedImages, embed_pairs
from tf_clip.cli.evaluation_report import curve_of, finish
from tf_clip.cli.loading import load
from tf_clip.data.reading import read_pairs
from tf_clip.evaluation.retrieval import nearest, retrieval_report
from tf_clip.tasks.embedding import embed_texts


def run(options: argparse.Namespace) -> int:
    """Ranks captions for each image and images for each caption, and writes what was found."""
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
    result: dict[str, Any] = {
        "task": "retrieval",
        "model": options.model,
        "data": options.data,
        "images": len(names),
        "captions": len(data.texts),
        "shared_captions": _shared(data),
        "metrics": {"image_to_text": report.image_to_text, "text_to_image": report.text_to_image},
        "recall_curve": {
            "image_to_text": curve_of(report.image_ranks, len(names)),
            "text_to_image": curve_of(report.text_ranks, len(names)),
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
        "skipped": data.skipped_rows(),
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
    return finish(options, result, evaluation_page.retrieval_page(result, shown))


def _shared(data: EmbeddedImages) -> int:
    """Returns how many captions another image has, too, word for word."""
    owners: dict[str, set[int]] = {}
    for text, image in zip(data.texts, data.image_of_text.tolist(), strict=True):
        owners.setdefault(text, set()).add(image)
    return sum(len(owners[text]) > 1 for text in data.texts)


def _image(data: EmbeddedImages, image: int) -> str | None:
    return data.image(data.image_rows[image])


def _best_caption(data: EmbeddedImages, text_embeds: np.ndarray, image: int) -> int:
    own = np.flatnonzero(data.image_of_text == image)
    return int(own[nearest(data.image_embeds[image : image + 1], text_embeds[own])[0]])


def _last(ranks: np.ndarray, count: int) -> np.ndarray:
    """Returns where the largest ranks are, of those that are not 1."""
    order = np.argsort(-ranks, kind="stable")[:count]
    found: np.ndarray = order[ranks[order] > 1]
    return found
