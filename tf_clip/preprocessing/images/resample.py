"""Pillow's 8-bit image resampling, reproduced to the last bit inside the TensorFlow graph.

Pillow rounds its filter weights to integers of 22 fractional bits and sums in integers, along one axis
and then along the other, rounding to a byte after each. Here the sums are matrix products: neighboring
outputs share their inputs, so that a few small products of eight outputs each do it. Weights are split into
two halves of 11 bits, whose sums are whole numbers that float32 holds exactly; for filters so wide that it
might not, the same is done in float64.

The order follows Pillow 13: the width first, unless the height loses more than twice as many pixels.
Before 13 the width always came first, which differs by a level here and there in tall images.

Only the window that is wanted is computed, from the rows and columns that it needs: a 20 000 x 20 image
costs no more memory than its pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import tensorflow as tf

_Pair = Sequence[tf.Tensor]
_PRECISION_BITS, _HALF_BITS = 22, 11
_EXACT_BITS = 23  # one less than float32 has, for the half that is added
_BLOCK = 8  # outputs of one matrix product
_SLAB_PIXELS = 1 << 19
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


NEAREST = 0
FILTERS: dict[int, tuple[Callable[[tf.Tensor], tf.Tensor], float]] = {
    1: (_lanczos, 3.0),
    2: (_bilinear, 1.0),
    3: (_bicubic, 2.0),
    4: (_box, 0.5),
    5: (_hamming, 1.0),
}
"""Pillow's number of a filter -> its function and half-width in source pixels."""
RESAMPLES = (NEAREST, *FILTERS)
"""All of Pillow's numbers; nearest weighs nothing."""


class Resampler:
    """Resizes images of one size and cuts a window out of each, zero where the window leaves the image.

    The weights are computed once for all of them.

    Args:
        shape: int32 height and width of the images.
        resized: int32 height and width that each whole image would be resized to.
        offset: int32 row and column of the resized image where the window starts; may be negative.
        window: int32 height and width of the window.
        resample: Pillow's number of the filter, one of `RESAMPLES`.

    Call arguments:
        image: uint8 `[height, width, channels]`.

    Returns:
        uint8 `[window height, window width, channels]`, the bytes that Pillow's resize and crop give.
    """

    def __init__(self, shape: _Pair, resized: _Pair, offset: _Pair, window: _Pair, resample: int) -> None:
        kind = _NearestPass if resample == NEAREST else _Pass
        passes = zip(shape, resized, offset, window, strict=True)
        self._rows, self._columns = (kind(*sizes, resample) for sizes in passes)
        removed_rows, removed_columns = shape[0] - resized[0], shape[1] - resized[1]
        self._begins_with_rows = removed_rows > tf.maximum(2 * removed_columns, 0)

    def __call__(self, image: tf.Tensor) -> tf.Tensor:
        """Resizes one image; see the class."""
        rows, columns = self._rows, self._columns

        def rows_first() -> tf.Tensor:
            shorter = _along_height(image[rows.first : rows.last, columns.first : columns.last], rows)
            return _along_width(shorter, 0, tf.shape(shorter)[0], columns, 0)

        pixels = tf.cond(
            self._begins_with_rows,
            rows_first,
            lambda: _along_height(_along_width(image, rows.first, rows.last, columns, columns.first), rows),
        )
        return tf.ensure_shape(pixels, [None, None, image.shape[2]])


def _along_height(pixels: tf.Tensor, rows: _Pass | _NearestPass) -> tf.Tensor:
    width, channels = tf.shape(pixels)[1], pixels.shape[2]
    flat = tf.reshape(pixels, [tf.shape(pixels)[0], width * channels])
    return tf.reshape(rows(flat), [-1, width, channels])


