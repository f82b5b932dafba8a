"""Cuts an animation to its first frame before it is decoded, with core operations only.

TensorFlow decodes every frame of an animation, so that a small file can ask for any amount of memory,
writes beyond its buffer for an animated WebP without an alpha channel, and ignores a GIF's transparent
color. A file with one frame, and two patched bytes, avoids all three.
"""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

_GIF_EXTENSION, _GIF_IMAGE, _GIF_GRAPHIC_CONTROL = 0x21, 0x2C, 0xF9
_WEBP_FIRST_CHUNK, _WEBP_FLAGS, _WEBP_ALPHA = 12, 20, 0x10
_WEBP_FRAME = int.from_bytes(b"ANMF", "little")


def checked(data: tf.Tensor, holds: tf.Tensor, place: tf.Tensor | str, problem: str, value: tf.Tensor) -> tf.Tensor:
    """Returns `data` where a condition holds, and else fails with its place, the problem and the value."""
    check = tf.debugging.Assert(holds, [tf.strings.join([place, problem]), value])
    with tf.control_dependencies([] if check is None else [check]):  # None in eager code, where it has run
        return tf.identity(data)


def little_endian(values: tf.Tensor) -> tf.Tensor:
    """Reads bytes as whole numbers, lowest byte first: uint8 `[..., n]` to int64 `[...]`."""
    values = tf.cast(values, tf.int64)
    return tf.reduce_sum(values * 256 ** tf.range(tf.shape(values, tf.int64)[-1]), axis=-1)


class GifFrame(NamedTuple):
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


def first_gif_frame(data: tf.Tensor, place: tf.Tensor | str) -> GifFrame:
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
    data = checked(data, values[image] == _GIF_IMAGE, place, problem, length)

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
    return GifFrame(data, canvas, offset, background)


def first_webp_frame(data: tf.Tensor, place: tf.Tensor | str) -> tf.Tensor:
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
    data = checked(data, is_whole, place, "animated WebP that is cut short; its length in bytes is", length)
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
