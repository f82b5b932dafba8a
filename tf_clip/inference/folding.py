"""The rewritings of weights that make a tower cheaper and leave what it computes as it is; each a plain function.

All are on arrays of NumPy, kernels as Keras has them, `[inputs, outputs]`. `docs/inference.md` says why each is exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

Array = np.ndarray

QUICK_GELU_SLOPE = 1.702
"""`quick_gelu(x)` is `x * sigmoid(1.702 x)`."""


def side_by_side(projections: Sequence[tuple[Array, Array]]) -> tuple[Array, Array]:
    """Makes one product of several that read the same rows.

    Args:
        projections: kernels, float `[inputs, outputs]`, with their biases, float `[outputs]`.

    Returns:
        The kernel and the bias whose product has all outputs, one projection's after the other's.
    """
    kernels, biases = zip(*projections, strict=True)
    return np.concatenate(kernels, axis=1), np.concatenate(biases)


def behind_norm(kernel: Array, bias: Array, scale: Array, offset: Array) -> tuple[Array, Array]:
    """Takes a layer norm's scale and offset into the product that follows it.

    Args:
        kernel: float `[inputs, outputs]`.
        bias: float `[outputs]`.
        scale: the norm's, float `[inputs]`.
        offset: the norm's, float `[inputs]`.

    Returns:
        The kernel and the bias that read the rows before both.
    """
    return kernel * scale[:, np.newaxis], bias + offset @ kernel


def times(kernel: Array, bias: Array, factor: float) -> tuple[Array, Array]:
    """Takes a factor on a product's result, such as attention's, into the product.

    Args:
        kernel: float `[inputs, outputs]`.
        bias: float `[outputs]`.
        factor: the factor.
    """
    return kernel * factor, bias * factor


def without_mean(kernel: Array, bias: Array) -> tuple[Array, Array]:
    """Makes a product whose rows have a mean of zero.

    All that reads the residual stream is behind a layer norm, which takes the mean away. If all that is added to the
    stream has none, the norms need not look for it.

    Args:
        kernel: float `[inputs, outputs]`.
        bias: float `[outputs]`.
    """
    return kernel - kernel.mean(axis=1, keepdims=True), bias - bias.mean()


def patch_kernel(kernel: Array) -> Array:
    """Makes a matrix of the kernel of a convolution that steps by its own size.

    Args:
        kernel: float `[side, side, channels, outputs]`.

    Returns:
        float `[side * side * channels, outputs]`, for rows that hold a patch's pixels row by row.
    """
    return kernel.reshape(-1, kernel.shape[-1])


def reading_bytes(kernel: Array, bias: Array, scale: Array, shift: Array) -> tuple[Array, Array]:
    """Takes the normalization of pixels into the product that reads patches.

    Args:
        kernel: float `[side * side * channels, outputs]`.
        bias: float `[outputs]`.
        scale: what a byte is multiplied by, float `[channels]`.
        shift: what is then added, float `[channels]`.

    Returns:
        The kernel and the bias that read bytes.
    """
    pixels = len(kernel) // len(scale)
    scales, shifts = (np.tile(values, pixels) for values in (scale, shift))
    # In float64: thousands of products of the same sign are added up for the bias.
    return kernel * scales[:, np.newaxis], bias + (shifts.astype(np.float64) @ kernel).astype(kernel.dtype)


def quick_gelu_as_silu(
    widening: tuple[Array, Array], narrowing: tuple[Array, Array]
) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
    """Takes `quick_gelu`'s factor into the products around it, so that `x * sigmoid(x)` is left between them.

    Args:
        widening: kernel and bias of the product before the activation.
        narrowing: those of the product behind it.
    """
    kernel, bias = narrowing
    return times(*widening, QUICK_GELU_SLOPE), (kernel / QUICK_GELU_SLOPE, bias)


def by_columns(kernel: Array, bias: Array, bounds: Sequence[int]) -> list[tuple[Array, Array]]:
    """Cuts a product into several whose outputs stand side by side, for as many of the processor's cores.

    Args:
        kernel: float `[inputs, outputs]`.
        bias: float `[outputs]`.
        bounds: where the parts begin, and where the last ends.
    """
    return [(kernel[:, start:end], bias[start:end]) for start, end in pairwise(bounds)]


def by_rows(kernel: Array, bias: Array, bounds: Sequence[int]) -> list[tuple[Array, Array | None]]:
    """Cuts a product into several whose sum it is; the first has the bias.

    Args:
        kernel: float `[inputs, outputs]`.
        bias: float `[outputs]`.
        bounds: where the parts begin among the inputs, and where the last ends.
    """
    kernels = [kernel[start:end] for start, end in pairwise(bounds)]
    return [(part, None if index else bias) for index, part in enumerate(kernels)]


def strips(kernel: Array, width: int) -> Array:
    """Cuts a kernel into strips of columns, each of which then lies together in memory.

    Args:
        kernel: float `[inputs, outputs]`, outputs a multiple of the width.
        width: of a strip.

    Returns:
        `[outputs / width, inputs, width]`.
    """
    return kernel.reshape(len(kernel), -1, width).transpose(1, 0, 2)


def even_bounds(count: int, parts: int, unit: int = 1) -> list[int]:
    """Returns the bounds of parts that are as equal as can be.

    Args:
        count: how many units there are.
        parts: how many parts, at most one a unit.
        unit: how wide a unit is.
    """
    return [unit * (count * part // parts) for part in range(parts + 1)]
