"""The pairs that `tf-clip train` trains and evaluates on."""

from __future__ import annotations

import argparse
from pathlib import Path

from tf_clip.cli import tables
from tf_clip.data.pairs import Pairs
from tf_clip.data.reading import read_pairs
from tf_clip.training.validation import split_pairs

_VALIDATION_SHARE = 0.1


def read(options: argparse.Namespace, source: str) -> Pairs:
    """Reads pairs as the options say; a probe's folders of classes have their names alone as captions."""
    template = options.template or (["{}"] if options.recipe == "probe" and Path(source).is_dir() else None)
    given = {
        "image_column": options.image_column,
        "caption_column": options.caption_column,
        "group_column": options.group_column,
        "image_folder": options.image_folder,
        "template": template,
        "format": options.format,
    }
    with tables.status(f"Reading {source}"):
        return read_pairs(source, **{name: value for name, value in given.items() if value is not None})


def sides(options: argparse.Namespace, pairs: Pairs) -> tuple[Pairs, Pairs | None]:
    """Returns what is trained on, and what is evaluated on if anything is."""
    share = options.validation_share
    if options.validation_data is not None:
        if share is not None:
            raise ValueError(
                "`--validation-share` must not come with `--validation-data`. Received: both. Leave one of them out."
            )
        return pairs, read(options, options.validation_data)
    share = _VALIDATION_SHARE if share is None else share
    if share == 0:
        return pairs, None
    return split_pairs(pairs, share, seed=options.seed, keep_groups=not Path(options.data).is_dir())
