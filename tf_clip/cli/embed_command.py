"""`tf-clip embed --output`: any number of images or texts, in bounded memory, and on from where it stopped."""

from __future__ import annotations

import argparse

from tf_clip.checkpoints import hub
from tf_clip.cli import tables
from tf_clip.cli.commands import image_paths, load_compiled, report, require_file, skipped_of
from tf_clip.tasks.embedding_files import (
    EmbeddingJob,
    embed_images_to_file,
    embed_texts_to_file,
    file_facts,
    text_lines,
)


def embed_to_folder(options: argparse.Namespace) -> int:
    """Writes `image_embeds.npy` and `images.txt`, `text_embeds.npy`, or all of them."""
    if options.text:
        raise ValueError("`--text` must be left out with `--output`. Received both. Use --texts-file, or --out.")
    if not options.images and not options.texts_file:
        raise ValueError("`IMAGE` or `--texts-file` must be given. Received neither. Name what to embed.")
    if options.texts_file:
        require_file(options.texts_file, "--texts-file")
    paths = image_paths(options.images)
    place = hub.resolve(options.model)
    # One engine always: a job that goes on must give the same file.
    processor, fast = load_compiled(options.model, place)
    folder = hub.resolve_folder(place)
    weights = "\n".join(file_facts(file) for file in sorted(folder.iterdir()) if file.is_file())
    shared = {"width": fast.config.projection_dim, "model": weights}
    jobs: dict[str, EmbeddingJob] = {}
    if paths:
        with tables.progress("Reading images", len(paths)) as advance:
            jobs["image_embeds"] = embed_images_to_file(
                fast.get_image_features,
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
                fast.get_text_features,
                processor,
                options.texts_file,
                options.output,
                longest=fast.config.text_config.max_position_embeddings,
                on_progress=advance,
                **shared,
            )
    skipped = skipped_of(paths, jobs["image_embeds"].skipped) if paths else []
    if options.json:
        shown = {name: {"rows": job.count, "resumed": job.resumed, "waited": job.waited} for name, job in jobs.items()}
        tables.print_json({"model": options.model, "output": str(options.output), "arrays": shown, "skipped": skipped})
    else:
        for name, job in jobs.items():
            before = f", {job.resumed:,} of them before" if job.resumed else ""
            facts = f"{job.count:,} rows{before}; the model waited for input {100 * job.waited:.0f} % of the time"
            tables.show_facts({str(options.output / f"{name}.npy"): facts})
    return report(skipped)
