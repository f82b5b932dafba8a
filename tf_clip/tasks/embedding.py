"""Images and texts of any number to unit-length embeddings, batch by batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import keras
import numpy as np

from tf_clip.preprocessing.processor import Processor
from tf_clip.unit_length import unit_rows


class PairEncoder(Protocol):
    """What encodes images and texts: a `CLIPModel`, or what `compile_for_inference` makes of one."""

    config: Any
    logit_scale: Any

    def get_image_features(self, pixel_values: Any) -> Any:
        """Encodes images, float `[batch, projection_dim]`."""

    def get_text_features(self, input_ids: Any, attention_mask: Any = None) -> Any:
        """Encodes texts, float `[batch, projection_dim]`."""


@dataclasses.dataclass(frozen=True)
class ImageEmbeddings:
    """What `embed_images` made of a list of images.

    Args:
        embeds: float32 `[num_embedded, projection_dim]`, of unit length.
        indices: int `[num_embedded]`, which image of the list each row is.
        failures: from an image's index to the reason it could not be read.
    """

    embeds: np.ndarray
    indices: np.ndarray
    failures: dict[int, str]


def embed_images(
    model: PairEncoder,
    processor: Processor,
    images: Sequence[Any],
    *,
    batch_size: int = 32,
    skip_unreadable: bool = False,
    on_progress: Callable[[int], None] | None = None,
) -> ImageEmbeddings:
    """Embeds images.

    Args:
        model: the model, or what `compile_for_inference` made of it.
        processor: its processor.
        images: paths, PIL images, files' bytes or uint8 pixels.
        batch_size: images a forward pass; bounds the memory.
        skip_unreadable: report images that cannot be read in `failures` and go on, instead of raising.
        on_progress: called with the number of images just done.

    Raises:
        FileNotFoundError, ValueError: an image cannot be read, unless `skip_unreadable`.
    """
    rows: list[np.ndarray] = []
    indices: list[int] = []
    failures: dict[int, str] = {}
    for start in range(0, len(images), batch_size):
        opened = []
        for index, image in enumerate(images[start : start + batch_size], start):
            try:
                opened.append(processor(images=image)["pixel_values"][0])
                indices.append(index)
            except (OSError, TypeError, ValueError) as error:
                if not skip_unreadable:
                    raise
                failures[index] = str(error)
        if opened:
            rows.append(unit_rows(model.get_image_features(keras.ops.stack(opened))))
        if on_progress:
            on_progress(min(batch_size, len(images) - start))
    return ImageEmbeddings(_concatenate(rows, model), np.array(indices, np.int64), failures)


def embed_texts(
    model: PairEncoder,
    processor: Processor,
    texts: Iterable[str],
    *,
    batch_size: int = 256,
    on_progress: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Embeds texts.

    Args:
        model: the model, or what `compile_for_inference` made of it.
        processor: its processor.
        texts: the texts; longer ones than the model takes are cut.
        batch_size: texts a forward pass; bounds the memory.
        on_progress: called with the number of texts just done.

    Returns:
        float32 `[num_texts, projection_dim]`, of unit length.
    """
    texts = list(texts)
    longest = model.config.text_config.max_position_embeddings
    rows = []
    for start in range(0, len(texts), batch_size):
        batch = texts[start : start + batch_size]
        inputs = processor(text=batch, max_length=min(longest, processor.tokenizer.model_max_length))
        rows.append(unit_rows(model.get_text_features(**inputs)))
        if on_progress:
            on_progress(len(batch))
    return _concatenate(rows, model)


def _concatenate(rows: list[np.ndarray], model: PairEncoder) -> np.ndarray:
    return np.concatenate([np.empty((0, model.config.projection_dim), np.float32), *rows])
