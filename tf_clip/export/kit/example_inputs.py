"""Inputs that every exported model takes, for warming up and for timing: a small image, a text, pixels, ids."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

TEXT = "a photo of a thing that nobody has seen before"

_SIDE = 64  # pixels; resized to what the model takes


def example_inputs(specs: Mapping[str, tf.TensorSpec], rows: int) -> dict[str, Any]:
    """Returns inputs of a number of rows.

    Args:
        specs: the inputs of a signature, by name.
        rows: how many rows; all are alike.

    Raises:
        ValueError: an input is none that tf_clip exports.
    """
    examples: dict[str, Any] = {}
    for name, spec in specs.items():
        if name == "image_bytes":
            examples[name] = [image_file()] * rows
        elif name == "text":
            examples[name] = [TEXT] * rows
        elif name == "image_pixels":
            examples[name] = np.stack([_pixels()] * rows)
        elif name in ("input_ids", "attention_mask"):
            # Where the length is free, two columns do: the text tower at full length is run by `text`.
            examples[name] = np.full((rows, spec.shape[1] or 2), name == "attention_mask", np.int32)
        else:
            raise ValueError(f"`specs` must be inputs of an exported model. Received: {name!r}. Export it again.")
    return examples


def image_file() -> bytes:
    """Returns a JPEG file."""
    file = io.BytesIO()
    Image.fromarray(_pixels()).save(file, "JPEG", quality=90)
    return file.getvalue()


def _pixels() -> np.ndarray:
    ramp = np.linspace(0, 255, _SIDE)
    red, green = np.meshgrid(ramp, ramp)
    return np.stack([red, green, 255 - red], axis=-1).astype(np.uint8)
