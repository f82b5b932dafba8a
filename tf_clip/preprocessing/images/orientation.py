"""Turns an image upright as its file says, inside the graph: JPEG, PNG and WebP, from EXIF or XMP.

A file is walked block by block in substrings of a few bytes, never as a tensor of all its bytes: the walk
costs the same for a photo of 50 MB as for one of 50 kB.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

import tensorflow as tf

MAX_BLOCKS = 10_000
"""Blocks of a file that are looked at, each for some 10 microseconds; more would be an attack on time."""

_ORIENTATION = 0x0112
_EXIF_NAME = b"Exif\0\0"
_JPEG_XMP_NAME = b"http://ns.adobe.com/xap/1.0/\0"
_PNG_XMP_NAME = b"XML:com.adobe.xmp\0\0"  # the second zero says that it is not compressed
# Byte order and a version, in all the ways that Pillow takes.
_TIFF_HEADERS = (b"II*\0", b"MM\0*", b"II\0*", b"MM*\0", b"MM\0+")
# By the number of a value's type: how many bytes it takes, 0 for types that Pillow skips.
_TYPE_SIZES = (0, 1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 0, 0, 8, 0)
_WHOLE_NUMBERS = (3, 4, 6, 8, 9, 13, 16)


class _Block(NamedTuple):
    """A block of a file.

    Args:
        size: bytes from its position to the next block, scalar int64.
        body: position and length of what it holds, int64 `[2]`.
        is_exif, is_xmp: what that is, scalar bool.
    """

    size: tf.Tensor
    body: tf.Tensor
    is_exif: tf.Tensor
    is_xmp: tf.Tensor


def turned_upright(pixels: tf.Tensor, data: tf.Tensor) -> tf.Tensor:
    """Turns a decoded image as its file's orientation tag says.

    Args:
        pixels: uint8 `[height, width, 3]`, as the file has them.
        data: scalar string, the file's bytes, whatever they are.

    Returns:
        uint8 `[height, width, 3]`; unchanged where there is no tag from 2 to 8 that can be read.
    """
    tag = orientation(data)

    def turned() -> tf.Tensor:
        upright = tf.cond(tag >= 5, lambda: tf.transpose(pixels, (1, 0, 2)), lambda: pixels)
        are_flipped = tf.stack([_is_one_of(tag, (3, 4, 7, 8)), _is_one_of(tag, (2, 3, 6, 7))])  # rows, columns
        return tf.reverse(upright, tf.boolean_mask([0, 1], are_flipped))

    upright = tf.cond(_is_one_of(tag, range(2, 9)), turned, lambda: pixels)
    return tf.ensure_shape(upright, [None, None, 3])


def orientation(data: tf.Tensor) -> tf.Tensor:
    """Reads the orientation tag of a file; the first EXIF and the first XMP block of a file count.

    Args:
        data: scalar string, the file's bytes, whatever they are.

    Returns:
        Scalar int64: what the tag holds, 1 to 8 if it makes sense; 0 where there is none.

    Source: Pillow's `Image.getexif`. It reads two more forms, which are rare and not read here: EXIF in the
    text chunks of a PNG, and compressed XMP. It also takes a fraction for a number.
    """
    head = tf.strings.substr(data, 0, 21)
    is_jpeg = tf.strings.substr(head, 0, 3) == b"\xff\xd8\xff"
    is_png = tf.strings.substr(head, 0, 8) == b"\x89PNG\r\n\x1a\n"
    # Only the extended kind of WebP has more than the image.
    is_webp = tf.strings.regex_full_match(head, r"RIFF\C{4}WEBPVP8X\C{5}")
    exif, xmp = tf.case(
        [
            (is_jpeg, lambda: _exif_and_xmp(data, 2, 4, _jpeg_block)),
            (is_png, lambda: _exif_and_xmp(data, 8, 8, _png_block)),
            (is_webp, lambda: _exif_and_xmp(data, 12, 8, _webp_block)),
        ],
        default=lambda: (tf.constant(b""), tf.constant(b"")),
    )
    in_exif = tf.cond(exif != b"", lambda: _orientation_in_exif(exif), lambda: tf.constant(0, tf.int64))
    return tf.cond((in_exif == 0) & (xmp != b""), lambda: _orientation_in_xmp(xmp), lambda: in_exif)


def little_endian(values: tf.Tensor) -> tf.Tensor:
    """Reads bytes as whole numbers, lowest byte first: uint8 `[..., n]` to int64 `[...]`."""
    values = tf.cast(values, tf.int64)
    return tf.reduce_sum(values * 256 ** tf.range(tf.shape(values, tf.int64)[-1]), axis=-1)


def _exif_and_xmp(
    data: tf.Tensor, start: int, head_size: int, block_at: Callable[[tf.Tensor, tf.Tensor], _Block]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Walks the blocks, and returns the contents of the first EXIF block and of the first XMP block."""
    length = _length(data)

    def is_head_whole(position: tf.Tensor, exif: tf.Tensor, xmp: tf.Tensor) -> tf.Tensor:
        return position + head_size <= length

    def read(position: tf.Tensor, exif: tf.Tensor, xmp: tf.Tensor) -> tuple[tf.Tensor, ...]:
        block = block_at(data, position)
        exif = tf.where(block.is_exif & (exif[1] == 0), block.body, exif)
        xmp = tf.where(block.is_xmp & (xmp[1] == 0), block.body, xmp)
        return position + block.size, exif, xmp

    nothing = tf.zeros([2], tf.int64)
    _, exif, xmp = tf.while_loop(
        is_head_whole, read, (tf.constant(start, tf.int64), nothing, nothing), maximum_iterations=MAX_BLOCKS
    )
    return tf.strings.substr(data, *tf.unstack(exif)), tf.strings.substr(data, *tf.unstack(xmp))


