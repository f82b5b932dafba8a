"""`tf-clip similarity`: the images that fit each text best."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from tf_clip.cli.arguments import add_images, add_texts, add_top, model_and_json, runs
from tf_clip.cli.inputs import image_paths, texts_of

if TYPE_CHECKING:
    from tf_clip.cli.arguments import Commands


def add(commands: Commands) -> None:
    """Adds the command's arguments."""
    parser = commands.add_parser("similarity", parents=[model_and_json()], help="rank images for each text")
    add_images(parser, "+")
    add_texts(parser, required=True)
    add_top(parser, "images shown per text")
    runs(parser, run)


def run(options: argparse.Namespace) -> int:
    """Ranks the images for each text by cosine similarity."""
    texts = texts_of(options)
    paths = image_paths(options.images)
    from tf_clip.cli import tables
    from tf_clip.cli.encoding import embed_with_progress, ranked
    from tf_clip.cli.loading import load_encoder
    from tf_clip.tasks.embedding import embed_texts

    processor, encoder = load_encoder(options.model, len(paths) + len(texts))
    text_embeds = embed_texts(encoder, processor, texts)
    embedded = embed_with_progress(encoder, processor, paths, options.batch_size)
    names = [str(paths[index]) for index in embedded.indices]
    scored = [
        (text, ranked(names, scores, options.top))
        for text, scores in zip(texts, text_embeds @ embedded.embeds.T, strict=True)
    ]
    skipped = tables.skipped(paths, embedded.failures)
    if options.json:
        rows = [{"text": text, "scores": scores} for text, scores in scored]
        tables.print_json({"model": options.model, "texts": rows, "skipped": skipped})
    else:
        groups = [(text, [(Path(name).name, score) for name, score in scores]) for text, scores in scored]
        tables.show_scores(groups, ("text", "image"))
    return tables.report(skipped)
