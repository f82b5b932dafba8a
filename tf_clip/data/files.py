"""Files of any file system that TensorFlow can read, of which no more is held in memory than is asked for."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import tensorflow as tf

from tf_clip.data.skipped import ExampleError

MAX_FILE_BYTES = 1 << 28
"""Largest image that is read, encoded; more would be an attack on memory."""

READ_ERRORS = (tf.errors.OpError, OSError, ValueError)


def open_file(path: str) -> tuple[Any, int]:
    """Opens a file for reading.

    Args:
        path: a regular file. Those of this machine are opened by Python: TensorFlow would read half a megabyte ahead
            after each `seek`.

    Returns:
        The file, with `read`, `seek`, `tell` and `close`, to be used in a `with`; and its size in bytes.

    Raises:
        OSError: it cannot be opened. On other file systems, `tf.errors.OpError`.
    """
    if "://" in path:
        file = tf.io.gfile.GFile(path, "rb")
        return file, file.size()
    status = Path(path).stat()
    if not stat.S_ISREG(status.st_mode):
        raise OSError(f"{path!r} is not a regular file")  # a pipe would be waited for
    return Path(path).open("rb"), status.st_size


def read_file(path: str) -> bytes:
    """Reads an image's file.

    Raises:
        ExampleError: there is none, or it is too large, or cannot be read.
    """
    try:
        file, size = open_file(path)
        with file:
            data: bytes | None = file.read(size) if size <= MAX_FILE_BYTES else None
    except (FileNotFoundError, tf.errors.NotFoundError):
        raise ExampleError("the image's file does not exist") from None
    except READ_ERRORS as error:
        raise ExampleError(f"the image's file cannot be read ({type(error).__name__})") from error
    if data is None:
        raise ExampleError(f"the image's file has {size} bytes, more than {MAX_FILE_BYTES}")
    return data


def read_part(path: str, offset: int, size: int, limit: int) -> bytes:
    """Reads some bytes of a large file.

    Args:
        path: the file.
        offset: where they begin.
        size: how many there are.
        limit: how many there may be.

    Raises:
        ExampleError: there are more than `limit`, or the file does not have them.
    """
    if size > limit:
        raise ExampleError(f"it has {size} bytes, more than {limit}")
    try:
        file, _ = open_file(path)
        with file:
            file.seek(offset)
            data: bytes = file.read(size) if size else b""
    except READ_ERRORS as error:
        raise ExampleError(f"its file cannot be read ({type(error).__name__})") from error
    if len(data) != size:
        raise ExampleError("its file is cut short")
    return data