def _jpeg_block(data: tf.Tensor, position: tf.Tensor) -> _Block:
    """Reads a segment: a marker, and for most of them a length, which counts itself."""
    numbers = tf.io.decode_raw(tf.strings.substr(data, position, 4), tf.uint16, little_endian=False)
    marker, size = tf.unstack(tf.cast(numbers, tf.int64), num=2)
    has_size = (marker >= 0xFFC0) & ((marker < 0xFFD0) | (marker > 0xFFD9))
    is_fill = (marker < 0xFF00) | (marker == 0xFFFF)
    is_scan = marker == 0xFFDA  # from which on there are no more tags
    size = 2 + tf.maximum(size, 2) * tf.cast(has_size, tf.int64)
    size = tf.where(is_scan, _length(data), tf.where(is_fill, tf.ones_like(size), size))
    names = [_starts_with(data, position + 4, name) for name in (_EXIF_NAME, _JPEG_XMP_NAME)]
    is_exif, is_xmp = ((marker == 0xFFE1) & name for name in names)
    return _Block(size, tf.stack([position + 4, size - 4]), is_exif, is_xmp)


def _png_block(data: tf.Tensor, position: tf.Tensor) -> _Block:
    """Reads a chunk: a length, a name, the body, and a check sum."""
    size = tf.io.decode_raw(tf.strings.substr(data, position, 4), tf.int32, little_endian=False)[0]
    size = tf.cast(tf.maximum(size, 0), tf.int64)
    name = tf.strings.substr(data, position + 4, 4)
    is_xmp = (name == b"iTXt") & _starts_with(data, position + 8, _PNG_XMP_NAME)
    return _Block(size + 12, tf.stack([position + 8, size]), name == b"eXIf", is_xmp)


def _webp_block(data: tf.Tensor, position: tf.Tensor) -> _Block:
    """Reads a chunk: a name, a length, and the body, to an even number of bytes."""
    name = tf.strings.substr(data, position, 4)
    size = little_endian(tf.io.decode_raw(tf.strings.substr(data, position + 4, 4), tf.uint8))
    # A chunk counts only if the file's flags announce it.
    flags = tf.io.decode_raw(tf.strings.substr(data, 20, 1), tf.uint8)[0]
    is_exif, is_xmp = (name == b"EXIF") & (flags & 8 > 0), (name == b"XMP ") & (flags & 4 > 0)
    return _Block(8 + size + size % 2, tf.stack([position + 8, size]), is_exif, is_xmp)


