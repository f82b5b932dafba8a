"""Pillow's 8-bit image resampling, reproduced to the last bit inside the TensorFlow graph.

Pillow rounds its filter weights to integers of 22 fractional bits and sums in integers, along one axis
and then along the other, rounding to a byte after each. Products of such weights with bytes are whole
numbers far below 2^53, so float64 matrix products give the same sums exactly.

The order follows Pillow 13: the width first, unless the height loses more than twice as many pixels.
Before 13 the width always came first, which differs by a level here and there in tall pictures.

Only the window that is wanted is computed: a 20 000 x 20 picture costs no more memory than its pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import tensorflow as tf

_PRECISION_BITS = 22
_BICUBIC_A = -0.5


def _box(x: tf.Tensor) -> tf.Tensor:
    return tf.where((x > -0.5) & (x <= 0.5), tf.ones_like(x), 0.0)


def _bilinear(x: tf.Tensor) -> tf.Tensor:
    return tf.maximum(1.0 - tf.abs(x), 0.0)


def _hamming(x: tf.Tensor) -> tf.Tensor:
    x = tf.abs(x)
    # Pillow writes these two as float32 constants.
    value = _sinc(x) * (0.5400000214576721 + 0.46000000834465027 * tf.cos(x * tf.constant(math.pi, x.dtype)))
    return tf.where(x < 1.0, value, 0.0)


def _bicubic(x: tf.Tensor) -> tf.Tensor:
    x, a = tf.abs(x), _BICUBIC_A
    near = ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0
    far = (((x - 5.0) * x + 8.0) * x - 4.0) * a
    return tf.where(x < 1.0, near, tf.where(x < 2.0, far, 0.0))


def _lanczos(x: tf.Tensor) -> tf.Tensor:
    return tf.where((x >= -3.0) & (x < 3.0), _sinc(x) * _sinc(x / 3.0), 0.0)


def _sinc(x: tf.Tensor) -> tf.Tensor:
    angle = x * tf.constant(math.pi, x.dtype)
    return tf.where(x == 0.0, tf.ones_like(x), tf.math.divide_no_nan(tf.sin(angle), angle))


FILTERS: dict[int, tuple[Callable[[tf.Tensor], tf.Tensor], float]] = {
    1: (_lanczos, 3.0),
    2: (_bilinear, 1.0),
    3: (_bicubic, 2.0),
    4: (_box, 0.5),
    5: (_hamming, 1.0),
}
"""Pillow's number of a filter -> its function and half-width in source pixels."""


def resample_window(
    image: tf.Tensor,
    resized: tuple[tf.Tensor, tf.Tensor],
    offset: tuple[tf.Tensor, tf.Tensor],
    window: tuple[tf.Tensor, tf.Tensor],
    resample: int,
) -> tf.Tensor:
    """Resizes a picture and returns a window of the result, zero where the window leaves it.

    Args:
        image: uint8 `[height, width, channels]`.
        resized: int32 height and width that the whole picture would be resized to.
        offset: int32 row and column of the resized picture where the window starts; may be negative.
        window: int32 height and width of the window.
        resample: Pillow's number of the filter, a key of `FILTERS`.

    Returns:
        uint8 `[window height, window width, channels]`, equal to Pillow's resize and crop.
    """
    shape = tf.shape(image)
    by_row = _weights(shape[0], resized[0], offset[0], window[0], resample)  # [window height, height]
    by_column = _weights(shape[1], resized[1], offset[1], window[1], resample)  # [window width, width]
    removed_rows, removed_columns = shape[0] - resized[0], shape[1] - resized[1]
    return tf.cond(
        removed_rows > tf.maximum(2 * removed_columns, 0),
        lambda: _along_width(_along_height(image, by_row), by_column),
        lambda: _along_height(_along_width(image, by_column), by_row),
    )


def _along_width(pixels: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    return tf.transpose(_along_height(tf.transpose(pixels, (1, 0, 2)), weights), (1, 0, 2))


def _along_height(pixels: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """Weighs the rows of bytes and rounds to bytes: `[height, width, channels]` to `[count, width, channels]`."""
    height, width, channels = tf.unstack(tf.shape(pixels))
    rows = tf.cast(tf.reshape(pixels, [height, width * channels]), tf.float64)
    # The sums are whole numbers: a half more, and all below the point cut off, rounds them.
    rounded = tf.floor(tf.matmul(weights, rows) * 2.0**-_PRECISION_BITS + 0.5)
    values = tf.cast(tf.clip_by_value(rounded, 0.0, 255.0), tf.uint8)
    return tf.reshape(values, [-1, width, pixels.shape[2]])


def _weights(size_in: tf.Tensor, size_out: tf.Tensor, start: tf.Tensor, count: tf.Tensor, resample: int) -> tf.Tensor:
    """Returns Pillow's integer weights of `count` outputs from `start` on, float64 `[count, size_in]`."""
    function, half_width = FILTERS[resample]
    scale = tf.cast(size_in, tf.float64) / tf.cast(size_out, tf.float64)
    stretch = tf.maximum(scale, 1.0)
    support = half_width * stretch
    outputs = tf.range(start, start + count)[:, tf.newaxis]
    inputs = tf.range(size_in)[tf.newaxis, :]
    centre = (tf.cast(outputs, tf.float64) + 0.5) * scale
    # int() in C cuts towards zero, which is the same as floor once the lower bound is held at zero.
    first = tf.cast(tf.maximum(tf.floor(centre - support + 0.5), 0.0), tf.int32)
    last = tf.cast(tf.floor(centre + support + 0.5), tf.int32)
    within = (inputs >= first) & (inputs < last) & (outputs >= 0) & (outputs < size_out)

    distance = (tf.cast(inputs, tf.float64) - centre + 0.5) / stretch
    weights = tf.where(within, function(distance), 0.0)
    weights = tf.math.divide_no_nan(weights, tf.reduce_sum(weights, axis=1, keepdims=True))
    scaled = weights * float(1 << _PRECISION_BITS)
    return tf.sign(scaled) * tf.floor(tf.abs(scaled) + 0.5)  # half away from zero, as in C
