"""Images inside a page: small, and in the page's own file."""

from __future__ import annotations

import base64
import io
from pathlib import Path

from PIL import Image

from tf_clip.preprocessing.images.opening import open_image


def as_data_uri(image: Path | bytes, largest: int) -> str:
    """Returns an image file as a `data:` address of a PNG, made smaller if a side is longer than `largest` pixels.

    Raises:
        FileNotFoundError, ValueError: it cannot be read.
    """
    opened = Image.fromarray(open_image(image))
    opened.thumbnail((largest, largest))
    data = io.BytesIO()
    opened.save(data, "PNG")
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode("ascii")
