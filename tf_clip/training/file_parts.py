"""Parts of large files, read one at a time from any file system."""

from __future__ import annotations

import tensorflow as tf

from tf_clip.training.bad_rows import RowError


def read_part(path: str, offset: int, size: int, limit: int) -> bytes:
    """Reads some bytes of a file.

    Args:
        path: a file that TensorFlow can read.
        offset: where they begin.
        size: how many there are.
        limit: how many there may be.

    Raises:
        RowError: there are more than `limit`, or the file does not have them.
    """
    if size > limit:
        raise RowError(f"it has {size} bytes, more than {limit}")
    try:
        with tf.io.gfile.GFile(path, "rb") as file:
            file.seek(offset)
            data = file.read(size) if size else b""
    except (tf.errors.OpError, OSError) as error:
        raise RowError(f"its file cannot be read ({type(error).__name__})") from error
    if len(data) != size:
        raise RowError("its file is cut short")
    return data
