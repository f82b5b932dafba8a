"""`litert_report`: what each recipe of `litert` saves and costs, measured on images and labels of your own."""

from __future__ import annotations

import dataclasses
import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tf_clip.evaluation.retrieval import retrieval_metrics
from tf_clip.export.text_inputs import text_inputs_of
from tf_clip.export.tflite.quantize import model_pixels
from tf_clip.export.tflite.recipes import RECIPES, recipe_of
from tf_clip.export.tflite.runtime import LiteRTFile, LiteRTModel
from tf_clip.export.tflite.write import FILE_OF, litert
from tf_clip.models.two_towers import TwoTowerModel
from tf_clip.preprocessing.processor import Processor
from tf_clip.tasks.embedding import embed_texts
from tf_clip.unit_length import unit_rows

_PARTS = ("image", "text")
_TIMES = 50
_BATCH = 32


@dataclasses.dataclass(frozen=True)
class RecipeReport:
    """What one recipe of `litert` is like.

    Args:
        quantization: the recipe.
        sizes: the bytes of each part's file.
        image_cosine, text_cosine: the embeddings' cosines with the Keras model's, the mean and the worst.
        agreement: the share of images with the same best label as the Keras model's.
        recall: the share of images whose best label is right; None if that is not known.
        image_time, text_time: of one image, and of one text of the full length, as a share of float32's.
    """

    quantization: str
    sizes: Mapping[str, int]
    image_cosine: tuple[float, float]
    text_cosine: tuple[float, float]
    agreement: float
    recall: float | None
    image_time: float
    text_time: float


def litert_report(
    model: TwoTowerModel,
    processor: Processor,
    images: Sequence[Any],
    labels: Sequence[str],
    *,
    templates: Sequence[str] = ("{}",),
    targets: Sequence[int] | None = None,
    quantizations: Sequence[str] | None = None,
    calibration_images: Sequence[Any] = (),
    calibration_texts: Sequence[str] = (),
    threads: int = 1,
    on_progress: Callable[[str], None] | None = None,
) -> list[RecipeReport]:
    """Exports both towers by each recipe, and compares their files with the Keras model.

    Args:
        model: the model; it is not changed.
        processor: its processor.
        images: paths, PIL images, files' bytes or uint8 pixels.
        labels: what the images may be.
        templates: prompts with `{}` where a label goes.
        targets: each image's right label, by its index.
        quantizations: the recipes; None takes all, `"int8"` only if there is something to calibrate it with.
        calibration_images: see `litert`; other ones than are measured.
        calibration_texts: see `litert`.
        threads: how many of the processor's cores may be used.
        on_progress: called with the name of the recipe that comes next.

    Returns:
        One `RecipeReport` a recipe.

    Raises:
        ImportError, TypeError, ValueError: as `litert`; or there are no images.
    """
    if not len(images):
        raise ValueError("`images` must hold at least one image. Received: none. Pass some hundred.")
    if quantizations is None:
        is_calibrated = len(calibration_images) and len(calibration_texts)
        quantizations = [name for name, recipe in RECIPES.items() if is_calibrated or not recipe.is_static]
    for quantization in quantizations:
        recipe_of(quantization)
    pixels = [model_pixels(processor, image, index) for index, image in enumerate(images)]
    texts = [template.replace("{}", label) for label in labels for template in templates]
    longest = text_inputs_of(model, processor).longest
    ids = [processor.tokenizer.encode(text, truncation=True, max_length=longest) for text in texts]
    ours = _Embeds(_image_embeds(model, processor, pixels), embed_texts(model, processor, texts))
    best = ours.best(len(labels))
    reports = []
    with tempfile.TemporaryDirectory() as place:
        # float32 is what the times of the others are compared with, side by side.
        for quantization in dict.fromkeys(["float32", *quantizations]):
            if on_progress is not None:
                on_progress(quantization)
            folder = Path(place, quantization)
            files = litert(
                model,
                processor,
                folder,
                parts=_PARTS,
                quantization=quantization,
                calibration_images=calibration_images,
                calibration_texts=calibration_texts,
            )
            if quantization not in quantizations:
                continue
            runtime = LiteRTModel(folder, threads=threads)
            theirs = _Embeds(runtime.encode_images([row[0] for row in pixels]), runtime.encode_ids(ids))
            times = _times(Path(place, "float32"), folder, longest, threads)
            scores = theirs.scores(len(labels))
            reports.append(
                RecipeReport(
                    quantization,
                    {part: file.stat().st_size for part, file in files.items()},
                    _cosines(ours.images, theirs.images),
                    _cosines(ours.texts, theirs.texts),
                    float(np.mean(theirs.best(len(labels)) == best)),
                    None if targets is None else retrieval_metrics(scores, np.asarray(targets))["R@1"],
                    *times,
                )
            )
    return reports


@dataclasses.dataclass(frozen=True)
class _Embeds:
    """Embeddings of the images, and of each label in each template, of unit length."""

    images: np.ndarray
    texts: np.ndarray

    def scores(self, labels: int) -> np.ndarray:
        """Compares images with labels, `[images, labels]`."""
        classes = self.texts.reshape(labels, -1, self.texts.shape[-1]).mean(axis=1)
        scores: np.ndarray = self.images @ unit_rows(classes).T
        return scores

    def best(self, labels: int) -> np.ndarray:
        """Returns each image's best label."""
        best: np.ndarray = self.scores(labels).argmax(axis=1)
        return best


def _image_embeds(model: TwoTowerModel, processor: Processor, pixels: Sequence[np.ndarray]) -> np.ndarray:
    rows = []
    for start in range(0, len(pixels), _BATCH):
        pixel_values = processor.image_processor(np.concatenate(pixels[start : start + _BATCH]))["pixel_values"]
        rows.append(np.asarray(model.get_image_features(pixel_values)))
    return unit_rows(np.concatenate(rows))


def _cosines(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """Returns the mean and the worst cosine of rows; integers' rows are of unit length only nearly."""
    cosines = np.sum(ours * theirs, axis=1) / np.linalg.norm(theirs, axis=1)
    return float(cosines.mean()), float(cosines.min())


def _times(reference: Path, folder: Path, longest: int, threads: int) -> tuple[float, float]:
    """Returns the time of an image and of a text, as shares of the reference's: the best of many, in turns."""
    shares = []
    for part, signature in (("image", "encode_pixels"), ("text", f"encode_ids_{longest}")):
        loaded = [LiteRTFile(place / FILE_OF[part], threads) for place in (reference, folder)]
        ((name, shape),) = loaded[0].shapes[signature].items()
        row = np.ones(shape, np.uint8 if part == "image" else np.int32)
        best = [math.inf, math.inf]
        for _ in range(_TIMES):
            for index, file in enumerate(loaded):
                start = time.perf_counter()
                file(signature, **{name: row})
                best[index] = min(best[index], time.perf_counter() - start)
        shares.append(best[1] / best[0])
    return shares[0], shares[1]
