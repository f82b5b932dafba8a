"""Images for exported models, and how they are loaded again."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

LABELS = ["owl", "bus", "rocket", "castle"]
TEMPLATES = ["{}", "a drawing of {}"]


def encoded(file_format: Any = "PNG", shape: Any = (21, 30, 3), seed: int = 0) -> Any:
    """Returns a file of noise."""
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(file, file_format)
    return file.getvalue()


def signatures_of(folder: Path) -> Any:
    """Loads a model; returns its functions, which give arrays for arrays."""
    loaded = tf.saved_model.load(str(folder))

    def caller(function: Any) -> Any:
        def call(**inputs: Any) -> Any:
            outputs = function(**{name: tf.constant(value) for name, value in inputs.items()})
            return {name: value.numpy() for name, value in outputs.items()}

        call.__dict__["loaded"] = loaded  # keeps the variables alive
        return call

    return {name: caller(function) for name, function in loaded.signatures.items()}
