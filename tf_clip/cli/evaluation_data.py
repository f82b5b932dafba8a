"""The data of `tf-clip evaluate`: images, embedded once, and the texts that belong to them."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence

import numpy as np

from tf_clip.cli import tables
from tf_clip.cli.thumbnails import as_data_uri
from tf_clip.data.pairs import Pairs
from tf_clip.data.skipped import ExampleError, SkippedExample, listed
from tf_clip.models.two_towers import TwoTowerModel
from tf_clip.preprocessing.processor import Processor
from tf_clip.tasks.embedding import embed_images

# Pixels of the longer side of an image on the page.
_THUMBNAIL = 192


@dataclasses.dataclass(frozen=True)
class EmbeddedImages:
    """Images and texts of a table, folder or archive; rows with the same file share an image.

    Args:
        pairs: the source.
        image_embeds: float32 `[num_images, projection_dim]`, of unit length.
        image_rows: the first row of each image.
        texts: the labels or captions.
        image_of_text: int64 `[num_texts]`, the index of the image that each text belongs to.
        text_rows: the row of each text.
        skipped: the rows that cannot be used.
    """

    pairs: Pairs
    image_embeds: np.ndarray
    image_rows: Sequence[int]
    texts: Sequence[str]
    image_of_text: np.ndarray
    text_rows: Sequence[int]
    skipped: Sequence[SkippedExample]

    def image(self, row: int) -> str | None:
        """Returns a row's image as a small `data:` address; None if it can no longer be read."""
        try:
            return as_data_uri(self.pairs.read(row).image, _THUMBNAIL)
        except (ExampleError, ValueError):
            return None

    def skipped_rows(self) -> list[dict[str, str]]:
        """Returns the rows that cannot be used, for the JSON file."""
        return [{"where": row.where, "reason": row.reason} for row in self.skipped]


def embed_pairs(
    model: TwoTowerModel, processor: Processor, pairs: Pairs, batch_size: int, *, one_text: bool
) -> EmbeddedImages:
    """Reads all images behind a progress bar, and embeds each different file once.

    Args:
        model: the model.
        processor: its processor.
        pairs: images and texts.
        batch_size: rows read, and images computed, at a time; bounds the memory.
        one_text: skip rows with several texts, since an image has one label.

    Raises:
        ValueError: no row can be used.
    """
    images, skipped = _Images(model, processor), list(pairs.skipped)
    texts: list[str] = []
    owners: list[int] = []
    text_rows: list[int] = []
    with tables.progress("Reading images", len(pairs)) as advance:
        for start in range(0, len(pairs), batch_size):
            rows = range(start, min(start + batch_size, len(pairs)))
            found: list[tuple[int, bytes, Sequence[str]]] = []
            for row in rows:
                try:
                    image, captions = pairs.read(row)
                    if one_text and len(captions) > 1:
                        raise ExampleError(f"{len(captions)} labels where one is needed")
                    found.append((row, image, captions))
                except ExampleError as error:
                    skipped.append(SkippedExample(pairs.where(row), str(error)))
            for (row, _, captions), owner in zip(found, images.add(found), strict=True):
                if isinstance(owner, str):
                    skipped.append(SkippedExample(pairs.where(row), owner))
                    continue
                texts += captions
                owners += [owner] * len(captions)
                text_rows += [row] * len(captions)
            advance(len(rows))
    if not texts:
        raise ValueError(f"`DATA` must hold an image that can be read. Received none:\n{listed(skipped)}\nCheck them.")
    embeds = np.concatenate(images.embeds)
    return EmbeddedImages(pairs, embeds, images.rows, texts, np.array(owners), text_rows, skipped)


class _Images:
    """Embeds files, each different one once."""

    def __init__(self, model: TwoTowerModel, processor: Processor) -> None:
        self._model, self._processor = model, processor
        self._known: dict[bytes, int | str] = {}
        self.embeds: list[np.ndarray] = []
        self.rows: list[int] = []

    def add(self, found: Sequence[tuple[int, bytes, Sequence[str]]]) -> list[int | str]:
        """Returns the number of each row's image, or why it cannot be read."""
        digests = [hashlib.blake2b(image, digest_size=16).digest() for _, image, _ in found]
        fresh: dict[bytes, tuple[int, bytes]] = {}
        for digest, (row, image, _) in zip(digests, found, strict=True):
            if digest not in self._known:
                fresh.setdefault(digest, (row, image))
        names, files = list(fresh), [image for _, image in fresh.values()]
        embedded = embed_images(
            self._model, self._processor, files, batch_size=max(1, len(files)), skip_unreadable=True
        )
        for index in embedded.indices:
            self._known[names[index]] = len(self.rows)
            self.rows.append(fresh[names[index]][0])
        self.embeds.append(embedded.embeds)
        self._known.update({names[index]: reason for index, reason in embedded.failures.items()})
        return [self._known[digest] for digest in digests]
