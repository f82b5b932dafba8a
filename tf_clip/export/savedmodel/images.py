"""Encoded images to `pixel_values` in a graph, where a file that cannot be decoded costs its own row only.

TensorFlow's decoders raise, and a graph has no `except`. A `tf.data` pipeline inside the graph can leave out the
elements that failed. It also decodes on all cores.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from tf_clip.export.savedmodel.status import BROKEN, NOT_AN_IMAGE, OK
from tf_clip.preprocessing.images.decode import pixel_count
from tf_clip.preprocessing.images.image_processor import ImageProcessor

_OK, _BROKEN, _NOT_AN_IMAGE, _TOO_MANY_PIXELS = range(4)


class ReadImages(NamedTuple):
    """What could be read of `n` files.

    Args:
        pixel_values: float32 `[readable, height, width, 3]`.
        rows: which file each of them is, int64 `[readable]`.
        status: `"ok"`, or why the file could not be read, string `[n]`.
    """

    pixel_values: tf.Tensor
    rows: tf.Tensor
    status: tf.Tensor


def read_images(
    extractor: ImageProcessor, image_bytes: tf.Tensor, size: tuple[int, int], max_pixels: int
) -> ReadImages:
    """Decodes and prepares files.

    Args:
        extractor: prepares each.
        image_bytes: string `[n]`.
        size: height and width of what the extractor returns.
        max_pixels: files whose header says that they have more are not decoded.
    """
    shape = (*size, 3)

    def prepared(row: tf.Tensor, data: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        pixels = pixel_count(data)
        code = tf.where(pixels < 0, _NOT_AN_IMAGE, tf.where(pixels > max_pixels, _TOO_MANY_PIXELS, _OK))
        values = tf.cond(code == _OK, lambda: extractor.prepare_file(data), lambda: tf.zeros(shape))
        return row, code, tf.ensure_shape(values, shape)

    count = tf.size(image_bytes, tf.int64)
    files = tf.data.Dataset.from_tensor_slices(image_bytes).enumerate()
    files = files.map(prepared, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).ignore_errors()
    # One batch of all elements that did not fail; where all failed, the empty batch behind it.
    nothing = tf.zeros([0], tf.int64), tf.zeros([0], tf.int32), tf.zeros([0, *shape])
    batches = files.batch(tf.maximum(count, 1)).concatenate(tf.data.Dataset.from_tensors(nothing)).take(1)
    rows, codes, pixel_values = batches.with_options(_options()).get_single_element()
    usable = tf.where(codes == _OK)[:, 0]
    all_codes = tf.tensor_scatter_nd_update(tf.fill([tf.size(image_bytes)], _BROKEN), rows[:, tf.newaxis], codes)
    sentences = {
        _OK: OK,
        _BROKEN: BROKEN,
        _NOT_AN_IMAGE: NOT_AN_IMAGE,
        _TOO_MANY_PIXELS: f"more than {max_pixels} pixels",
    }
    status = tf.gather([sentences[code] for code in range(len(sentences))], all_codes)
    return ReadImages(tf.gather(pixel_values, usable), tf.gather(rows, usable), status)


def _options() -> tf.data.Options:
    """Returns options without tuning and rewriting, which pay only in a pipeline that runs for long."""
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False
    return options
