"""Bicubic interpolation of learned positions, with PyTorch's kernel.

Models trained on one image size read another with their positions stretched to it. The reference does that
with a kernel whose a is -0.75; `tf.image.resize` and Pillow have -0.5, which is another result.
"""

from __future__ import annotations

from typing import Any

from keras import ops

_A = -0.75


def resize_positions(positions: Any, grid: tuple[int, int], new_grid: tuple[Any, Any]) -> Any:
    """Stretches a grid of vectors to another size.

    Args:
        positions: float `[height * width, hidden_size]`, row by row.
        grid: its height and width.
        new_grid: the height and width wanted; scalars of the graph are fine.

    Returns:
        float32 `[new_height * new_width, hidden_size]`.

    Source: PyTorch's `interpolate(mode="bicubic", align_corners=False, antialias=False)`.
    """
    height, width = grid
    new_height, new_width = new_grid
    x = ops.reshape(ops.cast(positions, "float32"), (height, -1))
    x = ops.matmul(_bicubic_matrix(height, new_height), x)  # [new_height, width * hidden_size]
    x = ops.reshape(x, (new_height, width, positions.shape[-1]))
    x = ops.matmul(_bicubic_matrix(width, new_width), x)  # [new_height, new_width, hidden_size]
    return ops.reshape(x, (-1, positions.shape[-1]))


def _bicubic_matrix(size: int, new_size: Any) -> Any:
    """Returns `[new_size, size]`: how much each old place counts for each new one; rows sum to 1."""
    scale = size / ops.cast(new_size, "float32")
    centers = (ops.cast(ops.arange(new_size), "float32") + 0.5) * scale - 0.5
    first = ops.floor(centers)
    matrix = 0.0
    for offset in (-1, 0, 1, 2):
        weight = _cubic(ops.abs(centers - first - offset))
        # Places beyond the border are the border's.
        tap = ops.clip(ops.cast(first, "int32") + offset, 0, size - 1)
        matrix = matrix + ops.expand_dims(weight, 1) * ops.one_hot(tap, size, dtype="float32")
    return matrix


def _cubic(distance: Any) -> Any:
    """Returns Keys's cubic kernel at distances from 0 to 2."""
    near = ((_A + 2.0) * distance - (_A + 3.0)) * distance * distance + 1.0
    far = ((_A * distance - 5.0 * _A) * distance + 8.0 * _A) * distance - 4.0 * _A
    return ops.where(distance <= 1.0, near, far)
