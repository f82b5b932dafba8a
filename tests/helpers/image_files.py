"""Writes image files byte by byte, in the variants that Pillow reads but does not write."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

GRAY, RGB, PALETTE, GRAY_ALPHA, RGBA = 0, 2, 3, 4, 6
_CHANNELS = {GRAY: 1, RGB: 3, PALETTE: 1, GRAY_ALPHA: 2, RGBA: 4}
# Column start, row start, column step, row step of the seven passes of an interlaced PNG.
_ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(
    color_type: Any,
    bit_depth: Any,
    *,
    shape: Any = (7, 11),
    interlaced: Any = False,
    palette_alpha: Any = None,
    transparent: Any = None,
) -> Any:
    """Returns a PNG of noise.

    `palette_alpha` is a palette's alpha values; `transparent` is the row and column whose color is declared the
    transparent one.
    """
    generator = np.random.default_rng(bit_depth * 10 + color_type)
    samples = generator.integers(0, 2**bit_depth, (*shape, _CHANNELS[color_type]))
    header = struct.pack(">IIBBBBB", shape[1], shape[0], bit_depth, color_type, 0, 0, int(interlaced))
    chunks = [png_chunk(b"IHDR", header)]
    if color_type == PALETTE:
        chunks.append(png_chunk(b"PLTE", generator.integers(0, 256, 3 * 2**bit_depth).astype(np.uint8).tobytes()))
    if palette_alpha is not None:
        chunks.append(png_chunk(b"tRNS", bytes(palette_alpha)))
    if transparent is not None:
        chunks.append(png_chunk(b"tRNS", samples[transparent].astype(">u2").tobytes()))
    passes = [samples[y::dy, x::dx] for x, y, dx, dy in _ADAM7] if interlaced else [samples]
    rows = b"".join(_png_rows(part, bit_depth) for part in passes if part.size)
    return b"\x89PNG\r\n\x1a\n" + b"".join([*chunks, png_chunk(b"IDAT", zlib.compress(rows)), png_chunk(b"IEND", b"")])


def _png_rows(samples: Any, bit_depth: Any) -> Any:
    flat = samples.reshape(len(samples), -1)
    if bit_depth == 16:
        return b"".join(b"\0" + row.astype(">u2").tobytes() for row in flat)
    bits = (flat[..., np.newaxis] >> np.arange(bit_depth)[::-1]) & 1
    return b"".join(b"\0" + np.packbits(row.reshape(-1)).tobytes() for row in bits)


def noise(shape: Any = (21, 18, 3), seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def written(image: Any, file_format: Any, **options: Any) -> Any:
    """Returns the bytes of a PIL image or an array in a format."""
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()
