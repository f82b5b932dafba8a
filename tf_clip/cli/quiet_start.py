"""Imports TensorFlow without the lines that its libraries write to standard error as they load."""

from __future__ import annotations

import os
import sys
import tempfile


def import_tensorflow() -> None:
    """Imports TensorFlow; shows what its libraries write only when that fails.

    They write to the file descriptor, before any log level is read, so that the descriptor itself is exchanged.

    Raises:
        ImportError: TensorFlow cannot be imported.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with tempfile.TemporaryFile() as held_back:
        sys.stderr.flush()
        shown = os.dup(2)
        os.dup2(held_back.fileno(), 2)
        try:
            import keras  # noqa: F401
            import tensorflow  # noqa: F401
        except BaseException:
            held_back.seek(0)
            os.write(shown, held_back.read())
            raise
        finally:
            os.dup2(shown, 2)
            os.close(shown)
