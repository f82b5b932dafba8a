"""What `tf-clip train --recipe probe` does: features once, logistic regression, an image classifier."""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

from tf_clip.cli import tables
from tf_clip.cli.loading import load
from tf_clip.cli.train_data import read, sides
from tf_clip.cli.train_options import RUN_FILE, as_toml, run_options
from tf_clip.data.skipped import SkippedExample
from tf_clip.files import write_text
from tf_clip.training.probe import image_features, linear_probe
from tf_clip.training.validation import images_and_captions


def train_probe(options: argparse.Namespace) -> list[SkippedExample]:
    """Fits a probe on images whose captions are their labels, and saves it as an image classifier.

    Returns:
        The rows that could not be used.
    """
    training, validation = sides(options, read(options, options.data))
    if validation is None:
        raise ValueError(
            "`--validation-share` must not be 0 for --recipe probe, which chooses its strength on validation images. "
            "Received: 0. Leave it out."
        )
    model, processor = load(options.model)
    skipped: list[SkippedExample] = []
    found_sides = []
    for side in (training, validation):
        images, captions, unreadable = images_and_captions(side)
        with tables.progress("Reading images", len(images)) as advance:
            found = image_features(
                model,
                processor,
                images,
                "patch_mean",
                batch_size=options.batch_size,
                skip_unreadable=True,
                on_progress=advance,
            )
        labels = [captions[index] for index in found.indices]
        several = [group for group in labels if len(group) > 1]
        if several:
            raise ValueError(
                "`--data` must have one label an image for --recipe probe. "
                f"Received: an image with {several[0]!r}. Name the column with --caption-column."
            )
        skipped += unreadable + [
            SkippedExample(images.where(index), reason) for index, reason in found.failures.items()
        ]
        found_sides.append((found.values, [group[0] for group in labels]))
    names = sorted(set(found_sides[0][1]))
    targets = [_numbers(labels, names) for _, labels in found_sides]
    with tables.status("Fitting the probe"):
        probe = linear_probe(found_sides[0][0], targets[0], found_sides[1][0], targets[1], names)
    probe.to_classifier(model).save_pretrained(options.output)
    processor.save_pretrained(options.output)
    write_text(options.output / RUN_FILE, as_toml(run_options(options)))
    tables.show_facts(
        {
            "model": str(options.output),
            "classes": len(names),
            "images": f"{len(targets[0])} and {len(targets[1])} for validation",
            "C": f"{probe.C:.3g}",
            "validation accuracy": f"{probe.validation_accuracy[probe.C]:.3f}",
        }
    )
    return skipped


def _numbers(labels: list[str], names: list[str]) -> np.ndarray[Any, Any]:
    unknown = sorted(set(labels) - set(names))
    if unknown:
        raise ValueError(
            f"`--data` must have training images of every label. Received only for validation: {unknown[:5]}. "
            "Add some, or pass --validation-data of labels that are in --data."
        )
    return np.array([names.index(label) for label in labels])
