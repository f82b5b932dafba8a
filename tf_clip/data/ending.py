"""Ends reading before the interpreter ends, which would otherwise wait for it forever."""

from __future__ import annotations

import atexit
import functools
import gc

import tensorflow as tf


@functools.cache
def end_reading_at_exit() -> None:
    """Makes the interpreter let go of all iterators of datasets before it ends, those of a stopped `fit` among them.

    A thread of TensorFlow's that runs Python once the interpreter is ending never returns, and what then deletes the
    iterator waits for that thread: a program that is stopped in the midst of its data would hang after its last line.
    """
    atexit.register(_end_reading)


def _end_reading() -> None:
    for iterator in [found for found in gc.get_objects() if isinstance(found, tf.data.Iterator)]:
        vars(iterator).clear()  # variables of a program, and tracebacks, may still refer to the iterator itself
    gc.collect()
