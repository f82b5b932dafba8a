"""Pictures and captions to the batches that `CLIPModel.fit` trains on.

`read_pairs` says which there are, in any of the usual files; `TrainingData` makes batches of them, deterministic and
from any batch on; `pairs_dataset` is the short way, for two lists.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from tf_clip.preprocessing.processor import CLIPProcessor
from tf_clip.training.augmentation import Augmentation
from tf_clip.training.bad_rows import BadRow, TooManyBadRows
from tf_clip.training.pairs import ListedPairs, Pair, Pairs
from tf_clip.training.reading import FORMATS, read_pairs
from tf_clip.training.training_data import TrainingData

__all__ = [
    "FORMATS",
    "Augmentation",
    "BadRow",
    "ListedPairs",
    "Pair",
    "Pairs",
    "TooManyBadRows",
    "TrainingData",
    "pairs_dataset",
    "read_pairs",
]


def pairs_dataset(
    image_paths: Sequence[str | os.PathLike[str]],
    captions: Sequence[str],
    processor: CLIPProcessor,
    *,
    batch_size: int = 64,
    max_length: int | None = None,
    shuffle: bool = True,
    seed: int = 0,
    skip_bad: bool = False,
) -> tf.data.Dataset:
    """Reads, decodes, prepares and tokenizes pairs, all inside `tf.data`.

    Args:
        image_paths: JPEG, PNG, WebP or GIF files, on any file system that TensorFlow can read.
        captions: one text per picture.
        processor: the model's processor.
        batch_size: pairs a batch; the loss compares each with all others of its batch.
        max_length: longest text, in tokens; None takes the tokenizer's.
        shuffle: draw a new order each epoch, the same in every run.
        seed: decides those orders.
        skip_bad: leave out pictures that cannot be read, with a line in TensorFlow's log, instead of
            ending the run.

    Returns:
        A dataset of `{"input_ids", "attention_mask", "pixel_values"}`, ready for `CLIPModel.fit`.

    Raises:
        ValueError: the numbers of pictures and captions differ, or there are none. While iterating,
            `tf.errors.OpError` for a picture that cannot be read, unless `skip_bad`.

    Example:
        >>> model.fit(pairs_dataset(paths, captions, processor), epochs=3)  # doctest: +SKIP
    """
    if len(image_paths) != len(captions) or not len(captions):
        raise ValueError(
            "`captions` must hold one text for each of `image_paths`, at least one. "
            f"Received: {len(image_paths)} paths and {len(captions)} captions. Pair them up first."
        )
    pairs = tf.data.Dataset.from_tensor_slices(([os.fspath(path) for path in image_paths], list(captions)))
    if shuffle:
        pairs = pairs.shuffle(len(captions), seed=seed, reshuffle_each_iteration=True)
    pairs = pairs.map(
        lambda path, caption: (processor.image_processor(tf.io.read_file(path))["pixel_values"][0], caption),
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
    if skip_bad:
        pairs = pairs.ignore_errors(log_warning=True)

    def tokenize(pixel_values: tf.Tensor, texts: tf.Tensor) -> dict[str, Any]:
        return {**processor.tokenizer(texts, max_length=max_length), "pixel_values": pixel_values}

    return pairs.batch(batch_size).map(tokenize).prefetch(tf.data.AUTOTUNE)
