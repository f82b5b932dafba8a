"""The images that the shipped model has never seen, as they lie in the repository."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

HELD_OUT = Path(__file__).resolve().parents[2] / "tests" / "pictograms"


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """Images, and the names they are to be told by.

    Args:
        images: uint8 `[num_images, size, size, 3]`.
        targets: int `[num_images]`, each image's name.
        names: what to choose from.
        templates: the wordings that are averaged.
    """

    images: np.ndarray
    targets: np.ndarray
    names: list[str]
    templates: list[str]


def read_held_out(question: str) -> HeldOut:
    """Reads `"unseen_style"` or `"unseen_concepts"`."""
    table = json.loads((HELD_OUT / f"{question}.json").read_text(encoding="utf-8"))
    size, columns = table["size"], table["columns"]
    sheet = np.asarray(Image.open(HELD_OUT / f"{question}.webp").convert("RGB"))
    grid = sheet.reshape(columns, size, columns, size, 3).transpose(0, 2, 1, 3, 4).reshape(-1, size, size, 3)
    return HeldOut(grid[: len(table["targets"])], np.array(table["targets"]), table["names"], table["templates"])


def as_data_uri(pixels: np.ndarray) -> str:
    """Returns an image as `read_pairs` takes it in a table's cell."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="png")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
