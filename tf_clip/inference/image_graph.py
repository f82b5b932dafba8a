"""The image tower's fast graph: from pixels or bytes to features."""

from __future__ import annotations

import tensorflow as tf

from tf_clip.inference.blocks import centered, norm, pooled, run_all_but_last, run_last_block
from tf_clip.inference.tower_weights import ImageWeights


def encode_image(images: tf.Tensor, weights: ImageWeights) -> tf.Tensor:
    """Encodes images.

    Args:
        images: `[batch, image_size, image_size, channels]`, uint8, or float32 if they are normalized. A batch of
            unknown size, at least two, is computed in halves: where one waits for its parts, the other goes on.
        weights: the tower's.

    Returns:
        float32 `[batch, projection_dim]`, not of unit length.
    """
    if images.shape[0] is not None:
        return _encode(images, weights)
    half = tf.shape(images)[0] // 2
    return tf.concat([_encode(images[:half], weights), _encode(images[half:], weights)], axis=0)


def _encode(images: tf.Tensor, weights: ImageWeights) -> tf.Tensor:
    x = _embedded(images, weights)
    length, width = weights.positions.shape

    def arrange(rows: tf.Tensor) -> tf.Tensor:
        return tf.reshape(rows, (-1, length, rows.shape[-1]))

    x = run_all_but_last(x, weights, arrange, tf.identity, None)
    x = run_last_block(x, arrange(x)[:, 0], weights, arrange, None)
    return pooled(tf.ensure_shape(x, (None, width)), weights)


def _embedded(images: tf.Tensor, weights: ImageWeights) -> tf.Tensor:
    """Returns the residual stream before the first block, `[batch * length, hidden_size]`."""
    products = weights.patches_of_bytes if images.dtype == tf.uint8 else weights.patches
    length, width = weights.positions.shape
    pixels = _patches(images, weights)
    patches = tf.reshape(tf.concat([product(pixels) for product in products], axis=1), (-1, length - 1, width))
    # The class token is part of its position: here there is only room for it.
    tokens = tf.pad(patches, ((0, 0), (1, 0), (0, 0))) + weights.positions
    rows = norm(centered(tf.reshape(tokens, (-1, width))), weights.epsilon)
    return centered(rows * weights.norm_scale + weights.norm_offset)


def _patches(images: tf.Tensor, weights: ImageWeights) -> tf.Tensor:
    """Cuts images into rows of pixels, float32 `[batch * patches, patch_size ** 2 * channels]`."""
    size, channels = weights.patch_size, images.shape[-1]
    side = weights.image_size // size
    # As a convolution does, it leaves out what is no whole patch at the right and at the bottom.
    images = images[:, : side * size, : side * size]
    cut = tf.reshape(images, (-1, side, size, side, size * channels))
    rows = tf.reshape(tf.transpose(cut, (0, 1, 3, 2, 4)), (-1, size * size * channels))
    return tf.cast(rows, tf.float32)
