"""The bytes that are sent, from images and texts of any kind."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

    ImageInput = str | Path | bytes | np.ndarray | Image.Image


def check_images(images: Any) -> list[Any]:
    """Returns the images as a list, checked before anything is sent.

    Raises:
        TypeError, ValueError: one is not a path, bytes, a uint8 array or a PIL image.
    """
    if isinstance(images, (str, bytes, Path)):
        raise TypeError(f"`images` must be a list. Received: images={images!r:.80}. Put the image in a list.")
    listed = list(images)
    for index, image in enumerate(listed):
        if isinstance(image, np.ndarray):
            if image.dtype != np.uint8 or image.ndim != 3 or image.shape[-1] != 3 or not image.size:
                raise ValueError(
                    "`images` must hold arrays of uint8 and shape [height, width, 3]. Received: "
                    f"{image.dtype} of shape {image.shape} at index {index}. Convert it to RGB values from 0 to 255."
                )
        elif not isinstance(image, (str, bytes, Path)) and not _is_pil(image):
            raise TypeError(
                "`images` must hold paths, files' bytes, uint8 arrays or PIL images. Received: "
                f"{type(image).__name__} at index {index}."
            )
    return listed


def check_texts(texts: Any) -> list[str | bytes]:
    """Returns the texts as a list, checked before anything is sent.

    Raises:
        TypeError: one is not str or bytes.
    """
    if isinstance(texts, (str, bytes)):
        raise TypeError(f"`texts` must be a list. Received: texts={texts!r:.80}. Put the text in a list.")
    listed: list[str | bytes] = list(texts)
    for index, text in enumerate(listed):
        if not isinstance(text, (str, bytes)):
            raise TypeError(f"`texts` must hold strings. Received: {type(text).__name__} at index {index}.")
    return listed


def image_bytes(image: Any) -> bytes:
    """Returns the bytes of an image's file; pixels become a PNG, which loses nothing.

    Raises:
        OSError: the file cannot be read.
        ValueError: the PIL image cannot be read.
    """
    if isinstance(image, bytes):
        return image
    if isinstance(image, (str, Path)):
        return Path(image).read_bytes()
    from PIL import Image

    from tf_clip.preprocessing.images.opening import open_image

    pixels = image if isinstance(image, np.ndarray) else open_image(image)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


def text_bytes(text: str | bytes) -> bytes:
    """Returns a text as UTF-8. Half a surrogate pair becomes invalid UTF-8, which the model replaces."""
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")


def name_of(item: Any) -> str:
    """Returns the name of an input in errors: a path or text itself, of others the type."""
    return repr(str(item))[:80] if isinstance(item, (str, Path)) else type(item).__name__


def _is_pil(image: Any) -> bool:
    # By name, since clients that send paths need no Pillow.
    return any(kind.__module__ == "PIL.Image" for kind in type(image).__mro__)
