"""`tf-clip embed`: embeddings of images and texts, in an .npz file, or any number of them in a folder."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tf_clip.cli.arguments import add_images, add_texts, model_and_json, runs
from tf_clip.cli.inputs import image_paths, require_file, texts_of
from tf_clip.files import replacing_file

if TYPE_CHECKING:
    from tf_clip.cli.arguments import Commands
    from tf_clip.tasks.embedding_files import EmbeddingJob


def add(commands: Commands) -> None:
    """Adds the command's arguments."""
    parser = commands.add_parser(
        "embed", parents=[model_and_json()], help="write embeddings of images or texts to a file or a folder"
    )
    add_images(parser, "*")
    add_texts(parser, required=False)
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--out", type=Path, metavar="FILE.npz", help="the file to write")
    target.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="a folder for any number of embeddings, in bounded memory; run again after a stop, the command continues",
    )
    runs(parser, run)


def run(options: argparse.Namespace) -> int:
    """Writes embeddings of images, texts or both."""
    return _to_folder(options) if options.output else _to_file(options)


def _to_file(options: argparse.Namespace) -> int:
    texts = texts_of(options)
    if not options.images and not texts:
        raise ValueError("`IMAGE`, `--text` or `--texts-file` must be given. Received none. Name what to embed.")
    paths = image_paths(options.images)
    import numpy as np

    from tf_clip.cli import tables
    from tf_clip.cli.encoding import embed_with_progress
    from tf_clip.cli.loading import load_encoder
    from tf_clip.tasks.embedding import embed_texts

    processor, encoder = load_encoder(options.model, len(paths) + len(texts))
    embedded = embed_with_progress(encoder, processor, paths, options.batch_size)
    arrays: dict[str, Any] = {}
    if paths:
        arrays["image_paths"] = np.array([str(paths[index]) for index in embedded.indices], dtype=np.str_)
        arrays["image_embeds"] = embedded.embeds
    if texts:
        arrays["texts"] = np.array(texts, dtype=np.str_)
        arrays["text_embeds"] = embed_texts(encoder, processor, texts)
    # numpy would add .npz to a path.
    with replacing_file(options.out) as path, path.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    shapes = {name: list(array.shape) for name, array in arrays.items()}
    skipped = tables.skipped(paths, embedded.failures)
    if options.json:
        tables.print_json(
            {"model": options.model, "out": str(options.out), "arrays": shapes, "skipped": skipped},
        )
    else:
        tables.show_facts({str(options.out): ", ".join(f"{name} {shape}" for name, shape in shapes.items())})
    return tables.report(skipped)


def _to_folder(options: argparse.Namespace) -> int:
    """Writes `image_embeds.npy` and `images.txt`, `text_embeds.npy`, or all of them; continues a stopped job."""
    if options.text:
        raise ValueError("`--text` must be left out with `--output`. Received: both. Use --texts-file, or --out.")
    if not options.images and not options.texts_file:
        raise ValueError("`IMAGE` or `--texts-file` must be given. Received: neither. Name what to embed.")
    if options.texts_file:
        require_file(options.texts_file, "--texts-file")
    paths = image_paths(options.images)
    from tf_clip.cli import tables
    from tf_clip.cli.loading import load_compiled
    from tf_clip.families.family import family_of
    from tf_clip.tasks.embedding_files import embed_images_to_file, embed_texts_to_file, file_facts, text_lines

    # Always the same engine: a continued job must give the same file.
    processor, encoder, folder = load_compiled(options.model)
    weights = "\n".join(file_facts(file) for file in sorted(folder.iterdir()) if file.is_file())
    shared: dict[str, Any] = {"width": encoder.config.projection_dim, "model": weights}
    jobs: dict[str, EmbeddingJob] = {}
    if paths:
        with tables.progress("Reading images", len(paths)) as advance:
            jobs["image_embeds"] = embed_images_to_file(
                encoder.get_image_features,
                processor,
                paths,
                options.output,
                batch_size=options.batch_size,
                on_progress=advance,
                **shared,
            )
    if options.texts_file:
        with tables.progress("Reading texts", sum(1 for _ in text_lines(options.texts_file))) as advance:
            jobs["text_embeds"] = embed_texts_to_file(
                encoder.get_text_features,
                processor,
                options.texts_file,
                options.output,
                longest=encoder.config.text_config.max_position_embeddings,
                padding=family_of(encoder).padding,
                on_progress=advance,
                **shared,
            )
    skipped = tables.skipped(paths, jobs["image_embeds"].skipped) if paths else []
    if options.json:
        shown = {name: {"rows": job.count, "resumed": job.resumed, "waited": job.waited} for name, job in jobs.items()}
        tables.print_json({"model": options.model, "output": str(options.output), "arrays": shown, "skipped": skipped})
    else:
        for name, job in jobs.items():
            before = f", {job.resumed:,} of them before" if job.resumed else ""
            facts = f"{job.count:,} rows{before}; the model waited for input {100 * job.waited:.0f} % of the time"
            tables.show_facts({str(options.output / f"{name}.npy"): facts})
    return tables.report(skipped)
