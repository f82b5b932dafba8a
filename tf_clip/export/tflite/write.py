"""`litert`: a model and its preprocessing as .tflite files, for phones, browsers and small processors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import tf_clip
from tf_clip.export.description import described_sides
from tf_clip.export.requirements import embedded_labels, require_kinds, require_processor_fits
from tf_clip.export.text_inputs import TextInputs, text_inputs_of
from tf_clip.export.tflite.check import Reference, check
from tf_clip.export.tflite.file import finished
from tf_clip.export.tflite.fixed_nfc import MAX_SIZE
from tf_clip.export.tflite.graph import Classes, LiteRTGraph, Signatures
from tf_clip.export.tflite.quantize import Calibration, quantized
from tf_clip.export.tflite.recipes import recipe_of
from tf_clip.export.tflite.runtime import require_litert
from tf_clip.export.tflite.tower import RuntimeWeights
from tf_clip.export.weights import StoredWeights
from tf_clip.families.family import family_of
from tf_clip.files import replacing_files
from tf_clip.models.two_towers import TwoTowerModel
from tf_clip.preprocessing.processor import Processor

FILE_OF = {
    "image": "image_encoder.tflite",
    "text": "text_encoder.tflite",
    "text_from_utf8": "text_from_utf8.tflite",
    "classify": "classify.tflite",
}
"""The parts, and their files' names."""

_TEXT_LENGTHS = (16, 32)


def litert(
    model: TwoTowerModel,
    processor: Processor,
    out: str | Path,
    *,
    parts: Sequence[str] | None = None,
    quantization: str = "float32",
    labels: Sequence[str] | None = None,
    templates: Sequence[str] = ("{}",),
    text_lengths: Sequence[int] | None = None,
    max_text_bytes: int = 1024,
    calibration_images: Sequence[Any] = (),
    calibration_texts: Sequence[str] = (),
    name: str = "clip",
    overwrite: bool = False,
) -> dict[str, Path]:
    """Writes .tflite files that every LiteRT runtime runs as it is: built-in operations alone, one row at a time.

    Each file is loaded again and compared with the model before it is there; if one of them differs, none is.
    `docs/mobile.md` lists their signatures.

    Args:
        model: the model; it is not changed.
        processor: its processor.
        out: the folder to write into.
        parts: some of `"image"`, `"text"`, `"text_from_utf8"` and `"classify"`; None takes the first three, and with
            labels all.
        quantization: how numbers are stored; `docs/mobile.md` says what each recipe costs and saves.
        labels: the classes of `classify.tflite`, all different.
        templates: prompts with `{}` where a label goes; the classes are the means over them.
        text_lengths: the lengths in tokens that texts are computed at; None takes 16, 32 and the longest. The longest
            is always among them.
        max_text_bytes: of a text in UTF-8; from longer ones the first bytes are taken, which the file tells.
        calibration_images: for `"int8"`, some hundred images like those that the file will see: paths, PIL images,
            files' bytes or uint8 pixels.
        calibration_texts: for `"int8"`, some hundred texts, too.
        name: what the model is called.
        overwrite: whether files that exist are replaced.

    Returns:
        The files written, by part.

    Raises:
        ImportError: LiteRT, or for `"int4"` AI Edge Quantizer, is not installed.
        TypeError: the model or the processor is of another kind, or `labels` is one string.
        ValueError: an argument has no meaning, the processor does not fit the model, a file exists, Keras does not
            run on TensorFlow, or a file would not be what it should.

    Example:
        >>> model = CLIPModel.from_pretrained("pictogram-clip")
        >>> processor = CLIPProcessor.from_pretrained("pictogram-clip")
        >>> tf_clip.export.litert(model, processor, "mobile", parts=["image"])
        {'image': PosixPath('mobile/image_encoder.tflite')}
    """
    recipe = recipe_of(quantization)
    require_litert()
    require_kinds(model, processor, ".tflite files")
    require_processor_fits(model, processor)
    parts = _parts(parts, labels)
    folder = Path(out)
    _require_room(max_text_bytes)
    _require_new([folder / FILE_OF[part] for part in parts], overwrite)
    classes = _classes(model, processor, labels, templates)
    texts = text_inputs_of(model, processor)
    lengths = _text_lengths(text_lengths, texts)
    reference = Reference(StoredWeights(model, "float32"), processor, classes)
    weights = RuntimeWeights(model, recipe.table_bits, recipe.is_static)
    graph = LiteRTGraph(weights, processor, lengths, max_text_bytes, classes, is_split=recipe.is_static)
    calibration = Calibration(processor, calibration_images, calibration_texts)
    description = {
        "format": 1,
        "model": name,
        "tf_clip": tf_clip.__version__,
        "quantization": quantization,
        "projection_dim": model.config.projection_dim,
        "logit_scale": _logit_scale(model),
    }
    with replacing_files(folder) as unfinished:
        for part in parts:
            signatures = graph.signatures_of(part)
            of_part = {**description, **_described(part, signatures, processor, labels, templates)}
            file = finished(quantized(signatures, weights, recipe, calibration), of_part)
            check(file, reference, recipe.tolerance)
            (unfinished / FILE_OF[part]).write_bytes(file)
    return {part: folder / FILE_OF[part] for part in parts}


