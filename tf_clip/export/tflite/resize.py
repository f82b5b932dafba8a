"""Resizing and cropping an image of any size as two matrix products, with what every LiteRT runtime has built in."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from tf_clip.preprocessing.images.image_processor import ImageProcessor, crop_offset
from tf_clip.preprocessing.images.resample import FILTERS

_BILINEAR = 2
_CONTINUOUS = (1, 2, 3, 5)
"""Pillow's numbers of the filters that a last bit of a position cannot turn on or off."""


class _Axis(NamedTuple):
    """Which inputs of an axis are needed, and their weights, float32 `[outputs, last - first]`."""

    first: tf.Tensor
    last: tf.Tensor
    weights: tf.Tensor


class ImageResizer:
    """Brings one image to the size that a model reads, as `CLIPFeatureExtractorTF` does, within one gray level.

    Weights are computed in the graph for the size that comes, and as in Pillow the image is rounded to bytes between
    the two products. Only what the center crop needs is read.

    Args:
        images: the options; cropping or resizing must make one size of every image.

    Call arguments:
        pixels: uint8 `[height, width, 3]`; height and width may be unknown.

    Returns:
        uint8 `[model's height, model's width, 3]`.

    Raises:
        ValueError: the filter is not one of Pillow's Lanczos, bilinear, bicubic and Hamming, or the size of what comes
            out depends on the image.
    """

    def __init__(self, images: ImageProcessor) -> None:
        # An image that is only cropped is resized by a factor of one, which all but nearest leave as it is.
        resample = images.resample if images.do_resize else _BILINEAR
        chosen = FILTERS[resample]
        if chosen is None or resample not in _CONTINUOUS:
            raise ValueError(
                "`processor` must resize with Lanczos (1), bilinear (2), bicubic (3) or Hamming (5). "
                f"Received: resample={images.resample}. Resize in the application, and use another part."
            )
        if images.output_size is None:
            raise ValueError(
                "`processor` must bring every image to one size. Received: neither a center crop nor a height and "
                "width. Load the processor from the model's own checkpoint."
            )
        self._images, self._window = images, images.output_size
        self._filter, self._half_width = chosen

    def __call__(self, pixels: tf.Tensor) -> tf.Tensor:
        """Resizes; see the class."""
        options = self._images
        shape = tf.shape(pixels)[:2]
        resized = self._resized_shape(shape)
        offset = crop_offset(resized - self._window, options.crop_style)
        rows, columns = (
            self._axis(shape[axis], resized[axis], offset[axis], count) for axis, count in enumerate(self._window)
        )
        needed = tf.cast(pixels[rows.first : rows.last, columns.first : columns.last], tf.float32)
        removed = shape - resized
        resized_pixels = tf.cond(
            # Pillow begins with the width, unless the height loses more than twice as much.
            removed[0] > tf.maximum(2 * removed[1], 0),
            lambda: _two_products(needed, rows.weights, columns.weights),
            lambda: _turned(_two_products(_turned(needed), columns.weights, rows.weights)),
        )
        return tf.cast(tf.ensure_shape(resized_pixels, [*self._window, 3]), tf.uint8)

    def _resized_shape(self, shape: tf.Tensor) -> tf.Tensor:
        options = self._images
        if not options.do_resize:
            return shape
        if options.resized_to:
            return tf.constant(options.resized_to)
        return shape * options.shortest_edge // tf.reduce_min(shape)

    def _axis(self, size_in: tf.Tensor, size_out: tf.Tensor, start: tf.Tensor, count: int) -> _Axis:
        outputs = start + tf.range(count)
        scale = tf.cast(size_in, tf.float32) / tf.cast(size_out, tf.float32)
        stretch = tf.maximum(scale, 1.0)
        support = self._half_width * stretch
        # A center far from the origin would have no digits left behind the point in float32: whole pixels apart.
        halves = tf.cast(2 * tf.clip_by_value(outputs, 0, size_out - 1) + 1, tf.int64) * tf.cast(size_in, tf.int64)
        of_a_pixel = 2 * tf.cast(size_out, tf.int64)
        # LiteRT divides no integers of 64 bits; of a quotient that is whole, a float is near enough.
        rest = tf.math.floormod(halves, of_a_pixel)
        size = tf.cast(of_a_pixel, tf.float32)
        whole = tf.cast(tf.floor(tf.cast(halves - rest, tf.float32) / size + 0.5), tf.int32)
        rest = tf.cast(rest, tf.float32) / size
        first = tf.maximum(whole[0] - tf.cast(tf.math.ceil(support), tf.int32), 0)
        last = tf.minimum(whole[-1] + tf.cast(tf.math.ceil(support), tf.int32) + 2, size_in)
        apart = tf.cast(tf.range(first, last) - whole[:, tf.newaxis], tf.float32)
        weights = self._filter((apart + 0.5 - rest[:, tf.newaxis]) / stretch)
        weights /= tf.reduce_sum(weights, axis=1, keepdims=True)
        # Beyond the image all is black.
        is_inside = tf.cast((outputs >= 0) & (outputs < size_out), tf.float32)
        return _Axis(first, last, weights * is_inside[:, tf.newaxis])


def _two_products(pixels: tf.Tensor, first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """Weighs the rows, and then the columns, of `[height, width, 3]`."""
    shape = tf.shape(pixels)
    count = first.shape[0]
    sums = _as_bytes(tf.matmul(first, tf.reshape(pixels, [shape[0], 3 * shape[1]])))
    turned = tf.reshape(_turned(tf.reshape(sums, [count, shape[1], 3])), [shape[1], 3 * count])
    sums = _as_bytes(tf.matmul(second, turned))
    return _turned(tf.reshape(sums, [second.shape[0], count, 3]))


def _turned(pixels: tf.Tensor) -> tf.Tensor:
    return tf.transpose(pixels, [1, 0, 2])


def _as_bytes(sums: tf.Tensor) -> tf.Tensor:
    return tf.clip_by_value(tf.floor(sums + 0.5), 0.0, 255.0)
