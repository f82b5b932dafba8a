"""What a .tflite file answers, compared with the Keras model, before anyone is given the file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tf_clip.export.tflite.file import operations_of, require_built_in
from tf_clip.export.tflite.runtime import LiteRTFile, utf8_inputs
from tf_clip.export.weights import StoredWeights
from tf_clip.preprocessing.processor import Processor
from tf_clip.unit_length import unit_length

# Of every length that a file has, in several scripts.
_TEXTS = (
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
        class_kernel: float32 `[projection_dim, labels]`, class embeddings times the temperature, or None.
    """

    def __init__(self, weights: StoredWeights, processor: Processor, class_kernel: np.ndarray | None) -> None:
        self._weights, self._class_kernel = weights, class_kernel
        self.processor = processor
        self.longest = min(
            weights.model.config.text_config.max_position_embeddings, processor.tokenizer.model_max_length
        )

    def image_embeds(self, image: np.ndarray) -> np.ndarray:
        """Encodes uint8 `[height, width, 3]`, float32 `[1, projection_dim]`."""
        pixel_values = self.processor.image_processor(image)["pixel_values"]
        with self._weights.lent():
            return unit_length(self._weights.model.image_encoder(pixel_values, training=False).image_embeds).numpy()

    def text_embeds(self, input_ids: np.ndarray) -> np.ndarray:
        """Encodes int32 `[1, length]`, float32 `[1, projection_dim]`."""
        with self._weights.lent():
            ids = tf.constant(input_ids)
            return unit_length(self._weights.model.text_encoder(ids, training=False).text_embeds).numpy()

    def probabilities(self, image: np.ndarray) -> np.ndarray:
        """Returns how likely each label is, float32 `[1, labels]`."""
        return tf.nn.softmax(self.image_embeds(image) @ self._class_kernel).numpy()

    def tokens(self, text: str) -> dict[str, np.ndarray]:
        """Tokenizes one text to its full length."""
        return self.processor.tokenizer([text], padding="max_length", max_length=self.longest, return_tensors="np")

    def resized(self, image: np.ndarray) -> np.ndarray:
        """Resizes one image as the processor does, uint8 levels as float32 `[1, height, width, 3]`."""
        options = {"do_rescale": False, "do_normalize": False}
        return self.processor.image_processor(image, **options)["pixel_values"].numpy()


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
    for text in _TEXTS:
        answer = file(signature, **utf8_inputs(text, file))
        tokens = reference.tokens(text)
        yield _Answer("num_tokens", answer["num_tokens"], tokens["attention_mask"].sum(axis=1))
        if "input_ids" in answer:
            yield _Answer("input_ids", answer["input_ids"], tokens["input_ids"])
        else:
            yield _Answer("text_embeds", answer["text_embeds"], reference.text_embeds(tokens["input_ids"]))


def _of_ids(file: LiteRTFile, signature: str, reference: Reference) -> Iterator[_Answer]:
    length = file.shapes[signature]["input_ids"][1]
    for text in _TEXTS:
        ids = reference.tokens(text)["input_ids"][:, :length].astype(np.int32)
        answer = file(signature, input_ids=ids)
        yield _Answer("text_embeds", answer["text_embeds"], reference.text_embeds(ids))
        yield _Answer("is_valid", answer["is_valid"], np.ones(1))
    for wrong in (-1, np.iinfo(np.int32).max):
        answer = file(signature, input_ids=np.where(np.arange(length) == 1, wrong, ids).astype(np.int32))
        yield _Answer("is_valid", answer["is_valid"], np.zeros(1))
        yield _Answer("zeros", answer["text_embeds"], np.zeros_like(answer["text_embeds"]))


def _of_images(file: LiteRTFile, signature: str, reference: Reference) -> Iterator[_Answer]:
    ((name, shape),) = file.shapes[signature].items()
    for image in _images(shape):
        answer = file(signature, **{name: image.reshape(shape) if len(shape) == 4 else image})
        if "image_pixels" in answer:
            yield _Answer("image_pixels", answer["image_pixels"].astype(np.float32), reference.resized(image))
            continue
        # A level's difference is no fault of the tower.
        pixels = image if len(shape) == 4 else file("resize_image", image=image)["image_pixels"][0]
        if "probabilities" in answer:
            yield _Answer("probabilities", answer["probabilities"], reference.probabilities(pixels))
        else:
            yield _Answer("image_embeds", answer["image_embeds"], reference.image_embeds(pixels))


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
