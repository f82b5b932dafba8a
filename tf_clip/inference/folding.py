"""The rewritings of weights: each is a plain function that makes a tower cheaper and leaves its results as they are.

They take and return NumPy arrays; kernels are as Keras has them, `[inputs, outputs]`. `docs/inference.md` says why each
rewriting is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

Array = np.ndarray

QUICK_GELU_SLOPE = 1.702
"""`quick_gelu(x)` is `x * sigmoid(1.702 x)`."""


def side_by_side(projections: Sequence[tuple[Array, Array]]) -> tuple[Array, Array]:
    """Joins products that read the same rows into one product.

    Args:
        projections: kernels, float `[inputs, outputs]`, with their biases, float `[outputs]`.

    Returns:
        The kernel and the bias of the product that has the outputs of all, in their order.
    """
    kernels, biases = zip(*projections, strict=True)
    return np.concatenate(kernels, axis=1), np.concatenate(biases)


def behind_norm(kernel: Array, bias: Array, scale: Array, offset: Array) -> tuple[Array, Array]:
    """Folds a layer norm's scale and offset into the product that follows it.

    Args:
        kernel: float `[inputs, outputs]`.
        bias: float `[outputs]`.
        scale: the norm's, float `[inputs]`.
        offset: the norm's, float `[inputs]`.

    Returns:
        The kernel and the bias for rows that were neither scaled nor shifted.
    """
    return kernel * scale[:, np.newaxis], bias + offset @ kernel


def times(kernel: Array, bias: Array, factor: float) -> tuple[Array, Array]:
    """Folds a factor on a product's result, such as attention's, into the product.

    Args:
        kernel: float `[inputs, outputs]`.
        bias: float `[outputs]`.
        factor: the factor.
    """
    return kernel * factor, bias * factor


def without_mean(kernel: Array, bias: Array) -> tuple[Array, Array]:
    """Changes a product so that each row of its result has a mean of zero.

    The residual stream is only read through layer norms, which subtract the mean. If everything that is added to the
    stream has a mean of zero, the norms need not compute it.

    Args:
        kernel: float `[inputs, outputs]`.
        bias: float `[outputs]`.
    """
    return kernel - kernel.mean(axis=1, keepdims=True), bias - bias.mean()


def patch_kernel(kernel: Array) -> Array:
    """Returns the kernel of a convolution as a matrix; its stride must be the kernel's size.

    Args:
        kernel: float `[side, side, channels, outputs]`.

    Returns:
        float `[side * side * channels, outputs]`, for patches whose pixels are in one row, line after line.
    """
    return kernel.reshape(-1, kernel.shape[-1])


def reading_bytes(kernel: Array, bias: Array, scale: Array, shift: Array) -> tuple[Array, Array]:
    """Folds the normalization of pixels into the product that reads patches.

    Args:
        kernel: float `[side * side * channels, outputs]`.
        bias: float `[outputs]`.
        scale: what a byte is multiplied by, float `[channels]`.
        shift: what is added then, float `[channels]`.

    Returns:
        The kernel and the bias for bytes.
    """
    pixels = len(kernel) // len(scale)
    scales, shifts = (np.tile(values, pixels) for values in (scale, shift))
    # In float64, because the bias is a sum of thousands of products of the same sign.
    return kernel * scales[:, np.newaxis], bias + (shifts.astype(np.float64) @ kernel).astype(kernel.dtype)


def quick_gelu_as_silu(
    widening: tuple[Array, Array], narrowing: tuple[Array, Array]
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Folds the factor of `quick_gelu` into the products around it; `x * sigmoid(x)` remains between them.

    Args:
        widening: kernel and bias of the product before the activation.
        narrowing: kernel and bias of the product behind it.
    """
    kernel, bias = narrowing
    return times(*widening, QUICK_GELU_SLOPE), (kernel / QUICK_GELU_SLOPE, bias)


def by_columns(kernel: Array, bias: Array, bounds: Sequence[int]) -> list[tuple[Array, Array]]:
    """Cuts a product into several; their outputs side by side are its outputs.

    Args:
        kernel: float `[inputs, outputs]`.
        bias: float `[outputs]`.
        bounds: the first output of each part, and the end of the last part.
    """
    return [(kernel[:, start:end], bias[start:end]) for start, end in pairwise(bounds)]


def by_rows(kernel: Array, bias: Array, bounds: Sequence[int]) -> list[tuple[Array, Array | None]]:
    """Cuts a product into several; the sum of their outputs is its output. The first part has the bias.

    Args:
        kernel: float `[inputs, outputs]`.
        bias: float `[outputs]`.
        bounds: the first input of each part, and the end of the last part.
    """
    kernels = [kernel[start:end] for start, end in pairwise(bounds)]
    return [(part, None if index else bias) for index, part in enumerate(kernels)]


def panels(kernel: Array, width: int) -> Array:
    """Cuts a kernel into panels, which are blocks of columns; each panel is contiguous in memory once it is copied.

    Args:
        kernel: float `[inputs, outputs]`; outputs must be a multiple of the width.
        width: the number of columns of a panel.

    Returns:
        `[outputs / width, inputs, width]`.
    """
    return np.transpose(kernel.reshape(len(kernel), -1, width), (1, 0, 2))


def even_bounds(count: int, parts: int, unit: int = 1) -> list[int]:
    """Returns the bounds of parts of nearly equal size.

    Args:
        count: how many units there are.
        parts: how many parts, at most one for each unit.
        unit: the width of a unit.
    """
    return [unit * (count * part // parts) for part in range(parts + 1)]
