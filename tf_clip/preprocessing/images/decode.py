"""Encoded images to RGB bytes inside the TensorFlow graph: JPEG, PNG, WebP and GIF.

An animation is cut to its first frame before it is decoded. TensorFlow decodes every frame, so that a small file can
ask for any amount of memory, writes beyond its buffer for an animated WebP without an alpha channel, and ignores a
GIF's transparent color. A file with one frame, and two patched bytes, avoids all three.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from tf_clip.preprocessing.images.orientation import little_endian, turned_upright

MAX_PIXELS = 89_478_485
"""Pillow's limit: a file that says it has more is refused before any memory is taken for them."""

_PNG_PALETTE = 3
_GIF_EXTENSION, _GIF_IMAGE, _GIF_GRAPHIC_CONTROL = 0x21, 0x2C, 0xF9
_WEBP_FIRST_CHUNK, _WEBP_FLAGS, _WEBP_ALPHA = 12, 20, 0x10
_WEBP_FRAME = int.from_bytes(b"ANMF", "little")
_ADOBE_MARKER = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"


def decode_rgb(data: tf.Tensor, place: tf.Tensor | str = "", *, apply_exif: bool = False) -> tf.Tensor:
    """Decodes one image.

    Args:
        data: scalar string, the file's bytes. Of an animation the first frame counts.
        place: scalar string, which image it is; the message of an error begins with it. TensorFlow's
            own decoders, which find that a file is broken inside, do not know it.
        apply_exif: whether it is turned upright by its orientation tag.

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
    rgb = tf.ensure_shape(rgb, [None, None, 3])
    return turned_upright(rgb, data) if apply_exif else rgb


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
        gif=lambda _: _gif_pixels(_first_gif_frame(data, "")),
        webp=lambda head: _webp_pixels(data, head),
        other=lambda _: tf.constant(-1, tf.int64),
    )


def reason_of(error: tf.errors.OpError) -> str:
    """Returns the reason alone of an error in a graph: TensorFlow puts the trace before it and the node behind it."""
    message: str = error.message
    return message.partition("\n\t [[")[0].rpartition("\n")[2]


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
    frame = _first_gif_frame(data, place)
    data = _within_limit(frame.data, _gif_pixels(frame), place)
    pixels = tf.io.decode_gif(data)[0]
    behind = frame.canvas - frame.offset - tf.shape(pixels)[:2]
    padding = tf.stack([frame.offset, behind], axis=1)  # [row or column, before or after]
    is_covered = tf.pad(tf.ones_like(pixels[..., 0], tf.bool), padding)
    return tf.where(is_covered[..., tf.newaxis], tf.pad(pixels, tf.pad(padding, [[0, 1], [0, 0]])), frame.background)


def _decode_webp(data: tf.Tensor, head: tf.Tensor, place: tf.Tensor | str) -> tf.Tensor:
    data = _within_limit(data, _webp_pixels(data, head), place)
    is_animated = (tf.strings.substr(data, 12, 4) == b"VP8X") & (head[20] & 2 > 0)
    data = tf.cond(is_animated, lambda: _first_webp_frame(data, place), lambda: data)
    return _on_white_if_transparent(tf.io.decode_webp(data)[0])


def _jpeg_pixels(shape: tf.Tensor) -> tf.Tensor:
    return shape[0] * shape[1]


def _png_pixels(head: tf.Tensor) -> tf.Tensor:
    # A product of two sides of 32 bits would pass 2^63.
    width, height = (tf.minimum(little_endian(side), 2**31) for side in (head[19:15:-1], head[23:19:-1]))
    return width * height


def _gif_pixels(frame: _GifFrame) -> tf.Tensor:
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
    return _checked(data, pixels <= MAX_PIXELS, place, problem, pixels)


def _refuse(data: tf.Tensor, place: tf.Tensor | str) -> tf.Tensor:
    problem = "not a JPEG, PNG, WebP or GIF image; its length in bytes is"
    data = _checked(data, tf.constant(False), place, problem, tf.strings.length(data))
    return tf.zeros([0 * tf.strings.length(data), 0, 3], tf.uint8)


class _GifFrame(NamedTuple):
    """A GIF cut to its first frame.

    Args:
        data: the file's bytes, scalar string; it decodes to the frame alone.
        canvas: height and width of the image, int32 `[2]`.
        offset: row and column of the image where the frame begins, int32 `[2]`.
        background: the color around the frame, uint8 `[3]`.
    """

    data: tf.Tensor
    canvas: tf.Tensor
    offset: tf.Tensor
    background: tf.Tensor


def _first_gif_frame(data: tf.Tensor, place: tf.Tensor | str) -> _GifFrame:
    """Cuts a GIF to its first frame and paints its transparent color white.

    Args:
        data: scalar string, a GIF's bytes, possibly cut short.
        place: scalar string, what the message of an error begins with.

    Source: Pillow, which takes the palette's first color as background where none is transparent, and
    lets a frame that is larger than the screen enlarge the image.
    """
    length = tf.strings.length(data)
    values = _padded_values(data)

    def is_before_image(position: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
        return (position < length) & (values[position] == _GIF_EXTENSION)

    def skip_extension(position: tf.Tensor, control: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        control = tf.where(values[position + 1] == _GIF_GRAPHIC_CONTROL, position, control)
        return _end_of_sub_blocks(values, position + 2, length), control

    blocks = 13 + _color_table_bytes(values[10])
    image, control = tf.while_loop(is_before_image, skip_extension, (blocks, tf.constant(0)))
    problem = "GIF without an image; its length in bytes is"
    data = _checked(data, values[image] == _GIF_IMAGE, place, problem, length)

    # An image block: 2C, column, row, width, height of 2 bytes each, flags, its own color table if any,
    # a byte of code size, and sub-blocks.
    offset = _sizes(values, image + 1)
    canvas = tf.maximum(_sizes(values, 6), offset + _sizes(values, image + 5))
    own_table = _color_table_bytes(values[image + 9])
    end = _end_of_sub_blocks(values, image + 11 + own_table, length)
    # At the offset 0 TensorFlow decodes the frame alone; elsewhere it would lose a part of it.
    data = _replaced(data, image + 1, [0, 0, 0, 0])

    # A graphic control block: 21 F9 04, flags, two bytes of delay, index of the transparent color.
    table = tf.where(own_table > 0, image + 10, 13)
    is_transparent = (control > 0) & (values[control + 3] & 1 == 1)

    def paint_white() -> tf.Tensor:
        painted = _replaced(data, table + 3 * tf.cast(values[control + 6], tf.int32), [255, 255, 255])
        return _replaced(painted, control + 3, [0])

    data = tf.cond(is_transparent, paint_white, lambda: data)
    background = tf.where(is_transparent, tf.constant(255, tf.uint8), values[table : table + 3])
    # The empty sub-block and the trailer, which Pillow does not miss where they are cut off.
    data = tf.strings.join([tf.strings.substr(data, 0, end - 1), b"\0;"])
    return _GifFrame(data, canvas, offset, background)


def _first_webp_frame(data: tf.Tensor, place: tf.Tensor | str) -> tf.Tensor:
    """Cuts an animated WebP to its first frame, and declares that it has an alpha channel.

    Args:
        data: scalar string, a WebP's bytes whose header says that it is animated.
        place: scalar string, what the message of an error begins with.

    Returns:
        The shorter file, scalar string.
    """
    length = tf.strings.length(data)
    values = _padded_values(data)

    def end_of_chunk(position: tf.Tensor) -> tf.Tensor:
        size = tf.minimum(little_endian(values[position + 4 : position + 8]), tf.int32.max // 2)
        return position + 8 + tf.cast(size + size % 2, tf.int32)

    frame = tf.while_loop(
        lambda position: (position < length) & (little_endian(values[position : position + 4]) != _WEBP_FRAME),
        lambda position: [end_of_chunk(position)],
        [tf.constant(_WEBP_FIRST_CHUNK)],
    )[0]
    end = end_of_chunk(frame)
    # The file must be as long as it says, even though only the first frame is read.
    is_whole = (end <= length) & (little_endian(values[4:8]) + 8 <= tf.cast(length, tf.int64))
    data = _checked(data, is_whole, place, "animated WebP that is cut short; its length in bytes is", length)
    data = _replaced(tf.strings.substr(data, 0, end), 4, tf.bitwise.right_shift(end - 8, [0, 8, 16, 24]) & 255)
    return _replaced(data, _WEBP_FLAGS, tf.cast(values[_WEBP_FLAGS : _WEBP_FLAGS + 1] | _WEBP_ALPHA, tf.int32))


def _padded_values(data: tf.Tensor) -> tf.Tensor:
    """Returns a file's bytes as uint8, with zeros behind them: a cut file is read past its end."""
    return tf.io.decode_raw(tf.strings.join([data, b"\0" * 1024]), tf.uint8)


