"""`ImageOptions`: how images are prepared, read and written as `preprocessor_config.json`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, cast

from tf_clip.checkpoints.files import read_json
from tf_clip.errors import require
from tf_clip.preprocessing.images.resample import RESAMPLES

if TYPE_CHECKING:
    from typing_extensions import Self

BICUBIC = 3
CROP_STYLES = ("huggingface", "openai")

CONFIG_FILES = ("preprocessor_config.json", "processor_config.json")
"""The files that hold the options, in the order in which they count; the second has them as its `image_processor`."""

# What an option is where neither a caller, nor a file, nor the family gives it. `size` must be given by one of them.
_USUAL: Mapping[str, Any] = {
    "do_resize": True,
    "resample": BICUBIC,
    "do_center_crop": True,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": 0.0,
    "image_std": 1.0,
    "do_convert_rgb": True,
    "crop_style": CROP_STYLES[0],
    "apply_exif": True,
}


class ImageArguments(TypedDict, total=False):
    """The options as `ImageProcessor` takes them and `preprocessor_config.json` has them."""

    do_resize: bool | None
    size: Mapping[str, int] | int | None
    resample: int | None
    do_center_crop: bool | None
    crop_size: Mapping[str, int] | int | None
    do_rescale: bool | None
    rescale_factor: float | None
    do_normalize: bool | None
    image_mean: Sequence[float] | float | None
    image_std: Sequence[float] | float | None
    do_convert_rgb: bool | None
    crop_style: str | None
    apply_exif: bool | None


_NAMES = tuple(ImageArguments.__annotations__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """How images are prepared; `ImageProcessor` says what each option means.

    Args:
        shortest_edge, resized_to: `size`, as the shortest edge in pixels and None, or as 0 and (height, width).
        crop_to: `crop_size`, as (height, width).
    """

    do_resize: bool
    shortest_edge: int
    resized_to: tuple[int, int] | None
    resample: int
    do_center_crop: bool
    crop_to: tuple[int, int]
    do_rescale: bool
    rescale_factor: float
    do_normalize: bool
    image_mean: tuple[float, ...]
    image_std: tuple[float, ...]
    do_convert_rgb: bool
    crop_style: str
    apply_exif: bool

    @classmethod
    def of(cls, values: ImageArguments, defaults: Mapping[str, Any]) -> Self:
        """Reads options.

        Args:
            values: the options, by name.
            defaults: the options that `values` leaves out.

        Raises:
            TypeError: there is no such option.
            ValueError: an option has no meaning.
        """
        unknown = values.keys() - set(_NAMES)
        if unknown:
            raise TypeError(f"{min(unknown)!r} is not an option of images. There are: {', '.join(_NAMES)}.")
        options: dict[str, Any] = {**_USUAL, **defaults}
        options.update(values)
        size = options.pop("size", None)
        shortest_edge, resized_to = _size(size)
        resample, style = options["resample"], options["crop_style"]
        numbers = f"one of Pillow's {list(RESAMPLES)}"
        require(resample in RESAMPLES, "resample", numbers, resample, f"{BICUBIC}, bicubic, is usual.")
        advice = "Take the one of the library that the model was trained with."
        require(style in CROP_STYLES, "crop_style", f"one of {CROP_STYLES}", style, advice)
        options |= {
            "shortest_edge": shortest_edge,
            "resized_to": resized_to,
            "crop_to": _square_or_pair("crop_size", options.pop("crop_size", shortest_edge or size)),
            "resample": int(resample),
            "rescale_factor": float(options["rescale_factor"]),
            "image_mean": _three_numbers("image_mean", options["image_mean"]),
            "image_std": _three_numbers("image_std", options["image_std"]),
        }
        return cls(**options)

    def to_dict(self, image_processor_type: str) -> dict[str, Any]:
        """Returns the options, as `preprocessor_config.json` holds them.

        Args:
            image_processor_type: transformers' class that the file is for.
        """
        height, width = self.resized_to or (0, 0)
        size = {"height": height, "width": width} if self.resized_to else {"shortest_edge": self.shortest_edge}
        options = {
            "image_processor_type": image_processor_type,
            "do_convert_rgb": self.do_convert_rgb,
            "do_resize": self.do_resize,
            "size": size,
            "resample": self.resample,
            "do_center_crop": self.do_center_crop,
            "crop_size": {"height": self.crop_to[0], "width": self.crop_to[1]},
            "do_rescale": self.do_rescale,
            "rescale_factor": self.rescale_factor,
            "do_normalize": self.do_normalize,
            "image_mean": list(self.image_mean),
            "image_std": list(self.image_std),
        }
        # Other libraries do not know these two.
        if self.crop_style != CROP_STYLES[0]:
            options["crop_style"] = self.crop_style
        if not self.apply_exif:
            options["apply_exif"] = False
        return options


def read_options(folder: Path) -> ImageArguments | None:
    """Reads `preprocessor_config.json`, or the `image_processor` part of `processor_config.json`.

    Args:
        folder: a local folder.

    Returns:
        The options, or None if no file has any.

    Raises:
        ValueError: a file is broken.
    """
    for name in CONFIG_FILES:
        path = folder / name
        values = read_json(path) if path.is_file() else None
        # An older processor_config.json has nothing about images, which the other file has then.
        values = values.get("image_processor") if values and name == CONFIG_FILES[1] else values
        if values is not None:
            return picked(values)
    return None


def picked(values: Mapping[str, Any]) -> ImageArguments:
    """Picks the options among the values of a parsed file."""
    return cast(ImageArguments, {name: values[name] for name in _NAMES if values.get(name) is not None})


def _size(size: Any) -> tuple[int, tuple[int, int] | None]:
    """Returns the shortest edge and None, or 0 and (height, width)."""
    shortest_edge = size.get("shortest_edge") if isinstance(size, Mapping) and len(size) == 1 else size
    if _is_length(shortest_edge):
        return int(shortest_edge), None
    return 0, _square_or_pair("size", size)


def _square_or_pair(name: str, size: Any) -> tuple[int, int]:
    if _is_length(size):
        return int(size), int(size)
    if isinstance(size, Mapping) and set(size) == {"height", "width"} and all(map(_is_length, size.values())):
        return size["height"], size["width"]
    raise ValueError(
        f"`{name}` must be a positive integer, or {{'height': h, 'width': w}}"
        + (", or {'shortest_edge': n}" if name == "size" else "")
        + f". Received: {name}={size!r}. Check the checkpoint's preprocessor_config.json."
    )


def _is_length(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _three_numbers(name: str, values: Sequence[float] | float) -> tuple[float, ...]:
    values = [values] * 3 if isinstance(values, (int, float)) else values
    if len(values) != 3 or (name == "image_std" and 0 in values):
        raise ValueError(
            f"`{name}` must be three numbers, one per channel, and a divisor not 0. Received: {name}={values!r}. "
            "Check the checkpoint's preprocessor_config.json."
        )
    return tuple(map(float, values))
