"""Images to embeddings behind a progress bar, and the best scores of a row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tf_clip.cli import tables
from tf_clip.preprocessing.processor import Processor
from tf_clip.tasks.embedding import ImageEmbeddings, PairEncoder, embed_images


def embed_with_progress(
    encoder: PairEncoder, processor: Processor, paths: Sequence[Path], batch_size: int
) -> ImageEmbeddings:
    """Embeds images; those that cannot be read are in `failures`."""
    with tables.progress("Reading images", len(paths)) as advance:
        return embed_images(encoder, processor, paths, batch_size=batch_size, skip_unreadable=True, on_progress=advance)


def ranked(names: Sequence[str], scores: np.ndarray[Any, Any], top: int) -> list[tuple[str, float]]:
    """Returns the names with the highest scores, best first, and their scores."""
    best = np.argsort(-scores, kind="stable")[:top]
    return [(names[index], float(scores[index])) for index in best]
