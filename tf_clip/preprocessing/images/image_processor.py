"""`ImageProcessor`: images to `pixel_values`, in eager code, `tf.function` and `tf.data`."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
import tensorflow as tf
from PIL import Image

from tf_clip.checkpoints import hub
from tf_clip.files import write_text
from tf_clip.preprocessing.images.decode import composite_on_white, decode_rgb, reason_of
from tf_clip.preprocessing.images.image_options import (
    CONFIG_FILES,
    ImageArguments,
    ImageOptions,
    picked,
    read_options,
)
from tf_clip.preprocessing.images.opening import open_image
from tf_clip.preprocessing.images.resample import Resampler
from tf_clip.preprocessing.return_kinds import converter

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack


class ImageProcessor(tf.Module):
    """Resizes, crops and normalizes images as a model was trained to see them.

    Resizing and cropping give the very bytes that Pillow gives. A family's image processor is a subclass that states
    its own `defaults`.

    Args:
        do_resize: whether to resize. This argument and those below may be left out. The class's `defaults` count then,
            and what is usual where these say nothing: every step is done, `size` must be given, `crop_size` is the
            same, bicubic, and pixels become [0, 1].
        size: `{"shortest_edge": n}` keeps the aspect ratio, `{"height": h, "width": w}` does not; an
            integer is a shortest edge. Pixels.
        resample: Pillow's number of the filter: 1 Lanczos, 2 bilinear, 3 bicubic, 4 box, 5 Hamming.
        do_center_crop: whether to cut out the center; smaller images are padded with black.
        crop_size: `{"height": h, "width": w}`, or an integer for a square. Pixels.
        do_rescale: whether to multiply by `rescale_factor`.
        rescale_factor: 1/255 brings bytes to [0, 1].
        do_normalize: whether to subtract `image_mean` and divide by `image_std`.
        image_mean, image_std: one value per channel, or one for all, on the rescaled scale.
        do_convert_rgb: whether grays are repeated and transparency is composited on white. With False, pixels
            of another number of channels than 3 and PIL images of another mode than RGB are errors, as
            three means cannot normalize them; encoded images are decoded to RGB either way.
        crop_style: how the center crop rounds at the top and left when half a pixel is left over.
            `"huggingface"` rounds a cut down and a padding up; `"openai"`, as OpenAI's code, OpenCLIP and
            torchvision do, rounds a cut to the even number and a padding down.
        apply_exif: whether encoded images are turned upright by their orientation tag. Pixels and PIL
            images are always taken as they lie.

    Call arguments:
        images: encoded images (bytes, a list of bytes, a string tensor of rank 0 or 1; JPEG, PNG,
            WebP or GIF), PIL images, or uint8 pixels: one `[height, width, channels]`, a batch of them, or
            a list of images of any sizes and kinds. 1 channel is repeated, 4 are composited on white.
        do_resize ... apply_exif: as above, for this call alone; None takes the object's own.
        return_tensors: `"tf"`, `"np"`, `"jax"` or `"pt"`; `"tf"` inside a graph.

    Returns:
        A dictionary with `pixel_values`, float32 `[batch, height, width, 3]`, channels last.

    Raises:
        ImportError: the library that `return_tensors` names is not installed.
        TypeError: the pixels are not uint8.
        ValueError: an option has no meaning; an image cannot be decoded or is unsafely large (its index is
            named), or has another number of channels. Inside a graph: `tf.errors.InvalidArgumentError`.

    Source: transformers 5's CLIPImageProcessor, PIL backend, but channels last.
    """

    defaults: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    """A family's own values of the arguments, where neither a caller nor a file gives them."""
    config_files: ClassVar[tuple[str, ...]] = CONFIG_FILES
    """The files that may hold the options."""
    hugging_face_class: ClassVar[str] = "BaseImageProcessor"
    """The class that transformers reads the saved file with."""

    def __init__(self, **options: Unpack[ImageArguments]) -> None:
        super().__init__(name="image_processor")
        self._options = own = ImageOptions.of(options, self.defaults)
        self.do_convert_rgb, self.apply_exif = own.do_convert_rgb, own.apply_exif
        self.do_resize, self.shortest_edge, self.resized_to = own.do_resize, own.shortest_edge, own.resized_to
        self.resample, self.do_center_crop, self.crop_to = own.resample, own.do_center_crop, own.crop_to
        self.crop_style, self.do_rescale, self.rescale_factor = (
            own.crop_style,
            own.do_rescale,
            own.rescale_factor,
        )
        self.do_normalize, self.image_mean, self.image_std = own.do_normalize, own.image_mean, own.image_std
        # AutoGraph has nothing to translate here, and would take most of a first call's time.
        self._traced_bytes = tf.function(
            self._from_bytes, input_signature=[tf.TensorSpec([None], tf.string)], autograph=False
        )
        self._traced_pixels = tf.function(
            self._from_pixels, input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8)], autograph=False
        )

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, *, revision: str | None = None) -> Self:
        """Reads `preprocessor_config.json`, the `image_processor` part of `processor_config.json`, or OpenCLIP's file.

        Args:
            name_or_path: a shipped name, a local folder or a Hub id.
            revision: branch, tag or commit on the Hub.

        Raises:
            FileNotFoundError: there is no such checkpoint, or it has none of the files.
            ValueError: the file is broken or has a value that cannot be honored.
        """
        return cls.from_folder(hub.resolve_folder(name_or_path, revision))

    @classmethod
    def from_folder(cls, folder: Path) -> Self:
        """Reads the options in a local folder; see `from_pretrained`."""
        options = cls._read(folder)
        if options is None:
            raise FileNotFoundError(
                f"`folder` must hold {' or '.join(cls.config_files)}. Received: folder={str(folder)!r}. "
                "Copy it from the checkpoint the model was trained with."
            )
        return cls(**options)

    @classmethod
    def _read(cls, folder: Path) -> ImageArguments | None:
        """Returns the options in a folder, or None if no file there has any. A family may read files of its own."""
        return read_options(folder)

    def to_dict(self) -> dict[str, Any]:
        """Returns the options, as `preprocessor_config.json` holds them."""
        return self._options.to_dict(self.hugging_face_class)

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes `preprocessor_config.json` into a folder."""
        write_text(Path(folder) / CONFIG_FILES[0], json.dumps(self.to_dict(), indent=2) + "\n")

    def preprocess(
        self, images: Any, *, return_tensors: str = "tf", **options: Unpack[ImageArguments]
    ) -> dict[str, Any]:
        """Prepares images, the same as calling the object; see the class."""
        convert = dict if return_tensors == "tf" else converter(return_tensors)
        processor = self if all(value is None for value in options.values()) else self._with(options)
        return convert({"pixel_values": processor._prepare(images)})

    __call__ = preprocess

    def _with(self, changes: ImageArguments) -> Self:
        """Returns a processor with other options; the same one for the same options, which is traced already."""
        given = cast("ImageArguments", {name: value for name, value in changes.items() if value is not None})
        options = ImageOptions.of(given, picked(self.to_dict()))
        return self if options == self._options else cast("Self", _with_options(cast(Any, type(self)), options))

    def _prepare(self, images: Any) -> tf.Tensor:
        if isinstance(images, Image.Image):
            images = [images]
        if isinstance(images, (list, tuple)):
            return self._prepare_list(images)
        images = tf.convert_to_tensor(images)
        if images.dtype == tf.string:
            images = tf.reshape(images, [-1])
            return self._prepare_files(images) if tf.executing_eagerly() else self._from_bytes(images)
        images = self._as_rgb(images)
        images = images[tf.newaxis] if images.shape.rank == 3 else images
        return self._traced_pixels(images) if tf.executing_eagerly() else self._from_pixels(images)

    def _prepare_list(self, images: Sequence[Any]) -> tf.Tensor:
        """Prepares images of any kinds and sizes: files together, and pixels of one size together."""
        if not images:
            raise ValueError("`images` must hold at least one image. Received: an empty list. Pass one.")
        if all(isinstance(image, bytes) for image in images):
            return self._prepare_files(tf.constant(images))
        rows: dict[int, tf.Tensor] = {}
        by_shape: dict[Any, list[tuple[int, tf.Tensor]]] = {}
        for index, image in enumerate(images):
            if isinstance(image, Image.Image):
                self._require_rgb(image.mode == "RGB", f"a PIL image of mode {image.mode} at index {index}")
                image = open_image(image, index=index)
            if isinstance(image, bytes) or (tf.is_tensor(image) and image.dtype == tf.string):
                rows[index] = self._prepare_files(tf.reshape(image, [1]), index)[0]
            else:
                pixels = self._as_rgb(tf.convert_to_tensor(image))
                shape = tuple(pixels.shape) if pixels.shape.is_fully_defined() else index
                by_shape.setdefault(shape, []).append((index, pixels))
        for group in by_shape.values():
            batch = tf.stack([pixels for _, pixels in group])
            prepared = self._traced_pixels(batch) if tf.executing_eagerly() else self._from_pixels(batch)
            if len(group) == len(images):
                return prepared
            rows.update(zip([index for index, _ in group], tf.unstack(prepared, num=len(group)), strict=True))
        return _stack([rows[index] for index in range(len(images))])

    def _prepare_files(self, files: tf.Tensor, first_index: int = 0) -> tf.Tensor:
        """Decodes and prepares files `[n]`; the first that cannot be decoded is named."""
        if self.do_center_crop or self.resized_to:
            try:
                return self._traced_bytes(files)
            except tf.errors.InvalidArgumentError:
                pass  # The loop below finds which one it is.
        return _stack([self._prepare_file(data, first_index + index) for index, data in enumerate(files)])

    def _prepare_file(self, data: tf.Tensor, index: int) -> tf.Tensor:
        try:
            return self._traced_bytes(data[tf.newaxis])[0]
        except tf.errors.InvalidArgumentError as error:
            size = int(tf.strings.length(data))
            raise ValueError(
                "`images` must hold whole JPEG, PNG, WebP or GIF files of a safe size. Received: "
                f"at index {index}, {size} bytes that cannot be decoded ({reason_of(error)}). Leave it out."
            ) from error

    def _from_bytes(self, files: tf.Tensor) -> tf.Tensor:
        """Returns the values of files `[n]`, float32 `[n, height, width, 3]`."""
        places = tf.strings.join(["at index ", tf.strings.as_string(tf.range(tf.size(files))), ": "])

        return tf.map_fn(lambda row: self.prepare_file(*row), (files, places), fn_output_signature=self._spec())

    @property
    def output_size(self) -> tuple[int, int] | None:
        """Height and width of what comes out, in pixels; None if that depends on what goes in."""
        if self.do_center_crop:
            return self.crop_to
        return self.resized_to if self.do_resize else None

    def decode_file(self, data: tf.Tensor, place: tf.Tensor | str = "") -> tf.Tensor:
        """Decodes one image and turns it upright, if `apply_exif`, in a graph; arguments as in `prepare_file`.

        Returns:
            uint8 `[height, width, 3]`.
        """
        return decode_rgb(data, place, apply_exif=self.apply_exif)

    def prepare_file(self, data: tf.Tensor, place: tf.Tensor | str = "") -> tf.Tensor:
        """Prepares one encoded image, in a graph.

        Args:
            data: scalar string, the file's bytes.
            place: scalar string, which image it is; the message of an error begins with it.

        Returns:
            float32 `[height, width, 3]`.

        Raises:
            tf.errors.InvalidArgumentError: it cannot be decoded, or is unsafely large.
        """
        pixels = self.decode_file(data, place)
        return self.normalize(self._resampler(tf.shape(pixels))(pixels))

    def _from_pixels(self, images: tf.Tensor) -> tf.Tensor:
        """Returns the values of images of one size `[n, height, width, 3]`, float32."""
        resampler = self._resampler(tf.shape(images)[1:])
        # By index, since an image of a batch needs no copy then.
        return tf.map_fn(
            lambda index: self.normalize(resampler(images[index])),
            tf.range(tf.shape(images)[0]),
            fn_output_signature=self._spec(),
        )

    def _resampler(self, shape: tf.Tensor) -> Resampler:
        shape = shape[:2]
        resized = self._resized_shape(shape) if self.do_resize else shape
        window = tf.constant(self.crop_to) if self.do_center_crop else resized
        offset = crop_offset(resized - window, self.crop_style)
        shape, resized, offset, window = map(tf.unstack, (shape, resized, offset, window))
        return Resampler(shape, resized, offset, window, self.resample)

    def _spec(self) -> tf.TensorSpec:
        return tf.TensorSpec([*(self.crop_to if self.do_center_crop else (None, None)), 3], tf.float32)

    def normalize(self, pixels: tf.Tensor) -> tf.Tensor:
        """Rescales and normalizes an image of the wanted size, uint8 `[height, width, 3]`, to float32."""
        # By rows: three channels are too few values for a vector instruction.
        shape = tf.shape(pixels)
        scale, shift = (tf.tile(values, shape[1:2]) for values in self.scale_and_shift())
        normalized = tf.cast(tf.reshape(pixels, [shape[0], 3 * shape[1]]), tf.float32) * scale + shift
        return tf.ensure_shape(tf.reshape(normalized, shape), self._spec().shape)

    def scale_and_shift(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns rescaling and normalizing as one factor and one summand per channel, float32 `[3]`.

        A division by constants would be rewritten in some graphs and not in others: one bit of the value
        would depend on where it is computed.
        """
        factor = self.rescale_factor if self.do_rescale else 1.0
        mean = np.array(self.image_mean if self.do_normalize else (0.0, 0.0, 0.0))
        std = np.array(self.image_std if self.do_normalize else (1.0, 1.0, 1.0))
        return (factor / std).astype(np.float32), (-mean / std).astype(np.float32)

    def _resized_shape(self, shape: tf.Tensor) -> tf.Tensor:
        if self.resized_to:
            return tf.constant(self.resized_to)
        # In 64 bits, since a long edge times `shortest_edge` may pass 2^31.
        shape = tf.cast(shape, tf.int64)
        return tf.cast(shape * self.shortest_edge // tf.reduce_min(shape), tf.int32)

    def _as_rgb(self, pixels: tf.Tensor) -> tf.Tensor:
        """Brings uint8 pixels of 1, 3 or 4 channels to 3."""
        if pixels.dtype != tf.uint8:
            raise TypeError(
                f"`images` must be uint8 pixels or encoded bytes. Received: dtype {pixels.dtype.name}. "
                "For floats in [0, 1], pass tf.cast(images * 255 + 0.5, tf.uint8)."
            )
        if pixels.shape.rank == 2:
            pixels = pixels[..., tf.newaxis]
        channels = pixels.shape[-1] if pixels.shape.rank in (3, 4) else None
        if channels not in (1, 3, 4) or 0 in pixels.shape:
            raise ValueError(
                "`images` must have shape [height, width, channels] or [batch, height, width, channels] with 1, 3 or "
                f"4 channels, none of it empty. Received: shape {tuple(pixels.shape)}. Put the channels last."
            )
        self._require_rgb(channels == 3, f"pixels of {channels} channels")
        if channels == 1:
            return tf.repeat(pixels, 3, axis=-1)
        return composite_on_white(pixels) if channels == 4 else pixels

    def _require_rgb(self, is_rgb: bool, received: str) -> None:
        if not is_rgb and not self.do_convert_rgb:
            raise ValueError(
                f"`images` must be RGB with do_convert_rgb=False. Received: {received}. "
                "Convert them, or set do_convert_rgb=True."
            )


@functools.lru_cache(maxsize=32)
def _with_options(kind: type[ImageProcessor], options: ImageOptions) -> ImageProcessor:
    return kind(**picked(options.to_dict("")))


def crop_offset(surplus: tf.Tensor, style: str) -> tf.Tensor:
    """Returns where a center crop begins.

    Args:
        surplus: int32, by how much the image is larger than the crop; negative where black is added.
        style: one of `CROP_STYLES`.

    Returns:
        int32, the first row or column of the crop, negative where black is added.

    Source: `center_crop` of transformers.image_transforms, and of torchvision.transforms.functional.
    """
    if style == "huggingface":
        return surplus // 2
    # Halves go to the even number: of 1, 3, 5 and 7 too many, 0, 2, 2 and 4 are cut off.
    return tf.where(surplus < 0, -(-surplus // 2), (surplus + surplus // 2 % 2) // 2)


def _stack(rows: list[tf.Tensor]) -> tf.Tensor:
    shapes = {tuple(row.shape) for row in rows}
    if len(shapes) > 1:
        raise ValueError(
            "`images` must come out in one size to form a batch. "
            f"Received: do_center_crop=False and sizes {sorted(shapes)}. Set do_center_crop=True."
        )
    return tf.stack(rows)
