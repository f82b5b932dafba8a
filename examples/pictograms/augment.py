"""Makes one drawing look like many: other backgrounds, colors, sizes and angles, a batch at a time."""

from __future__ import annotations

import math

import tensorflow as tf

from tf_clip.families.clip.openclip import OPENAI_MEAN, OPENAI_STD

_LUMINANCE = (0.299, 0.587, 0.114)


def augment(rgba: tf.Tensor, size: int) -> tf.Tensor:
    """Draws a random variant of each image.

    Args:
        rgba: uint8 `[batch, height, width, 4]`, square.
        size: height and width of the result, in pixels.

    Returns:
        float32 `[batch, size, size, 3]`, normalized as CLIP's `pixel_values`.
    """
    images = tf.cast(rgba, tf.float32) / 255.0
    color, alpha = images[..., :3], images[..., 3:]
    color = _recolor_black(color, alpha)
    # Premultiplied, so that transparent pixels do not bleed into the edges.
    moved = _move(tf.concat([color * alpha, alpha], axis=-1), size)
    color, alpha = moved[..., :3], moved[..., 3:]
    images = _jitter(color + _backgrounds(tf.shape(rgba)[0]) * (1.0 - alpha))
    return (images - tf.constant(OPENAI_MEAN)) / tf.constant(OPENAI_STD)


def _chance(batch: tf.Tensor, share: float) -> tf.Tensor:
    return tf.random.uniform([batch, 1, 1, 1]) < share


def _recolor_black(color: tf.Tensor, alpha: tf.Tensor) -> tf.Tensor:
    """Gives most all-black icons another dark color: a glyph's shape is what it says, not its ink."""
    batch = tf.shape(color)[0]
    is_black = tf.reduce_max(color * alpha, axis=[1, 2, 3], keepdims=True) < 0.1
    ink = tf.random.uniform([batch, 1, 1, 3], maxval=0.75)
    return tf.where(is_black & _chance(batch, 0.7), ink, color)


def _backgrounds(batch: tf.Tensor) -> tf.Tensor:
    """White for most, else any light color."""
    light = tf.random.uniform([batch, 1, 1, 3], minval=0.55, maxval=1.0)
    return tf.where(_chance(batch, 0.6), tf.ones([batch, 1, 1, 3]), light)


def _move(images: tf.Tensor, size: int) -> tf.Tensor:
    """Scales, turns, stretches and shifts each image around its center."""
    batch, size_in = tf.shape(images)[0], images.shape[1]
    angle = tf.random.normal([batch], stddev=8.0 * math.pi / 180.0)
    # Source pixels a result pixel, so that more than size_in / size shrinks the drawing.
    scale = tf.exp(tf.random.uniform([batch], math.log(0.85), math.log(1.35))) * (size_in / size)
    stretch = tf.exp(tf.random.normal([batch], stddev=0.08))
    shift = tf.random.uniform([batch, 2], -0.08, 0.08) * size_in
    a, b = tf.cos(angle) * scale * stretch, -tf.sin(angle) * scale
    c, d = tf.sin(angle) * scale, tf.cos(angle) * scale / stretch
    center_in, center = (size_in - 1.0) / 2.0, (size - 1.0) / 2.0
    right = center_in - (a + b) * center + shift[:, 0]
    down = center_in - (c + d) * center + shift[:, 1]
    zero = tf.zeros([batch])
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=tf.stack([a, b, right, c, d, down, zero, zero], axis=1),
        output_shape=[size, size],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )


def _jitter(images: tf.Tensor) -> tf.Tensor:
    """Changes contrast, brightness, saturation and tint; a few images become gray."""
    batch = tf.shape(images)[0]
    saturation = tf.exp(tf.random.normal([batch, 1, 1], stddev=0.35))
    saturation = tf.where(tf.random.uniform([batch, 1, 1]) < 0.08, 0.0, saturation)
    contrast = tf.exp(tf.random.normal([batch, 1, 1], stddev=0.15))
    tint = tf.exp(tf.random.normal([batch, 1, 3], stddev=0.08))
    gray = tf.tile(tf.constant(_LUMINANCE)[:, tf.newaxis], [1, 3])
    matrix = (saturation * tf.eye(3) + (1.0 - saturation) * gray) * contrast * tint
    brightness = tf.random.normal([batch, 1, 1, 1], stddev=0.06)
    return tf.clip_by_value(tf.einsum("bhwc,bcd->bhwd", images, matrix) + brightness, 0.0, 1.0)
