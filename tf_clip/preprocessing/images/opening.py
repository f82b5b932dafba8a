"""Opens image files and PIL images with Pillow, which knows more formats than the graph, outside of it."""

from __future__ import annotations

import io
import struct
import threading
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

IMAGE_ERRORS = (OSError, ValueError)
"""What `open_image` and an `ImageProcessor` raise for an image that is missing or cannot be read."""


def open_image(
    source: str | Path | bytes | Image.Image, *, apply_exif: bool = True, index: int | None = None
) -> np.ndarray:
    """Reads an image as RGB pixels.

    Args:
        source: a path, a file's bytes, or a PIL image. Of an animation the first frame counts.
        apply_exif: whether files are turned upright by their orientation tag; PIL images are taken as they lie.
        index: the image's position in a list, for the message of an error.

    Returns:
        uint8 `[height, width, 3]`; transparent pixels are composited on white, 16 bits cut to 8.

    Raises:
        FileNotFoundError: the path does not exist; another OSError if its file cannot be read.
        ValueError: it is not an image, is cut short, or has more pixels than Pillow deems safe.
    """
    if isinstance(source, Image.Image):
        name = f"a PIL image of mode {source.mode}"
    else:
        name = f"{len(source)} bytes" if isinstance(source, bytes) else str(source)
    received = repr(name) if index is None else f"{name!r} at index {index}"
    if isinstance(source, (str, Path)):
        if not Path(source).is_file():
            raise FileNotFoundError(f"`images` must name existing files. Received: {received}. Check the path.")
        source = Path(source).read_bytes()
    try:
        return _to_rgb(source) if isinstance(source, Image.Image) else _decode(source, apply_exif)
    except UnidentifiedImageError:
        reason = "not an image that Pillow knows" if source else "an empty file"
    except Image.DecompressionBombError as error:
        reason = f"too many pixels ({error})"
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's decoders raise all three on broken files
        reason = f"broken or cut short ({error})"
    raise ValueError(f"`images` must be whole images of a safe size. Received: {received}, {reason}. Leave it out.")


def _decode(data: bytes, apply_exif: bool) -> np.ndarray:
    with _quietly, Image.open(io.BytesIO(data)) as image:
        # Pillow only warns between its limit and twice it; both are too much for one image.
        pixels, most = image.width * image.height, Image.MAX_IMAGE_PIXELS
        if most is not None and pixels > most:
            raise Image.DecompressionBombError(f"{pixels}, and {most} at most")
        return _to_rgb(_upright(image) if apply_exif else image)


class _Quietly:
    """Hides Pillow's warnings, such as of a broken EXIF block: the image is still good.

    Several threads may be inside at once. `catch_warnings` alone would restore the filters of the last one.
    """

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._before = warnings.catch_warnings()
                self._before.__enter__()
                warnings.simplefilter("ignore", UserWarning)
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._before.__exit__(None, None, None)


_quietly = _Quietly()


def _upright(image: Image.Image) -> Image.Image:
    image.load()  # here, so that an image which is cut short is not taken for a broken tag
    try:
        return ImageOps.exif_transpose(image)
    except (SyntaxError, ValueError, struct.error):
        return image


def _to_rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I;16") or image.mode == "I":
        # Pillow would clip 16-bit values to 255, which turns most of an image white.
        values = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        gray = np.where(values == image.info.get("transparency"), 255, values >> 8).astype(np.uint8)
        return np.repeat(gray[..., np.newaxis], 3, axis=-1)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return np.asarray(image.convert("RGB"))