def _color_table_bytes(flags: tf.Tensor) -> tf.Tensor:
    size = 3 * tf.bitwise.left_shift(2, tf.cast(flags & 7, tf.int32))
    return tf.where(flags & 0x80 > 0, size, 0)


def _sizes(values: tf.Tensor, position: tf.Tensor | int) -> tf.Tensor:
    """Returns a row and a column, or a height and a width, which lie there the other way round."""
    second, first = little_endian(values[position : position + 2]), little_endian(values[position + 2 : position + 4])
    return tf.cast(tf.stack([first, second]), tf.int32)


def _end_of_sub_blocks(values: tf.Tensor, position: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
    """Returns where a GIF's run of sub-blocks ends: each tells its length, an empty one is the last."""
    last = tf.while_loop(
        lambda position: (position < length) & (values[position] > 0),
        lambda position: [position + 1 + tf.cast(values[position], tf.int32)],
        [position],
    )[0]
    return tf.minimum(last, length) + 1


def _replaced(data: tf.Tensor, position: tf.Tensor | int, values: tf.Tensor | list[int]) -> tf.Tensor:
    """Returns a file with other bytes, given as int32, at a position."""
    patch = tf.strings.reduce_join(tf.gather([bytes([value]) for value in range(256)], values))
    behind = position + tf.size(values)
    rest = tf.strings.substr(data, behind, tf.strings.length(data) - behind)
    return tf.strings.join([tf.strings.substr(data, 0, position), patch, rest])


def _checked(data: tf.Tensor, holds: tf.Tensor, place: tf.Tensor | str, problem: str, value: tf.Tensor) -> tf.Tensor:
    """Returns `data` where a condition holds, and else fails with its place, the problem and the value."""
    check = tf.debugging.Assert(holds, [tf.strings.join([place, problem]), value])
    with tf.control_dependencies([] if check is None else [check]):  # None in eager code, where it has run
        return tf.identity(data)
