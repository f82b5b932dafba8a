"""`CLIPProcessor`: pictures and strings of any kind to what `CLIPModel` takes."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from tf_clip.checkpoints import hub
from tf_clip.preprocessing.image import CLIPFeatureExtractorTF
from tf_clip.preprocessing.tokenizer import CLIPTokenizer

if TYPE_CHECKING:
    from typing_extensions import Self


class CLIPProcessor:
    """Wraps a `CLIPTokenizer` and a `CLIPFeatureExtractorTF`, and opens picture files.

    Args:
        image_processor: the feature extractor.
        tokenizer: the tokenizer.

    Call arguments:
        text: see `CLIPTokenizer`; or None.
        images: a picture or a list of them: a PIL image (taken as it lies), a path (turned upright by
            its orientation tag), a file's bytes, or uint8 pixels; or None.
        padding, truncation, max_length: see `CLIPTokenizer`.
        return_tensors: `"tf"` or `"np"`.

    Returns:
        A dictionary with `input_ids` and `attention_mask` when there is text, and `pixel_values`
        when there are images: the keyword arguments of `CLIPModel`.

    Raises:
        FileNotFoundError: a path does not exist.
        TypeError: an argument is of another kind.
        ValueError: nothing is given, or a file is not a whole picture of a safe size.

    Example:
        >>> processor = CLIPProcessor.from_pretrained("pictogram-clip")
        >>> sorted(processor(text=["a cat"], images=Image.new("RGB", (8, 8))))
        ['attention_mask', 'input_ids', 'pixel_values']

    Source: transformers' CLIPProcessor. Differences: tensors are TensorFlow's and channels last by default.
    """

    def __init__(self, image_processor: CLIPFeatureExtractorTF, tokenizer: CLIPTokenizer) -> None:
        self.image_processor = image_processor
        self.tokenizer = tokenizer

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, *, revision: str | None = None) -> Self:
        """Reads a checkpoint's tokenizer and preprocessor files.

        Args:
            name_or_path: a shipped name, a local folder or a Hub id.
            revision: branch, tag or commit on the Hub.

        Raises:
            FileNotFoundError: there is no such checkpoint, or a file of it is missing.
            ValueError: a file is broken.
        """
        folder = hub.resolve_folder(name_or_path, revision)
        return cls(CLIPFeatureExtractorTF.from_pretrained(folder), CLIPTokenizer.from_pretrained(folder))

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes the tokenizer's and the preprocessor's files into a folder."""
        self.image_processor.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)

    def __call__(
        self,
        text: Any = None,
        images: Any = None,
        padding: bool | str = True,
        truncation: bool = True,
        max_length: int | None = None,
        return_tensors: str = "tf",
    ) -> dict[str, Any]:
        """Prepares both; see the class."""
        if text is None and images is None:
            raise ValueError("`text` or `images` must be given. Received neither. Pass at least one.")
        if return_tensors not in ("tf", "np"):
            raise ValueError(
                f"`return_tensors` must be 'tf' or 'np'. Received: return_tensors={return_tensors!r}. "
                "For JAX or PyTorch, take 'np' and convert."
            )
        inputs: dict[str, Any] = {}
        if text is not None:
            inputs.update(self.tokenizer(text, padding, truncation, max_length, return_tensors))
        if images is not None:
            pixels = self.image_processor(_open_all(images))["pixel_values"]
            inputs["pixel_values"] = pixels.numpy() if return_tensors == "np" else pixels
        return inputs

    def batch_decode(self, ids: Any, skip_special_tokens: bool = False) -> list[str]:
        """Turns rows of ids back into strings; see `CLIPTokenizer.decode`."""
        return self.tokenizer.batch_decode(ids, skip_special_tokens=skip_special_tokens)


def open_image(source: str | Path | bytes | Image.Image) -> np.ndarray:
    """Reads a picture as RGB pixels.

    Args:
        source: a path (turned upright by its orientation tag), a file's bytes, or a PIL image (both
            taken as they lie). Of an animation the first frame counts.

    Returns:
        uint8 `[height, width, 3]`; transparent pixels are composited on white, 16 bits cut to 8.

    Raises:
        FileNotFoundError: the path does not exist.
        ValueError: it is not a picture, is cut short, or has more pixels than Pillow deems safe.
    """
    if isinstance(source, Image.Image):
        return _to_rgb(source)
    name = f"{len(source)} bytes" if isinstance(source, bytes) else str(source)
    if not isinstance(source, bytes) and not Path(source).is_file():
        raise FileNotFoundError(f"`images` must name existing files. Received: {name!r}. Check the path.")
    data = source if isinstance(source, bytes) else Path(source).read_bytes()
    try:
        return _decode(data, upright=not isinstance(source, bytes))
    except UnidentifiedImageError:
        reason = "an empty file" if not data else "not a picture that Pillow knows"
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        reason = f"too many pixels ({error})"
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's decoders raise all three on broken files
        reason = f"broken or cut short ({error})"
    raise ValueError(f"`images` must be whole pictures of a safe size. Received: {name!r}, {reason}. Leave it out.")


def _decode(data: bytes, *, upright: bool) -> np.ndarray:
    with warnings.catch_warnings():
        # Pillow only warns between its limit and twice it; both are too much for one picture.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        with Image.open(io.BytesIO(data)) as image:
            return _to_rgb(ImageOps.exif_transpose(image) if upright else image)


def _to_rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I;16") or image.mode == "I":
        # Pillow would clip 16-bit values to 255, which turns most of a picture white.
        values = np.clip(np.asarray(image).astype(np.int64), 0, 65535)
        grey = np.where(values == image.info.get("transparency"), 255, values >> 8).astype(np.uint8)
        return np.repeat(grey[..., np.newaxis], 3, axis=-1)
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return np.asarray(image.convert("RGB"))


def _open_all(images: Any) -> Any:
    """Opens what Pillow opens; pixels and tensors pass as they are."""
    if isinstance(images, Sequence) and not isinstance(images, (str, bytes)):
        return [_open_if_picture(image) for image in images]
    return _open_if_picture(images)


def _open_if_picture(image: Any) -> Any:
    return open_image(image) if isinstance(image, (str, Path, bytes, Image.Image)) else image