def _logit_scale(model: TwoTowerModel) -> float:
    return math.exp(float(model.logit_scale.numpy()))


def _classes(
    model: TwoTowerModel, processor: Processor, labels: Sequence[str] | None, templates: Sequence[str]
) -> Classes | None:
    embeds = embedded_labels(model, processor, labels, templates)
    if embeds is None:
        return None
    bias = 0.0 if model.logit_bias is None else float(model.logit_bias.numpy())
    return Classes((_logit_scale(model) * embeds.T).astype(np.float32), bias, family_of(model).scores)


def _described(
    part: str,
    signatures: Signatures,
    processor: Processor,
    labels: Sequence[str] | None,
    templates: Sequence[str],
) -> dict[str, Any]:
    """Returns what a program needs to know of one file."""
    described: dict[str, Any] = {"part": part, "signatures": {}}
    for name, function in signatures.items():
        described["signatures"][name] = described_sides(function)
    if part in ("image", "classify"):
        # For applications that resize by themselves, and for those that want to know what the file does to pixels.
        options = ("image_mean", "image_std", "rescale_factor", "resample", "size", "crop_size")
        described["image"] = {key: processor.image_processor.to_dict()[key] for key in options}
    else:
        tokenizer = processor.tokenizer
        described["text"] = {
            "vocab_size": tokenizer.vocab_size,
            "bos_token_id": tokenizer.bos_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
            "padding_side": tokenizer.padding_side,
        }
    if part == "classify":
        described |= {"labels": list(labels or ()), "templates": list(templates)}
    return described


def _parts(parts: Sequence[str] | None, labels: Sequence[str] | None) -> list[str]:
    if parts is None:
        return [part for part in FILE_OF if part != "classify" or labels is not None]
    if isinstance(parts, str) or not parts or not set(parts) <= set(FILE_OF):
        raise ValueError(
            f"`parts` must be some of {', '.join(FILE_OF)}. Received: parts={parts!r}. Leave it out for all."
        )
    if ("classify" in parts) != (labels is not None):
        raise ValueError(
            "`labels` must be given for the part classify, and for it alone. "
            f"Received: parts={list(parts)!r}, labels={labels!r}. Change one of them."
        )
    return [part for part in FILE_OF if part in parts]


def _text_lengths(lengths: Sequence[int] | None, texts: TextInputs) -> list[int]:
    longest = texts.longest
    if texts.is_fixed:
        if lengths is not None and set(lengths) - {longest}:
            raise ValueError(
                f"`text_lengths` must be left out for a model that reads every text at {longest} tokens. "
                f"Received: text_lengths={list(lengths)!r}. Leave it out."
            )
        return [longest]
    if lengths is None:
        return [*(length for length in _TEXT_LENGTHS if length < longest), longest]
    if any(not isinstance(length, int) or not 2 <= length <= longest for length in lengths):
        raise ValueError(
            f"`text_lengths` must be whole numbers from 2 to {longest}, the model's longest text. "
            f"Received: text_lengths={list(lengths)!r}. Leave it out if unsure."
        )
    return sorted({*lengths, longest})


def _require_room(max_text_bytes: int) -> None:
    if not isinstance(max_text_bytes, int) or not 0 < max_text_bytes <= MAX_SIZE:
        raise ValueError(
            f"`max_text_bytes` must be a whole number from 1 to {MAX_SIZE}. "
            f"Received: max_text_bytes={max_text_bytes!r}. 77 tokens are seldom more than 400 bytes."
        )


def _require_new(files: Sequence[Path], overwrite: bool) -> None:
    existing = [str(file) for file in files if file.exists()]
    if existing and not overwrite:
        raise ValueError(
            f"`out` must hold none of the files to be written. Received: {', '.join(existing)}. "
            "Choose another folder, or overwrite them."
        )
