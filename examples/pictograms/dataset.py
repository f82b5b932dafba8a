"""The prepared images as batches for `CLIPModel.fit`, and as lists for evaluation."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from augment import augment
from captions import caption_variants
from word_vectors import WordVectors

from tf_clip import CLIPTokenizer

CAPTIONS_PER_IMAGE = 8
EMOJI_REPEATS = 2  # drawings of emoji come twice an epoch, icons once

# Texts a batch that come without an image: names of emoji, names of icons, single words.
LESSONS = (512, 256, 256)
LESSON_LENGTH = 10  # tokens


@dataclasses.dataclass(frozen=True)
class Pictograms:
    """What `prepare.py` wrote.

    Args:
        images: uint8 `[n, 64, 64, 4]`, memory-mapped, with transparency.
        rows: one dictionary per image: concept, name, tags, style, family, split.
        concepts: every base emoji: hexcode, name, split.
    """

    images: np.ndarray
    rows: list[dict[str, Any]]
    concepts: list[dict[str, Any]]

    @classmethod
    def read(cls, folder: Path) -> Pictograms:
        """Reads a folder that `prepare.py` has written."""
        if not (folder / "images.jsonl").is_file():
            raise FileNotFoundError(
                f"`data` must be a folder written by prepare.py. Received: data={str(folder)!r}. "
                f"Run: python prepare.py --out {folder}"
            )
        lines = (folder / "images.jsonl").read_text(encoding="utf-8").splitlines()
        concepts = json.loads((folder / "concepts.json").read_text(encoding="utf-8"))
        return cls(np.load(folder / "images.npy", mmap_mode="r"), [json.loads(line) for line in lines], concepts)

    def training_rows(self) -> list[dict[str, Any]]:
        """Returns the rows of the training split, without tags that are a held-out concept's name."""
        held_out = {concept["name"] for concept in self.concepts if concept["split"] != "train"}
        return [
            {**row, "tags": [tag for tag in row["tags"] if tag not in held_out]}
            for row in self.rows
            if row["split"] == "train"
        ]

    def on_white(self, rows: list[dict[str, Any]]) -> list[np.ndarray]:
        """Returns the rows' images as they are shown to a user: uint8 RGB on white."""
        rgba = self.images[[row["index"] for row in rows]].astype(np.uint16)
        rgb = (rgba[..., :3] * rgba[..., 3:] + 255 * (255 - rgba[..., 3:]) + 127) // 255
        return list(rgb.astype(np.uint8))


class TrainingBatches:
    """Draws the batches of each epoch: shuffled, captioned, augmented, and no concept twice in a batch.

    Two drawings of one concept in a batch would each be marked wrong for the other's caption.

    Args:
        data: the images.
        tokenizer: turns captions into ids.
        batch_size: pairs a batch.
        max_length: tokens a caption, padded to this so that every batch has one shape.
        image_size: height and width of an image, in pixels.
        vectors: what words mean.
        seed: makes every epoch's order repeatable.
    """

    def __init__(
        self,
        data: Pictograms,
        tokenizer: CLIPTokenizer,
        batch_size: int,
        max_length: int,
        image_size: int,
        vectors: WordVectors,
        seed: int = 0,
    ) -> None:
        rows = data.training_rows()
        generator = random.Random(seed)
        self._tokenizer, self._batch_size, self._seed = tokenizer, batch_size, seed
        self._max_length, self._image_size = max_length, image_size
        self._images = tf.constant(data.images[[row["index"] for row in rows]])
        self._captions = tf.constant([caption_variants(row, CAPTIONS_PER_IMAGE, generator) for row in rows])
        concepts: dict[str, list[int]] = {}
        for index, row in enumerate(rows):
            repeats = 1 if row["family"] == "icon" else EMOJI_REPEATS
            concepts.setdefault(row["concept"], []).extend([index] * repeats)
        self._concepts = list(concepts.values())
        self.steps = sum(map(len, self._concepts)) // batch_size
        self._prepare_lessons(rows, vectors)

    def _prepare_lessons(self, rows: list[dict[str, Any]], vectors: WordVectors) -> None:
        """Tokenizes every lesson once: the names that training images have, emoji first, and then words."""
        emoji = dict.fromkeys(row["name"] for row in rows if row["family"] != "icon")
        icons = dict.fromkeys(row["name"] for row in rows if row["name"] not in emoji)
        names = [*emoji, *icons]
        lessons = [*names, *vectors.words[: len(names)]]
        tokens = self._tokenizer(lessons, padding="max_length", max_length=LESSON_LENGTH)
        self._lesson_ids = tokens["input_ids"]
        self._lesson_vectors = tf.constant(vectors.of(lessons))
        self._lesson_groups = ((0, len(emoji)), (len(emoji), len(names)), (len(names), len(lessons)))
        index_of = {name: index for index, name in enumerate(names)}
        self._own_names = tf.constant([index_of[row["name"]] for row in rows], tf.int32)

    def epoch(self, number: int) -> tf.data.Dataset:
        """Returns epoch `number`'s batches, for `TaughtCLIP.fit`."""
        generator = np.random.default_rng((self._seed, number))
        order = self._spread(generator)[: self.steps * self._batch_size].reshape(self.steps, -1)
        choices = generator.integers(0, CAPTIONS_PER_IMAGE, order.shape)
        batches = tf.data.Dataset.from_tensor_slices((order, choices.astype(np.int64)))
        return batches.map(self._batch, num_parallel_calls=1).prefetch(2)

    def _spread(self, generator: np.random.Generator) -> np.ndarray:
        """Orders the images at random, each concept's evenly over the epoch and so far apart."""
        places, indices = [], []
        for images in self._concepts:
            count = len(images)
            places.append((np.arange(count) + generator.random()) / count)
            indices.append(generator.permutation(images))
        return np.concatenate(indices)[np.argsort(np.concatenate(places))]

    def _batch(self, indices: tf.Tensor, choices: tf.Tensor) -> dict[str, tf.Tensor]:
        captions = tf.gather_nd(self._captions, tf.stack([indices, choices], axis=1))
        tokens = self._tokenizer(captions, padding="max_length", max_length=self._max_length)
        pixel_values = augment(tf.gather(self._images, indices), self._image_size)
        size = self._image_size
        return {
            "input_ids": tf.ensure_shape(tokens["input_ids"], [self._batch_size, self._max_length]),
            "attention_mask": tf.ensure_shape(tokens["attention_mask"], [self._batch_size, self._max_length]),
            "pixel_values": tf.ensure_shape(pixel_values, [self._batch_size, size, size, 3]),
            **self._lessons(tf.gather(self._own_names, indices)),
        }

    def _lessons(self, own_names: tf.Tensor) -> dict[str, tf.Tensor]:
        """Draws a batch's lessons; see `TaughtCLIP`."""
        drawn = tf.concat(
            [
                tf.random.uniform([count], first, end, tf.int32)
                for count, (first, end) in zip(LESSONS, self._lesson_groups, strict=True)
            ],
            axis=0,
        )
        is_name = drawn < self._lesson_groups[-1][0]
        return {
            "lesson_ids": tf.gather(self._lesson_ids, drawn),
            "lesson_vectors": tf.gather(self._lesson_vectors, drawn),
            "lesson_names": tf.where(is_name, drawn, -1),
            "own_vectors": tf.gather(self._lesson_vectors, own_names),
            "own_names": tf.ensure_shape(own_names, [self._batch_size]),
        }
