"""`tf-clip classify`: the best labels for each image."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from tf_clip.cli.arguments import add_images, add_labels, add_top, model_and_json, runs
from tf_clip.cli.inputs import image_paths, labels_of
from tf_clip.files import write_text

if TYPE_CHECKING:
    from tf_clip.cli.arguments import Commands


def add(commands: Commands) -> None:
    """Adds the command's arguments."""
    parser = commands.add_parser("classify", parents=[model_and_json()], help="choose the best label for each image")
    add_images(parser, "+")
    add_labels(parser, required=True)
    add_top(parser, "labels shown per image")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with the images and their scores")
    runs(parser, run)


def run(options: argparse.Namespace) -> int:
    """Computes the probability of each label for each image."""
    labels = labels_of(options)
    paths = image_paths(options.images)
    from tf_clip.cli import classification_page, tables
    from tf_clip.cli.encoding import embed_with_progress, ranked
    from tf_clip.cli.loading import load_encoder
    from tf_clip.tasks.zero_shot import class_embeddings, class_probabilities, scoring

    templates = options.template or ("{}",)
    processor, encoder = load_encoder(options.model, len(paths) + len(labels) * len(templates))
    class_embeds = class_embeddings(encoder, processor, labels, templates)
    embedded = embed_with_progress(encoder, processor, paths, options.batch_size)
    probabilities = class_probabilities(embedded.embeds, class_embeds, **scoring(encoder))
    scored = [
        (paths[index], ranked(labels, scores, options.top))
        for index, scores in zip(embedded.indices, probabilities, strict=True)
    ]
    if options.html:
        write_text(options.html, tables.printable(classification_page.page(scored, options.model)))
    skipped = tables.skipped(paths, embedded.failures)
    if options.json:
        rows = [{"image": str(path), "scores": scores} for path, scores in scored]
        tables.print_json({"model": options.model, "images": rows, "skipped": skipped})
    else:
        tables.show_scores([(path.name, scores) for path, scores in scored], ("image", "label"))
        if options.html:
            tables.say(f"The page with the images: {options.html.resolve()}")
    return tables.report(skipped)
