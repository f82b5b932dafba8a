"""Draw one image, from SVG text, an SVG file or a bitmap file, as RGBA."""

import io
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
import resvg_py
from PIL import Image

_VIEW_BOX = re.compile(r"""viewBox\s*=\s*["']([^"']+)["']""")


class Drawing(NamedTuple):
    """Where an image comes from: small, because it travels to a worker.

    Attributes:
        kind: `"svg"` (SVG text), `"svg-file"` or `"bitmap-file"`.
        source: the SVG text, or the path of the file.
    """

    kind: str
    source: str


def render(drawing: Drawing, size: int) -> np.ndarray | str:
    """Draw an image, centered on a transparent square.

    Args:
        drawing: what to draw.
        size: side of the square, in pixels.

    Returns:
        A uint8 array `[size, size, 4]`, straight (not premultiplied) alpha,
        or a sentence that says why there is none. A broken file is normal
        among tens of thousands, so it is an answer here and not an exception.
    """
    try:
        image = _draw(drawing, size)
    except Exception as error:  # resvg and Pillow raise many unrelated types
        return f"{type(error).__name__}: {error}"
    if not image[..., 3].any():
        return "blank: every pixel is transparent"
    return image


def _draw(drawing: Drawing, size: int) -> np.ndarray:
    if drawing.kind == "bitmap-file":
        with Image.open(drawing.source) as image:
            return _center(image.convert("RGBA"), size)
    svg = drawing.source
    if drawing.kind == "svg-file":
        svg = Path(svg).read_text(encoding="utf-8")
    return _center(_rasterise(svg, size), size)


def _rasterise(svg: str, size: int) -> Image.Image:
    match = _VIEW_BOX.search(svg)
    wide = True
    if match:
        width, height = map(float, match[1].replace(",", " ").split()[2:])
        wide = width >= height
    # System fonts are skipped so that every machine draws the same pixels.
    png = resvg_py.svg_to_bytes(
        svg_string=svg.replace("currentColor", "#000"),
        skip_system_fonts=True,
        **({"width": size} if wide else {"height": size}),
    )
    return Image.open(io.BytesIO(bytes(png))).convert("RGBA")


def _center(image: Image.Image, size: int) -> np.ndarray:
    scale = size / max(image.size)
    if scale != 1:
        # "RGBa" is premultiplied: a resize in straight alpha would pull the
        # hidden color of transparent pixels into the edges.
        shape = tuple(max(1, round(side * scale)) for side in image.size)
        image = image.convert("RGBa").resize(shape, Image.Resampling.LANCZOS)
        image = image.convert("RGBA")
    canvas = np.zeros((size, size, 4), np.uint8)
    top, left = (size - image.height) // 2, (size - image.width) // 2
    canvas[top : top + image.height, left : left + image.width] = np.asarray(image)
    return canvas
