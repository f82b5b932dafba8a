"""Encoded pictures to RGB bytes inside the TensorFlow graph: JPEG, PNG, WebP and GIF."""

from __future__ import annotations

import tensorflow as tf


def decode_rgb(data: tf.Tensor) -> tf.Tensor:
    """Decodes one picture.

    Args:
        data: scalar string, the file's bytes. Of an animation the first frame counts.

    Returns:
        uint8 `[height, width, 3]`; transparent pixels are composited on white.

    Raises:
        tf.errors.InvalidArgumentError: the bytes are not such a picture, or not all of it.

    Source: transformers 5 composites on white. JPEGs are decoded with the accurate DCT, which equals
    Pillow bit for bit; TensorFlow's default does not.
    """
    # Padded, since substr refuses to start beyond the end of a short string.
    head = tf.strings.join([tf.strings.substr(data, 0, 12), b"\0" * 12])
    is_webp = (tf.strings.substr(head, 0, 4) == b"RIFF") & (tf.strings.substr(head, 8, 4) == b"WEBP")
    rgb = tf.case(
        [
            (tf.strings.substr(head, 0, 3) == b"\xff\xd8\xff", lambda: _decode_jpeg(data)),
            (tf.strings.substr(head, 0, 8) == b"\x89PNG\r\n\x1a\n", lambda: _decode_png(data)),
            (tf.strings.substr(head, 0, 4) == b"GIF8", lambda: _decode_gif(data)),
            (is_webp, lambda: _decode_webp(data)),
        ],
        default=lambda: _refuse(data),
    )
    return tf.ensure_shape(rgb, [None, None, 3])


def composite_on_white(rgba: tf.Tensor) -> tf.Tensor:
    """Lays a picture with transparency on white, in the integer arithmetic of Pillow.

    Args:
        rgba: uint8 `[..., 4]`.

    Returns:
        uint8 `[..., 3]`.
    """
    colour, alpha = tf.cast(rgba[..., :3], tf.int32), tf.cast(rgba[..., 3:], tf.int32)
    weighted = (colour * alpha + 255 * (255 - alpha)) * 128 + 0x80 * 128
    divided = tf.bitwise.right_shift(tf.bitwise.right_shift(weighted, 8) + weighted, 8)  # by 255
    return tf.cast(tf.bitwise.right_shift(divided, 7), tf.uint8)


def _decode_jpeg(data: tf.Tensor) -> tf.Tensor:
    return tf.io.decode_jpeg(data, channels=3, dct_method="INTEGER_ACCURATE", fancy_upscaling=True)


def _decode_png(data: tf.Tensor) -> tf.Tensor:
    return composite_on_white(tf.io.decode_png(data, channels=4))


def _decode_gif(data: tf.Tensor) -> tf.Tensor:
    return tf.io.decode_gif(data)[0]


def _decode_webp(data: tf.Tensor) -> tf.Tensor:
    frame = tf.io.decode_webp(data)[0]  # [height, width, 3 or 4], as the file has it
    return tf.cond(tf.shape(frame)[-1] == 4, lambda: composite_on_white(frame), lambda: frame[..., :3])


def _refuse(data: tf.Tensor) -> tf.Tensor:
    message = "not a JPEG, PNG, WebP or GIF picture; its length in bytes is"
    check = tf.debugging.Assert(False, [message, tf.strings.length(data)])
    with tf.control_dependencies([] if check is None else [check]):  # None where it has raised already
        return tf.zeros([0, 0, 3], tf.uint8)
