"""Compares what a .tflite file answers with the Keras model, before the file is published."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_clip.export.text_inputs import text_inputs_of
from tf_clip.export.tflite.file import operations_of, require_built_in
from tf_clip.export.tflite.graph import Classes
from tf_clip.export.tflite.runtime import LiteRTFile, utf8_inputs
from tf_clip.export.weights import StoredWeights
from tf_clip.preprocessing.processor import Processor
from tf_clip.unit_length import unit_length

# Of every length that a file has, in several scripts.
TEXTS = (
    "",
    "an owl",
    "a photo of a red bus, isn't it?",
    "eine Eule auf einem Baum, und darüber ein großer gelber Mond",
    "日本の城 🏯 and a very long sentence of a bicycle, a rocket, a castle, a strawberry and an elephant. " * 3,
)


class Tolerance(NamedTuple):
    """How far from the model's a file's answers may be.

    Args:
        embeds: the largest difference of a number of an embedding.
        cosine: the smallest cosine of an embedding with the model's.
        probabilities: the largest difference of a probability.
    """

    embeds: float
    cosine: float
    probabilities: float


class Reference:
    """The Keras model's answers to what the signatures take.

    Args:
        weights: the model and its stored weights.
        processor: its processor.
        classes: what `classify` chooses from, or None.
    """

    def __init__(self, weights: StoredWeights, processor: Processor, classes: Classes | None) -> None:
        self._weights = weights
        self._classes: Any = classes  # there wherever a file chooses among them
        self.processor = processor
        self._texts = text_inputs_of(weights.model, processor)
        self._embeds_of_texts: dict[int, np.ndarray] = {}

    def image_embeds(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Encodes images of the model's size, uint8 `[height, width, 3]` each, float32 `[n, projection_dim]`."""
        pixel_values = self.processor.image_processor(np.stack(images))["pixel_values"]
        with self._weights.lent():
            embeds = self._weights.model.image_encoder(pixel_values, training=False)["image_embeds"]
            return as_array(unit_length(embeds))

    @functools.cached_property
    def tokens(self) -> dict[str, np.ndarray]:
        """The tokens of `TEXTS` at their full length, `[texts, longest]`, and their mask."""
        tokenize = self.processor.tokenizer
        tokens = tokenize(list(TEXTS), padding="max_length", max_length=self._texts.longest, return_tensors="np")
        return {name: values.astype(np.int32) for name, values in tokens.items()}

    def text_embeds(self, length: int) -> np.ndarray:
        """Encodes the first tokens of `TEXTS`, float32 `[texts, projection_dim]`."""
        if length not in self._embeds_of_texts:
            inputs = {name: tf.constant(values[:, :length]) for name, values in self.tokens.items()}
            mask = {"attention_mask": inputs["attention_mask"]} if self._texts.takes_mask else {}
            with self._weights.lent():
                embeds = self._weights.model.text_encoder(inputs["input_ids"], **mask, training=False)["text_embeds"]
                self._embeds_of_texts[length] = as_array(unit_length(embeds))
        return self._embeds_of_texts[length]

    def probabilities(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Returns how likely each label is, float32 `[n, labels]`."""
        return as_array(self._classes.probabilities(tf.constant(self.image_embeds(images))))

    def resized(self, image: np.ndarray) -> np.ndarray:
        """Resizes one image as the processor does, uint8 levels as float32 `[1, height, width, 3]`."""
        return as_array(self.processor.image_processor(image, do_rescale=False, do_normalize=False)["pixel_values"])


def as_array(tensor: tf.Tensor) -> np.ndarray:
    """Returns a tensor's numbers."""
    array: np.ndarray = tensor.numpy()
    return array


class _Answer(NamedTuple):
    """What an output is called, what a file says, and what the model says."""

    name: str
    found: np.ndarray
    wanted: np.ndarray


def check(file: bytes, reference: Reference, tolerance: Tolerance) -> list[str]:
    """Runs every signature of a file, and compares it with the model.

    Returns:
        The operations that the file uses.

    Raises:
        ValueError: it uses operations that are not built in, lost its weights, or answers otherwise than the model.
    """
    operations = operations_of(file)
    require_built_in(operations)
    loaded = LiteRTFile(file)
    for signature, shapes in loaded.shapes.items():
        answers = _of_utf8 if "utf8" in shapes else _of_ids if "input_ids" in shapes else _of_images
        for answer in answers(loaded, signature, reference):
            difference = _difference(answer, tolerance)
            if difference:
                raise ValueError(
                    f"The file must answer as the model does. Received: {answer.name} of the signature {signature} "
                    f"with {difference}. Choose a finer quantization; if it is float32 already, report it."
                )
    return operations


def _of_utf8(file: LiteRTFile, signature: str, reference: Reference) -> Iterator[_Answer]:
    tokens, counts = reference.tokens["input_ids"], reference.tokens["attention_mask"].sum(axis=1)
    for row, text in enumerate(TEXTS):
        answer = file(signature, **utf8_inputs(text, file))
        yield _Answer("num_tokens", answer["num_tokens"], counts[row : row + 1])
        if "input_ids" in answer:
            yield _Answer("input_ids", answer["input_ids"], tokens[row : row + 1])
        else:
            wanted = reference.text_embeds(tokens.shape[1])
            yield _Answer("text_embeds", answer["text_embeds"], wanted[row : row + 1])


def _of_ids(file: LiteRTFile, signature: str, reference: Reference) -> Iterator[_Answer]:
    names, length = file.shapes[signature], file.shapes[signature]["input_ids"][1]
    for row in range(len(TEXTS)):
        inputs = {name: reference.tokens[name][row : row + 1, :length] for name in names}
        answer = file(signature, **inputs)
        yield _Answer("text_embeds", answer["text_embeds"], reference.text_embeds(length)[row : row + 1])
        yield _Answer("is_valid", answer["is_valid"], np.ones(1))
    for wrong in (-1, np.iinfo(np.int32).max):
        ids = np.where(np.arange(length) == 1, wrong, inputs["input_ids"]).astype(np.int32)
        answer = file(signature, **{**inputs, "input_ids": ids})
        yield _Answer("is_valid", answer["is_valid"], np.zeros(1))
        yield _Answer("zeros", answer["text_embeds"], np.zeros_like(answer["text_embeds"]))


def _of_images(file: LiteRTFile, signature: str, reference: Reference) -> Iterator[_Answer]:
    ((name, shape),) = file.shapes[signature].items()
    images = list(_images(shape))
    answers = [file(signature, **{name: image.reshape(shape) if len(shape) == 4 else image}) for image in images]
    (output,) = answers[0]
    if output == "image_pixels":
        for image, answer in zip(images, answers, strict=True):
            yield _Answer(output, answer[output].astype(np.float32), reference.resized(image))
        return
    if len(shape) == 3:
        # A level's difference is no fault of the tower.
        images = [file("resize_image", image=image)["image_pixels"][0] for image in images]
    wanted = reference.probabilities(images) if output == "probabilities" else reference.image_embeds(images)
    for row, answer in enumerate(answers):
        yield _Answer(output, answer[output], wanted[row : row + 1])


def _images(shape: Sequence[int]) -> Iterator[np.ndarray]:
    """Yields noise and gradients, of the size asked for, or where it may be any, wide, tall and small ones."""
    generator = np.random.default_rng(0)
    for height, width in [shape[1:3]] if len(shape) == 4 else [(97, 150), (201, 64), (30, 20)]:
        yield generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
        rows, columns = np.mgrid[0:height, 0:width] * 255 // max(height, width)
        yield np.stack([rows, columns, rows // 2 + columns // 3], axis=2).astype(np.uint8)


def _difference(answer: _Answer, tolerance: Tolerance) -> str:
    """Says how an answer differs from the model's; nothing if it is near enough."""
    name, found, wanted = answer
    if found.shape != wanted.shape or not np.isfinite(found).all():
        return f"shape {found.shape} instead of {wanted.shape}, or numbers that are not finite"
    largest = float(np.abs(found.astype(np.float64) - wanted).max())
    if name in ("image_embeds", "text_embeds"):
        cosine = float(np.sum(found * wanted) / (np.linalg.norm(found) * np.linalg.norm(wanted)))
        alike = largest <= tolerance.embeds and cosine >= tolerance.cosine
        return "" if alike else f"a cosine of {cosine:.6f} and a largest difference of {largest:.2g}"
    # Resizing in float32 may round a level the other way.
    limit = {"image_pixels": 1.0, "probabilities": tolerance.probabilities}.get(name, 0.0)
    return "" if largest <= limit else f"a largest difference of {largest:.2g}"