def _along_width(
    pixels: tf.Tensor,
    first_row: tf.Tensor | int,
    last_row: tf.Tensor,
    columns: _Pass | _NearestPass,
    first_column: tf.Tensor | int,
) -> tf.Tensor:
    """Applies a pass to the columns of some rows, of which the needed ones begin at `first_column`."""
    width, channels = columns.last - columns.first, pixels.shape[2]
    # A few rows at a time: turning a large image on its side in one go is slow, and takes six times its memory.
    rows = tf.maximum(_SLAB_PIXELS // width, 1)
    count = (last_row - first_row + rows - 1) // rows

    def slab(index: tf.Tensor | int) -> tf.Tensor:
        row = first_row + index * rows
        needed = pixels[row : tf.minimum(row + rows, last_row), first_column : first_column + width]
        height = tf.shape(needed)[0]
        # Turned on its side value by value, the channels lie beside the rows: that is faster than pixel by pixel.
        turned = tf.transpose(tf.reshape(needed, [height, width * channels]))
        summed = columns(tf.reshape(turned, [width, channels * height]))
        return tf.reshape(tf.transpose(tf.reshape(summed, [-1, height])), [height, -1, channels])

    def all_slabs() -> tf.Tensor:
        shape = [None, None, channels]
        done = tf.TensorArray(tf.uint8, count, infer_shape=False, element_shape=shape)
        return tf.while_loop(
            lambda index, _: index < count, lambda index, done: (index + 1, done.write(index, slab(index))), (0, done)
        )[1].concat()

    return tf.cond(count == 1, lambda: slab(0), all_slabs)


class _Pass:
    """Pillow's weighted sums along the first axis of an image.

    Args:
        size_in, size_out: scalars int32, length of the axis before and after.
        start, count: scalars int32, which part of the result is wanted.
        resample: Pillow's number of the filter.

    Attributes:
        first, last: scalars int32, the inputs that the part depends on; calls take no others.
    """

    def __init__(
        self, size_in: tf.Tensor, size_out: tf.Tensor, start: tf.Tensor, count: tf.Tensor, resample: int
    ) -> None:
        function, half_width = FILTERS[resample]
        blocks = (count + _BLOCK - 1) // _BLOCK
        wanted = tf.range(start, start + blocks * _BLOCK)
        ends = tf.stack([start, start + count - 1])
        outputs = tf.clip_by_value(wanted, *tf.unstack(tf.clip_by_value(ends, 0, size_out - 1)))
        scale = _ratio(size_in, size_out)
        stretch = tf.maximum(scale, 1.0)
        support = half_width * stretch
        center = (tf.cast(outputs, tf.float64) + 0.5) * scale
        # int() in C cuts towards zero, which is the same as floor once the lower bound is held at zero.
        first = tf.cast(tf.maximum(tf.floor(center - support + 0.5), 0.0), tf.int32)
        last = tf.minimum(tf.cast(tf.floor(center + support + 0.5), tf.int32), size_in)

        taps = tf.range(tf.reduce_max(last - first))
        inputs = first[:, tf.newaxis] + taps
        distance = (tf.cast(inputs, tf.float64) - center[:, tf.newaxis] + 0.5) / stretch
        weights = tf.where(inputs < last[:, tf.newaxis], function(distance), 0.0)
        weights = tf.math.divide_no_nan(weights, tf.reduce_sum(weights, axis=1, keepdims=True))
        scaled = weights * float(1 << _PRECISION_BITS)
        rounded = tf.sign(scaled) * tf.floor(tf.abs(scaled) + 0.5)  # half away from zero, as in C
        # Beyond the image all is black.
        rounded = tf.where((wanted == outputs)[:, tf.newaxis], rounded, 0.0)

        self.first, self.last = first[0], last[-1]
        self._count, self._blocks = count, blocks
        self._place_in_blocks(rounded, first, last)

    def _place_in_blocks(self, weights: tf.Tensor, first: tf.Tensor, last: tf.Tensor) -> None:
        """Makes one matrix of each block's weights, over the inputs that any of its outputs needs."""
        begin = first[::_BLOCK]
        width = tf.reduce_max(last[_BLOCK - 1 :: _BLOCK] - begin)
        # All blocks are as wide as the widest, so that the last ones begin earlier.
        begin = tf.maximum(tf.minimum(begin, self.last - width), self.first)
        inputs = begin[:, tf.newaxis] + tf.range(width)
        self._inputs = tf.minimum(inputs, self.last - 1) - self.first
        tap = tf.repeat(inputs, _BLOCK, axis=0) - first[:, tf.newaxis]
        taps = tf.shape(weights)[1]
        placed = tf.gather(weights, tf.clip_by_value(tap, 0, taps - 1), batch_dims=1)
        placed = tf.reshape(tf.where((tap >= 0) & (tap < taps), placed, 0.0), [-1, _BLOCK, width])
        high = tf.round(placed * 2.0**-_HALF_BITS)
        low = placed - high * 2.0**_HALF_BITS
        largest = tf.reduce_max(tf.reduce_sum(tf.maximum(tf.abs(high), tf.abs(low)), axis=2)) * 255.0
        self._weights = tf.concat([high, low * 2.0**-_HALF_BITS], axis=1)
        self._is_exact = largest < 2.0**_EXACT_BITS

    def __call__(self, pixels: tf.Tensor) -> tf.Tensor:
        """Weighs and rounds, uint8 `[last - first, others]` to `[count, others]`."""
        sums = tf.cond(
            self._is_exact, lambda: self._weighed(pixels, tf.float32), lambda: self._weighed(pixels, tf.float64)
        )
        return tf.reshape(sums, [-1, tf.shape(pixels)[1]])[: self._count]

    def _weighed(self, pixels: tf.Tensor, dtype: tf.DType) -> tf.Tensor:
        blocks = tf.cast(tf.gather(pixels, self._inputs), dtype)
        sums = tf.matmul(tf.cast(self._weights, dtype), blocks)
        high, low = sums[:, :_BLOCK], sums[:, _BLOCK:]
        # A half more, and all below the point cut off, rounds; first in the lower half, whose rest goes to the upper.
        carried = tf.floor(low + 2.0 ** (_PRECISION_BITS - _HALF_BITS - 1))
        rounded = (high + carried) * 2.0**-_HALF_BITS
        # The cast cuts off what is left below the point. One operation, where tf.clip_by_value is two.
        return tf.cast(tf.raw_ops.ClipByValue(t=rounded, clip_value_min=0.0, clip_value_max=255.5), tf.uint8)


class _NearestPass:
    """Pillow's choice of one input for each output, along the first axis of an image; like `_Pass`."""

    def __init__(
        self, size_in: tf.Tensor, size_out: tf.Tensor, start: tf.Tensor, count: tf.Tensor, resample: int
    ) -> None:
        step = _ratio(size_in, size_out)
        # Pillow adds the step again and again; the rounding of that decides ties.
        positions = tf.cumsum(tf.concat([[step * 0.5], tf.fill([size_out - 1], step)], axis=0))
        outputs = tf.range(start, start + count)
        self._is_inside = (outputs >= 0) & (outputs < size_out)
        chosen = tf.gather(tf.cast(positions, tf.int32), tf.clip_by_value(outputs, 0, size_out - 1))
        self.first, self.last = chosen[0], chosen[-1] + 1
        self._chosen = chosen - self.first

    def __call__(self, pixels: tf.Tensor) -> tf.Tensor:
        """Takes one pixel for each, and black beyond the image."""
        return tf.where(self._is_inside[:, tf.newaxis], tf.gather(pixels, self._chosen), 0)


def _ratio(size_in: tf.Tensor, size_out: tf.Tensor) -> tf.Tensor:
    # Graphs replace a plain division by a constant with a product, whose last bit may be another.
    return tf.math.divide_no_nan(tf.cast(size_in, tf.float64), tf.cast(size_out, tf.float64))
