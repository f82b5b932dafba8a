"""Encoded images to RGB bytes inside the TensorFlow graph: JPEG, PNG, WebP and GIF."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf

from tf_clip.preprocessing.images.first_frame import GifFrame, checked, first_gif_frame, first_webp_frame, little_endian

MAX_PIXELS = 89_478_485
"""Pillow's limit: a file that says it has more is refused before any memory is taken for them."""

_PNG_PALETTE = 3
_ADOBE_MARKER = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"


def decode_rgb(data: tf.Tensor, place: tf.Tensor | str = "") -> tf.Tensor:
    """Decodes one image, as it lies in the file.

    Args:
        data: scalar string, the file's bytes. Of an animation the first frame counts.
        place: scalar string, which image it is; the message of an error begins with it. TensorFlow's
            own decoders, which find that a file is broken inside, do not know it.

    Returns:
        uint8 `[height, width, 3]`; transparent pixels are composited on white.

    Raises:
        tf.errors.InvalidArgumentError: the bytes are not such an image, or not all of it, or it has
            more than `MAX_PIXELS` pixels.

    Source: transformers 5 composites on white. All pixels equal Pillow's bit for bit: JPEGs are decoded
    with the accurate DCT, which TensorFlow's default is not. Two kinds of file differ on purpose: a
    PNG's transparent color counts for 2, 4 and 16-bit samples too, where Pillow misses it; and a PNG or
    GIF that lacks nothing but its end mark, which Pillow reads, is refused.
    """
    rgb = _by_format(
        data,
        jpeg=lambda _: _decode_jpeg(data, place),
        png=lambda head: _decode_png(data, head, place),
        gif=lambda _: _decode_gif(data, place),
        webp=lambda head: _decode_webp(data, head, place),
        other=lambda _: _refuse(data, place),
    )
    return tf.ensure_shape(rgb, [None, None, 3])


def pixel_count(data: tf.Tensor) -> tf.Tensor:
    """Reads from a file's header how many pixels it would decode to.

    Args:
        data: scalar string, the file's bytes, whatever they are.

    Returns:
        Scalar int64; -1 where the bytes begin as no format that `decode_rgb` knows.

    Raises:
        tf.errors.InvalidArgumentError: the header of a JPEG or GIF is broken.
    """
    return _by_format(
        data,
        jpeg=lambda _: _jpeg_pixels(tf.io.extract_jpeg_shape(data, output_type=tf.int64)),
        png=_png_pixels,
        gif=lambda _: _gif_pixels(first_gif_frame(data, "")),
        webp=lambda head: _webp_pixels(data, head),
        other=lambda _: tf.constant(-1, tf.int64),
    )


def reason_of(error: tf.errors.OpError) -> str:
    """Returns the reason alone of an error in a graph: TensorFlow puts the trace before it and the node behind it."""
    return error.message.partition("\n\t [[")[0].rpartition("\n")[2]


def _by_format(data: tf.Tensor, **branches: Callable[[tf.Tensor], tf.Tensor]) -> tf.Tensor:
    """Calls the branch of a file's format with its first 32 bytes, uint8, zeros where it is shorter."""
    head = tf.strings.substr(tf.strings.join([tf.strings.substr(data, 0, 32), b"\0" * 32]), 0, 32)
    values = tf.io.decode_raw(head, tf.uint8)
    is_webp = (tf.strings.substr(head, 0, 4) == b"RIFF") & (tf.strings.substr(head, 8, 4) == b"WEBP")
    return tf.case(
        [
            (tf.strings.substr(head, 0, 3) == b"\xff\xd8\xff", lambda: branches["jpeg"](values)),
            (tf.strings.substr(head, 0, 8) == b"\x89PNG\r\n\x1a\n", lambda: branches["png"](values)),
            (tf.strings.substr(head, 0, 4) == b"GIF8", lambda: branches["gif"](values)),
            (is_webp, lambda: branches["webp"](values)),
        ],
        default=lambda: branches["other"](values),
    )


def composite_on_white(rgba: tf.Tensor) -> tf.Tensor:
    """Lays an image with transparency on white, in the integer arithmetic of Pillow.

    Args:
        rgba: uint8 `[..., 4]`.

    Returns:
        uint8 `[..., 3]`.
    """
    color, alpha = tf.cast(rgba[..., :3], tf.int32), tf.cast(rgba[..., 3:], tf.int32)
    weighted = (color * alpha + 255 * (255 - alpha)) * 128 + 0x80 * 128
    divided = tf.bitwise.right_shift(tf.bitwise.right_shift(weighted, 8) + weighted, 8)  # by 255
    return tf.cast(tf.bitwise.right_shift(divided, 7), tf.uint8)


