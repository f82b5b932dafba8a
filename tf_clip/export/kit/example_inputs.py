"""Inputs that every exported model takes, for warming up and for timing: a small image, a sentence, pixels, ids."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

import numpy as np
from PIL import Image

SENTENCE = "a photo of a thing that nobody has seen before"

_SIDE = 64  # pixels; resized to what the model takes


def example_inputs(names: Iterable[str], rows: int) -> dict[str, Any]:
    """Returns inputs of a number of rows.

    Args:
        names: the inputs of a signature.
        rows: how many rows; all are alike.

    Raises:
        ValueError: an input is none that tf_clip exports.
    """
    examples: dict[str, Any] = {}
    for name in names:
        if name == "image_bytes":
            examples[name] = [image_file()] * rows
        elif name == "text":
            examples[name] = [SENTENCE] * rows
        elif name == "image_pixels":
            examples[name] = np.stack([_pixels()] * rows)
        elif name == "input_ids":
            # Two columns fit every model; the text tower at full length is run by `text`.
            examples[name] = np.zeros((rows, 2), np.int32)
        else:
            raise ValueError(f"`names` must be inputs of an exported model. Received: {name!r}. Export it again.")
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
