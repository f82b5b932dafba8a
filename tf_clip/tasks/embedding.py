"""Images and texts of any number to unit-length embeddings, batch by batch."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import keras
import numpy as np

from tf_clip.families.family import family_of
from tf_clip.preprocessing.processor import Processor
from tf_clip.tasks.reading import readable
from tf_clip.unit_length import unit_rows


class PairEncoder(Protocol):
    """What encodes images and texts: a `CLIPModel`, or what `compile_for_inference` makes of one."""

    config: Any
    logit_scale: Any
    logit_bias: Any

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
        failures: from an image's index to the reason why it is unreadable.
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
        skip_unreadable: report unreadable images in `failures` and go on, instead of raising.
        on_progress: called with the number of images just done.

    Raises:
        FileNotFoundError, ValueError: an image is unreadable, unless `skip_unreadable`.
    """
    rows, indices, failures = encode_images(
        lambda pixel_values: unit_rows(model.get_image_features(pixel_values)),
        processor,
        images,
        batch_size=batch_size,
        skip_unreadable=skip_unreadable,
        on_progress=on_progress,
    )
    return ImageEmbeddings(_concatenate(rows, model), indices, failures)


def encode_images(
    encode: Callable[[Any], np.ndarray],
    processor: Processor,
    images: Sequence[Any],
    *,
    batch_size: int,
    skip_unreadable: bool,
    on_progress: Callable[[int], None] | None,
) -> tuple[list[np.ndarray], np.ndarray, dict[int, str]]:
    """Reads images and encodes them, batch by batch.

    Args:
        encode: from pixel values `[batch, height, width, 3]` to rows `[batch, width]`.
        processor: prepares them.
        images: as in `embed_images`, and so are the errors.
        batch_size: images at a time.
        skip_unreadable: whether unreadable images are skipped.
        on_progress: called with the number of images just done.

    Returns:
        The rows of each batch; int64 `[num_read]`, which image each row is of; and from the index of each unreadable
        image to the reason.
    """
    rows: list[np.ndarray] = []
    indices: list[int] = []
    failures: dict[int, str] = {}
    for start in range(0, len(images), batch_size):
        batch = range(start, min(start + batch_size, len(images)))
        found = list(
            readable(
                lambda index: processor(images=images[index])["pixel_values"][0],
                batch,
                failures.__setitem__ if skip_unreadable else None,
            )
        )
        if found:
            indices += [index for index, _ in found]
            rows.append(encode(keras.ops.stack([pixels for _, pixels in found])))
        if on_progress:
            on_progress(len(batch))
    return rows, np.array(indices, np.int64), failures


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
    longest = min(model.config.text_config.max_position_embeddings, processor.tokenizer.model_max_length)
    padding = family_of(model).padding
    rows = []
    for start in range(0, len(texts), batch_size):
        batch = texts[start : start + batch_size]
        inputs = processor(text=batch, padding=padding, max_length=longest)
        rows.append(unit_rows(model.get_text_features(**inputs)))
        if on_progress:
            on_progress(len(batch))
    return _concatenate(rows, model)


def _concatenate(rows: list[np.ndarray], model: PairEncoder) -> np.ndarray:
    return np.concatenate([np.empty((0, model.config.projection_dim), np.float32), *rows])