def _decode_jpeg(data: tf.Tensor, place: tf.Tensor | str) -> tf.Tensor:
    shape = tf.io.extract_jpeg_shape(data, output_type=tf.int64)  # [height, width, channels]
    data = _within_limit(data, _jpeg_pixels(shape), place)
    # Pillow takes every CMYK file for one of Adobe's, whose values are inverted. A file's own marker, which
    # comes later, wins over this one.
    is_cmyk = shape[2] == 4
    size = tf.strings.length(data) - 2
    marked = tf.strings.join([tf.strings.substr(data, 0, 2), _ADOBE_MARKER, tf.strings.substr(data, 2, size)])
    data = tf.where(is_cmyk, marked, data)
    return tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE", fancy_upscaling=True)


def _decode_png(data: tf.Tensor, head: tf.Tensor, place: tf.Tensor | str) -> tf.Tensor:
    data = _within_limit(data, _png_pixels(head), place)

    def with_palette() -> tf.Tensor:
        return _on_white_if_transparent(tf.io.decode_png(data))

    def without_palette() -> tf.Tensor:
        rgba = tf.io.decode_png(data, channels=4)
        # TensorFlow calls opaque pixels of fewer than 8 bits 1, 3 or 15 instead of 255; grays have no
        # partial transparency at that depth.
        is_shallow = head[24] < 8
        alpha = tf.where(is_shallow & (rgba[..., 3:] > 0), tf.constant(255, tf.uint8), rgba[..., 3:])
        return composite_on_white(tf.concat([rgba[..., :3], alpha], axis=-1))

    return tf.cond(head[25] == _PNG_PALETTE, with_palette, without_palette)


def _decode_gif(data: tf.Tensor, place: tf.Tensor | str) -> tf.Tensor:
    frame = first_gif_frame(data, place)
    data = _within_limit(frame.data, _gif_pixels(frame), place)
    pixels = tf.io.decode_gif(data)[0]
    behind = frame.canvas - frame.offset - tf.shape(pixels)[:2]
    padding = tf.stack([frame.offset, behind], axis=1)  # [row or column, before or after]
    is_covered = tf.pad(tf.ones_like(pixels[..., 0], tf.bool), padding)
    return tf.where(is_covered[..., tf.newaxis], tf.pad(pixels, tf.pad(padding, [[0, 1], [0, 0]])), frame.background)


def _decode_webp(data: tf.Tensor, head: tf.Tensor, place: tf.Tensor | str) -> tf.Tensor:
    data = _within_limit(data, _webp_pixels(data, head), place)
    is_animated = (tf.strings.substr(data, 12, 4) == b"VP8X") & (head[20] & 2 > 0)
    data = tf.cond(is_animated, lambda: first_webp_frame(data, place), lambda: data)
    return _on_white_if_transparent(tf.io.decode_webp(data)[0])


def _jpeg_pixels(shape: tf.Tensor) -> tf.Tensor:
    return shape[0] * shape[1]


def _png_pixels(head: tf.Tensor) -> tf.Tensor:
    # A product of two sides of 32 bits would pass 2^63.
    width, height = (tf.minimum(little_endian(side), 2**31) for side in (head[19:15:-1], head[23:19:-1]))
    return width * height


def _gif_pixels(frame: GifFrame) -> tf.Tensor:
    return tf.reduce_prod(tf.cast(frame.canvas, tf.int64))


def _webp_pixels(data: tf.Tensor, head: tf.Tensor) -> tf.Tensor:
    kind = tf.strings.substr(data, 12, 4)  # of the first chunk: lossy, lossless or extended
    bits = little_endian(head[21:25])
    width, height = tf.case(
        [
            (kind == b"VP8 ", lambda: (little_endian(head[26:28]) & 0x3FFF, little_endian(head[28:30]) & 0x3FFF)),
            (kind == b"VP8L", lambda: ((bits & 0x3FFF) + 1, (tf.bitwise.right_shift(bits, 14) & 0x3FFF) + 1)),
        ],
        default=lambda: (little_endian(head[24:27]) + 1, little_endian(head[27:30]) + 1),
    )
    return width * height


def _on_white_if_transparent(pixels: tf.Tensor) -> tf.Tensor:
    """Brings 3 or 4 channels, as the file has them, to 3."""
    return tf.cond(tf.shape(pixels)[-1] == 4, lambda: composite_on_white(pixels), lambda: pixels[..., :3])


def _within_limit(data: tf.Tensor, pixels: tf.Tensor, place: tf.Tensor | str) -> tf.Tensor:
    problem = f"more than {MAX_PIXELS} pixels, which may be an attack on this machine's memory:"
    return checked(data, pixels <= MAX_PIXELS, place, problem, pixels)


def _refuse(data: tf.Tensor, place: tf.Tensor | str) -> tf.Tensor:
    problem = "not a JPEG, PNG, WebP or GIF image; its length in bytes is"
    data = checked(data, tf.constant(False), place, problem, tf.strings.length(data))
    return tf.zeros([0 * tf.strings.length(data), 0, 3], tf.uint8)