def _orientation_in_exif(exif: tf.Tensor) -> tf.Tensor:
    """Reads the tag from a TIFF directory, which may be of either byte order; 1 if it is no directory at all."""
    exif = tf.strings.regex_replace(exif, r"\A(Exif\x00\x00){1,2}", "")
    is_tiff = tf.reduce_any(tf.strings.substr(exif, 0, 4) == tf.constant(_TIFF_HEADERS)) & (_length(exif) >= 8)
    return tf.cond(is_tiff, lambda: _orientation_in_directory(exif), lambda: tf.constant(1, tf.int64))


def _orientation_in_directory(exif: tf.Tensor) -> tf.Tensor:
    length = _length(exif)
    is_big_endian = tf.strings.substr(exif, 0, 1) == b"M"

    def number(values: tf.Tensor) -> tf.Tensor:
        return little_endian(tf.cond(is_big_endian, lambda: values[..., ::-1], lambda: values))

    directory = number(_bytes(exif, 4, 4))
    count = tf.minimum(number(_bytes(exif, directory, 2)), tf.maximum(length - directory - 2, 0) // 12)
    # An entry: number, type, how many values, and the values themselves or, if they are too long, their position.
    entries = tf.reshape(_bytes(exif, directory + 2, 12 * count), [-1, 12])
    kinds = tf.minimum(number(entries[:, 2:4]), len(_TYPE_SIZES) - 1)
    sizes = number(entries[:, 4:8]) * tf.gather(tf.constant(_TYPE_SIZES, tf.int64), kinds)
    positions = number(entries[:, 8:])
    # Pillow skips values once they sum up to more than the bytes, and stops at the first that is cut short.
    is_elsewhere = sizes > 4
    is_believed = ~is_elsewhere | (tf.cumsum(tf.where(is_elsewhere, sizes, 0)) <= length)
    is_cut = is_elsewhere & is_believed & (positions + sizes > length)
    is_read = (sizes > 0) & is_believed & (tf.cumsum(tf.cast(is_cut, tf.int32)) == 0)
    found = tf.where(is_read & (number(entries[:, :2]) == _ORIENTATION))[:, 0]

    def value() -> tf.Tensor:
        index = found[0]
        kind = kinds[index]
        in_entry = directory + 2 + 12 * index + 8
        position = tf.where(is_elsewhere[index], positions[index], in_entry)
        size = tf.gather(tf.constant(_TYPE_SIZES, tf.int64), kind)
        return tf.where(_is_one_of(kind, _WHOLE_NUMBERS), number(_bytes(exif, position, size)), 1)

    return tf.cond(tf.size(found) > 0, value, lambda: tf.constant(0, tf.int64))


def _orientation_in_xmp(xmp: tf.Tensor) -> tf.Tensor:
    # \C is any byte: what comes before and behind need not be text.
    tag = tf.strings.regex_replace(xmp, r'\A\C*?tiff:Orientation(?:="|>)([0-9])\C*', r"\1")
    return tf.cond(
        tf.strings.regex_full_match(tag, "[0-9]"),
        lambda: tf.strings.to_number(tag, tf.int64),
        lambda: tf.constant(0, tf.int64),
    )


def _bytes(data: tf.Tensor, position: tf.Tensor | int, size: tf.Tensor | int) -> tf.Tensor:
    """Returns bytes from a position, uint8 `[size]`, with zeros where the data has ended."""
    position, size = tf.cast(position, tf.int64), tf.cast(size, tf.int64)
    there = tf.io.decode_raw(tf.strings.substr(data, tf.minimum(position, _length(data)), size), tf.uint8)
    return tf.pad(there, [[0, size - tf.size(there, tf.int64)]])


def _starts_with(data: tf.Tensor, position: tf.Tensor, name: bytes) -> tf.Tensor:
    return tf.strings.substr(data, position, len(name)) == name


def _length(data: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.strings.length(data), tf.int64)


def _is_one_of(value: tf.Tensor, numbers: Iterable[int]) -> tf.Tensor:
    return tf.reduce_any(value == tf.constant(list(numbers), tf.int64))
