"""Random changes of training images, in the graph; the same seed gives the same changes."""

from __future__ import annotations

import dataclasses
import functools
import math

import tensorflow as tf

from tf_clip.preprocessing.images.resample import Resampler

_TRIES = 10  # of a crop that fits, as in torchvision
_LUMA = (0.299, 0.587, 0.114)  # ITU-R 601, as Pillow's "L"


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What is drawn for each image and epoch.

    The default is OpenCLIP's, close to the CLIP paper's "random square crop from resized images": a random part of the
    image, resized with Pillow's filter to the model's size.

    Args:
        scale: the part's share of the image's area, from and to.
        ratio: the part's width by its height, from and to.
        flip_prob: how often the image is mirrored. Captions that say left or right become wrong.
        color_jitter: the largest changes of brightness, contrast, saturation and hue, in a random order. A change of
            0.3 multiplies by a factor from 0.7 to 1.3; hue is turned by at most this part of a circle.
        color_jitter_prob: how often `color_jitter` is applied.
        gray_scale_prob: how often the image loses its colors.

    Raises:
        ValueError: a value is out of its range.

    Example:
        >>> Augmentation(scale=(0.4, 1.0), color_jitter=(0.32, 0.32, 0.32, 0.08), color_jitter_prob=0.8).flip_prob
        0.0

    Source: Radford et al. 2021, section 2.5; open_clip's AugmentationCfg, whose names these are, and torchvision's
    RandomResizedCrop and ColorJitter. Difference: colors are not rounded to bytes between one change and the next.
    """

    scale: tuple[float, float] = (0.9, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip_prob: float = 0.0
    color_jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    color_jitter_prob: float = 1.0
    gray_scale_prob: float = 0.0

    def __post_init__(self) -> None:
        for name in ("flip_prob", "color_jitter_prob", "gray_scale_prob"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"`{name}` must be from 0 to 1. Received: {name}={value!r}. 0 leaves it out.")
        for name, most in (("scale", 1.0), ("ratio", math.inf)):
            value = getattr(self, name)
            if len(value) != 2 or not 0.0 < value[0] <= value[1] <= most:
                raise ValueError(
                    f"`{name}` must be the least and the greatest value, above 0{' and up to 1' if most == 1 else ''}. "
                    f"Received: {name}={value!r}. OpenCLIP takes (0.9, 1.0) and (0.75, 1.333)."
                )
        if len(self.color_jitter) != 4 or min(self.color_jitter) < 0.0 or self.color_jitter[3] > 0.5:
            raise ValueError(
                "`color_jitter` must be brightness, contrast, saturation and hue, not below 0, and hue not above 0.5. "
                f"Received: color_jitter={self.color_jitter!r}. (0, 0, 0, 0) leaves it out."
            )

    def __call__(self, pixels: tf.Tensor, seed: tf.Tensor, size: tuple[int, int], resample: int) -> tf.Tensor:
        """Changes one image.

        Args:
            pixels: uint8 `[height, width, 3]`.
            seed: int64 `[2]`; decides all that is drawn.
            size: height and width of the result.
            resample: Pillow's number of the filter.

        Returns:
            uint8 `[*size, 3]`.
        """
        crop_seed, flip_seed, color_seed, gray_seed = tf.unstack(tf.random.split(seed, 4))
        pixels = self._resized_crop(pixels, crop_seed, size, resample)
        if self.flip_prob:
            pixels = tf.cond(_happens(self.flip_prob, flip_seed), lambda: tf.reverse(pixels, [1]), lambda: pixels)
        if any(self.color_jitter) and self.color_jitter_prob:
            flat = pixels
            is_jittered = _happens(self.color_jitter_prob, color_seed)
            pixels = tf.cond(is_jittered, lambda: self._jittered(flat, color_seed), lambda: flat)
        if self.gray_scale_prob:
            colored = pixels
            is_gray = _happens(self.gray_scale_prob, gray_seed)
            pixels = tf.cond(is_gray, lambda: _as_bytes(_gray(tf.cast(colored, tf.float32))), lambda: colored)
        return tf.ensure_shape(pixels, [*size, 3])

    def _resized_crop(self, pixels: tf.Tensor, seed: tf.Tensor, size: tuple[int, int], resample: int) -> tf.Tensor:
        top, left, height, width = self._crop(tf.shape(pixels)[0], tf.shape(pixels)[1], seed)
        part = pixels[top : top + height, left : left + width]
        whole = [tf.constant(side) for side in size]
        return Resampler([height, width], whole, [tf.constant(0)] * 2, whole, resample)(part)

    def _crop(self, height: tf.Tensor, width: tf.Tensor, seed: tf.Tensor) -> tuple[tf.Tensor, ...]:
        """Draws top, left, height and width, all int32."""
        drawn = tf.random.stateless_uniform([4, _TRIES], seed)
        full_height, full_width = tf.cast(height, tf.float32), tf.cast(width, tf.float32)
        area = full_height * full_width * _between(drawn[0], self.scale)
        ratio = tf.exp(_between(drawn[1], (math.log(self.ratio[0]), math.log(self.ratio[1]))))
        heights, widths = tf.round(tf.sqrt(area / ratio)), tf.round(tf.sqrt(area * ratio))
        fits = (heights > 0) & (heights <= full_height) & (widths > 0) & (widths <= full_width)
        tops = tf.floor(drawn[2] * (full_height - heights + 1.0))
        lefts = tf.floor(drawn[3] * (full_width - widths + 1.0))
        chosen = tf.argmax(tf.cast(fits, tf.int32))
        drawn_crop = tf.stack([tops, lefts, heights, widths])[:, chosen]
        # Where none fits, the largest part of the center that has an allowed shape.
        shape = tf.clip_by_value(full_width / full_height, *self.ratio)
        central_height = tf.maximum(tf.minimum(full_height, tf.round(full_width / shape)), 1.0)
        central_width = tf.maximum(tf.minimum(full_width, tf.round(full_height * shape)), 1.0)
        central = tf.stack(
            [
                tf.floor((full_height - central_height) / 2.0),
                tf.floor((full_width - central_width) / 2.0),
                central_height,
                central_width,
            ]
        )
        top, left, crop_height, crop_width = tf.unstack(
            tf.cast(tf.where(tf.reduce_any(fits), drawn_crop, central), tf.int32)
        )
        # A product in float32 may round up to one row too many.
        return tf.minimum(top, height - crop_height), tf.minimum(left, width - crop_width), crop_height, crop_width

    def _jittered(self, pixels: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
        factor_seed, order_seed = tf.unstack(tf.random.split(seed, 2))
        drawn = tf.random.stateless_uniform([4], factor_seed)
        *strengths, hue = self.color_jitter
        brightness, contrast, saturation = (
            _between(drawn[index], (max(0.0, 1.0 - strength), 1.0 + strength))
            for index, strength in enumerate(strengths)
        )
        turn = _between(drawn[3], (-hue, hue))

        def blended(image: tf.Tensor, other: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
            return tf.clip_by_value(other + (image - other) * share, 0.0, 255.0)

        changes = (
            lambda image: tf.clip_by_value(image * brightness, 0.0, 255.0),
            lambda image: blended(image, tf.reduce_mean(_gray(image)), contrast),
            lambda image: blended(image, _gray(image), saturation),
            lambda image: tf.image.adjust_hue(image / 255.0, turn) * 255.0 if hue else image,
        )
        order = tf.argsort(tf.random.stateless_uniform([len(changes)], order_seed))
        image = tf.cast(pixels, tf.float32)
        for position in range(len(changes)):
            image = tf.switch_case(order[position], [functools.partial(change, image) for change in changes])
        return _as_bytes(image)


def _happens(probability: float, seed: tf.Tensor) -> tf.Tensor:
    # Independent of what is drawn with the same seed for the change itself.
    return tf.random.stateless_uniform([], tf.random.fold_in(seed, 1)) < probability


def _between(drawn: tf.Tensor, limits: tuple[float, float]) -> tf.Tensor:
    return limits[0] + drawn * (limits[1] - limits[0])


def _gray(image: tf.Tensor) -> tf.Tensor:
    """Returns an image's brightness in all three channels, float32."""
    return tf.repeat(tf.reduce_sum(image * tf.constant(_LUMA), axis=-1, keepdims=True), 3, axis=-1)


def _as_bytes(image: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.clip_by_value(tf.round(image), 0.0, 255.0), tf.uint8)
