"""`saved_model`: a model and its preprocessing as one TensorFlow SavedModel, from raw bytes and raw strings."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tensorflow as tf

import tf_clip
from tf_clip.export.description import described_sides
from tf_clip.export.requirements import embedded_labels, require_kinds, require_processor_fits
from tf_clip.export.savedmodel.folders import new_version
from tf_clip.export.savedmodel.graph import Classes, EncodingGraph, Limits, signatures_of
from tf_clip.export.savedmodel.status import ON_BAD_ROW
from tf_clip.export.weights import StoredWeights
from tf_clip.models.two_towers import TwoTowerModel
from tf_clip.preprocessing.images.decode import MAX_PIXELS
from tf_clip.preprocessing.processor import Processor

DESCRIPTION = "assets.extra/tf_clip.json"
"""The file in a version's folder that describes the model to programs; servers ignore it."""

UNBATCHABLE = ("similarity",)
"""Signatures that do not give one row for each row of every input: a server must not batch them."""


def saved_model(
    model: TwoTowerModel,
    processor: Processor,
    path: str | Path,
    *,
    labels: Sequence[str] | None = None,
    templates: Sequence[str] = ("{}",),
    version: int = 1,
    dtype: str = "float32",
    on_bad_row: str = "status",
    top_k: int = 5,
    max_text_bytes: int = 65_536,
    max_pixels: int = MAX_PIXELS,
    name: str = "clip",
    overwrite: bool = False,
    before_publishing: Callable[[Path], object] | None = None,
) -> Path:
    """Writes a TensorFlow SavedModel that takes files' bytes and strings as they are.

    It uses operations of TensorFlow alone, so that every runtime of SavedModels loads it, with neither
    this package nor Keras nor TensorFlow Text. `docs/serving.md` lists its signatures.

    Args:
        model: the model; it is not changed.
        processor: its processor.
        path: the model's folder, as a server is given it; the SavedModel is in `path/version`.
        labels: the classes of the signature `classify`, all different; None leaves it out.
        templates: prompts with `{}` where a label goes; the classes are the means over them.
        version: a whole number above 0; servers take the highest.
        dtype: how the weights are stored, `"float32"`, `"float16"` or `"bfloat16"`. All computing is in float32.
        on_bad_row: `"status"` gives a row that cannot be read zeros, and says why in its `status`;
            `"error"` fails the request.
        top_k: how many labels `classify` ranks; all of them if there are fewer.
        max_text_bytes: longer texts are not read, as rows that cannot be.
        max_pixels: larger encoded images are not read.
        name: what the model is called.
        overwrite: whether a version that exists is replaced.
        before_publishing: called with the folder that holds the version before all of it is moved to `path`, such as
            `serving_kit`, so that a server which watches `path` sees the version with all that belongs to it.

    Returns:
        The folder `path/version`.

    Raises:
        TypeError: the model or the processor is of another type, or `labels` is one string.
        ValueError: an argument has no meaning, the processor does not fit the model, the version exists,
            or Keras does not run on TensorFlow.

    Example:
        >>> model = CLIPModel.from_pretrained("pictogram-clip")
        >>> processor = CLIPProcessor.from_pretrained("pictogram-clip")
        >>> tf_clip.export.saved_model(model, processor, "served", labels=["owl", "bus"])
        PosixPath('served/1')
    """
    require_kinds(model, processor, "a SavedModel")
    require_processor_fits(model, processor)
    limits = _limits(on_bad_row, max_pixels, max_text_bytes)
    with new_version(Path(path), version, overwrite=overwrite) as folder:
        classes = _classes(model, processor, labels, templates, top_k)
        weights = StoredWeights(model, dtype)
        signatures = signatures_of(EncodingGraph(weights, processor, limits), classes)
        root = tf.Module(name="tf_clip")
        root.weights = weights.variables
        # Not the tokenizer itself, with which its own functions would be saved a second time.
        root.tables = list(processor.tokenizer._flatten(predicate=_is_table))
        root.classes = None if classes is None else classes.embeds
        # Gradients of Keras's own operations are left out: a served model is not trained.
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
        tf.saved_model.save(root, str(folder), signatures=signatures, options=options)
        description = {
            "format": 1,
            "model": name,
            "tf_clip": tf_clip.__version__,
            "projection_dim": model.config.projection_dim,
            "dtype": dtype,
            "labels": None if labels is None else list(labels),
            "templates": list(templates),
            "logit_scale": math.exp(float(weights["logit_scale"])),
            "signatures": {
                key: {**described_sides(signature), "batchable": key not in UNBATCHABLE}
                for key, signature in signatures.items()
            },
        }
        file = folder / DESCRIPTION
        file.parent.mkdir()
        file.write_text(json.dumps(description, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        if before_publishing is not None:
            before_publishing(folder.parent)
    return Path(path) / str(version)


def _is_table(value: Any) -> bool:
    return isinstance(value, tf.lookup.StaticHashTable)


def _classes(
    model: TwoTowerModel, processor: Processor, labels: Sequence[str] | None, templates: Sequence[str], top_k: int
) -> Classes | None:
    if not isinstance(top_k, int) or isinstance(top_k, bool) or top_k < 1:
        raise ValueError(f"`top_k` must be a whole number above 0. Received: top_k={top_k!r}. Use 5 if unsure.")
    embeds = embedded_labels(model, processor, labels, templates)
    if labels is None or embeds is None:
        return None
    variable = tf.Variable(embeds, trainable=False, name="class_embeds")
    return Classes(tf.constant(list(labels)), variable, min(top_k, len(labels)))


def _limits(on_bad_row: str, max_pixels: int, max_text_bytes: int) -> Limits:
    if on_bad_row not in ON_BAD_ROW:
        raise ValueError(
            f"`on_bad_row` must be one of {ON_BAD_ROW}. Received: on_bad_row={on_bad_row!r}. 'status' is usual."
        )
    if not 1 <= max_pixels <= MAX_PIXELS:
        raise ValueError(
            f"`max_pixels` must be from 1 to {MAX_PIXELS}. Received: max_pixels={max_pixels!r}. Use the default."
        )
    if not 1 <= max_text_bytes <= tf.int32.max:
        raise ValueError(
            f"`max_text_bytes` must be from 1 to {tf.int32.max}. Received: max_text_bytes={max_text_bytes!r}. "
            "Use the default."
        )
    return Limits(on_bad_row, max_pixels, max_text_bytes)
