"""What the tests of .tflite files share: labels, images, and the held-out images of the shipped model."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from PIL import Image

from helpers import ROOT

LABELS = ["owl", "bus", "rocket"]
TEMPLATES = ["{}", "a drawing of {}"]
HELD_OUT = ROOT / "tests" / "pictograms"


def noise(height: int, width: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def edges(height: int, width: int) -> Any:
    """Black and white in stripes and blocks, where filters overshoot most."""
    rows, columns = np.mgrid[0:height, 0:width]
    stripes = [rows // 3 % 2, columns // 4 % 2, (rows // 5 + columns // 5) % 2]
    return (255 * np.stack(stripes, axis=2)).astype(np.uint8)


def levels(processor: Any, image: Any) -> Any:
    """The image as the processor resizes it, uint8 levels as floats."""
    return processor.image_processor(image, do_rescale=False, do_normalize=False)["pixel_values"].numpy()


def unit(rows: Any) -> Any:
    rows = np.asarray(rows)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def held_out(question: Any) -> Any:
    """The images of one of the two sets, and its table of names, templates and targets."""
    table = json.loads((HELD_OUT / f"{question}.json").read_text(encoding="utf-8"))
    size, columns = table["size"], table["columns"]
    sheet = np.asarray(Image.open(HELD_OUT / f"{question}.webp").convert("RGB"))
    grid = sheet.reshape(columns, size, columns, size, 3).transpose(0, 2, 1, 3, 4).reshape(-1, size, size, 3)
    return list(grid[: len(table["targets"])]), table
