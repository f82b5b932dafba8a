"""The rewriting `"vision_transformer"`: an image tower's weights, and its graph from pixels or bytes to features."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tf_clip.inference import folding
from tf_clip.inference.blocks import centered, norm, projected, run_all_but_last, run_last_block
from tf_clip.inference.tower_weights import Product, TowerWeights, array_of, shared_weights

WEIGHTS_OUTSIDE_OF_BLOCKS = 8
"""Class token, patches, positions, two norms and the projection."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageWeights(TowerWeights):
    """The image tower's weights.

    Args:
        patches: by the images' dtype, the product that reads their patches, in parts whose outputs are side by side;
            only of float32 if it is not known how bytes are normalized.
        positions: float32 `[1 + patches, hidden_size]`; the class token is added to the first.
        norm_scale, norm_offset: of the norm before the blocks, float32 `[hidden_size]`.
        image_size, patch_size: in pixels.
    """

    patches: Mapping[tf.DType, tuple[Product, ...]]
    positions: tf.Tensor
    norm_scale: tf.Tensor
    norm_offset: tf.Tensor
    image_size: int
    patch_size: int


def image_weights(
    tower: Any,
    normalization: tuple[np.ndarray, np.ndarray] | None,
    parts: int = 1,
    keep_tower: bool = True,
) -> ImageWeights:
    """Rewrites an image tower's weights.

    Args:
        tower: the tower.
        normalization: what a byte is multiplied by and what is added then, float32 `[channels]` each, or None.
        parts: how many parts a block is cut into; a head is never cut.
        keep_tower: whether the tower stays as it is. If not, the memory of each block is freed once it is rewritten.
    """
    config, embeddings = tower.config, tower.embeddings
    kernel = folding.patch_kernel(array_of(embeddings.patch_embedding.kernel))
    bias = np.zeros(config.hidden_size, np.float32)
    positions = array_of(embeddings.position_embedding.embeddings).copy()
    positions[0] += array_of(embeddings.class_embedding)
    bounds = folding.even_bounds(config.hidden_size, min(parts, config.hidden_size))

    def patch_products(kernel: np.ndarray, bias: np.ndarray) -> tuple[Product, ...]:
        return tuple(map(Product.of, folding.by_columns(kernel, bias, bounds)))

    patches = {tf.float32: patch_products(kernel, bias)}
    if normalization is not None:
        patches[tf.uint8] = patch_products(*folding.reading_bytes(kernel, bias, *normalization))
    return ImageWeights(
        **shared_weights(tower, tower.post_layernorm, parts, keep_tower),
        patches=patches,
        positions=tf.constant(positions),
        norm_scale=tf.constant(array_of(tower.pre_layernorm.gamma)),
        norm_offset=tf.constant(array_of(tower.pre_layernorm.beta)),
        image_size=config.image_size,
        patch_size=config.patch_size,
    )


def rewritten(
    tower: Any, normalization: tuple[np.ndarray, np.ndarray] | None, parts: int, keep_tower: bool
) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns a function that encodes images with a tower's rewritten weights; see `image_weights`."""
    weights = image_weights(tower, normalization, parts, keep_tower)
    return lambda images: encode_images(images, weights)


def encode_images(images: tf.Tensor, weights: ImageWeights) -> tf.Tensor:
    """Encodes images.

    Args:
        images: `[batch, image_size, image_size, channels]`, uint8, or float32 if they are normalized. A batch of
            unknown size must have at least two images. It is computed in halves: while the cores of one half wait for
            each other, the other half is computed.
        weights: the tower's weights.

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
    return projected(tf.ensure_shape(x, (None, width)), weights)


def _embedded(images: tf.Tensor, weights: ImageWeights) -> tf.Tensor:
    """Returns the residual stream before the first block, `[batch * length, hidden_size]`."""
    length, width = weights.positions.shape
    pixels = _patches(images, weights)
    patches = tf.reshape(
        tf.concat([product(pixels) for product in weights.patches[images.dtype]], axis=1), (-1, length - 1, width)
    )
    # A row of zeros in front of the patches: the class token itself is in its position.
    tokens = tf.pad(patches, ((0, 0), (1, 0), (0, 0))) + weights.positions
    rows = norm(centered(tf.reshape(tokens, (-1, width))), weights.epsilon)
    return centered(rows * weights.norm_scale + weights.norm_offset)


def _patches(images: tf.Tensor, weights: ImageWeights) -> tf.Tensor:
    """Cuts images into rows of pixels, float32 `[batch * patches, patch_size ** 2 * channels]`."""
    size, channels = weights.patch_size, images.shape[-1]
    side = weights.image_size // size
    # Pixels at the right and at the bottom that fill no whole patch are left out, as a convolution does.
    images = images[:, : side * size, : side * size]
    cut = tf.reshape(images, (-1, side, size, side, size * channels))
    rows = tf.reshape(tf.transpose(cut, (0, 1, 3, 2, 4)), (-1, size * size * channels))
    return tf.cast(rows, tf.float32)
