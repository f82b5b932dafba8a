"""Arrays of a fixed size, worked on with what every LiteRT runtime has built in.

TensorFlow's own way to say some of these (`boolean_mask`, `repeat`, `bitwise_and`, a hash table of numbers) makes
arrays of unknown size, or needs more of TensorFlow than a phone has.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

BLANK = ord(" ")
"""What stands behind a text."""

_PAGE_BITS = 8


class PagedTable:
    """A whole number for each code, in pages, as most pages are alike.

    Args:
        columns: int32 arrays `[codes]`, all of one length; equal pages of all of them are stored once.
    """

    def __init__(self, *columns: np.ndarray) -> None:
        size = 1 << _PAGE_BITS
        count = -(-len(columns[0]) // size)
        padded = [np.pad(column.astype(np.int32), (0, count * size - len(column))) for column in columns]
        pages = np.stack([column.reshape(count, size) for column in padded], axis=1)
        number_of: dict[bytes, int] = {}
        page_of = np.array([number_of.setdefault(page.tobytes(), len(number_of)) for page in pages])
        # A code is added to this to get its place among the pages that are kept.
        self._shift = ((page_of - np.arange(count)) << _PAGE_BITS).astype(np.int32)
        kept = pages[np.unique(page_of, return_index=True)[1]]
        self._columns = [kept[:, index].reshape(-1) for index in range(len(columns))]

    def __call__(self, codes: tf.Tensor) -> list[tf.Tensor]:
        """Looks codes up, int32 of any shape, in every column."""
        place = codes + tf.gather(self._shift, tf.bitwise.right_shift(codes, _PAGE_BITS))
        return [tf.gather(column, place) for column in self._columns]


def shifted(values: tf.Tensor, by: int, fill: int | bool) -> tf.Tensor:
    """Returns an array whose element i is the given one's element i + `by`, and `fill` where there is none."""
    filling = tf.fill([min(abs(by), values.shape[0])], tf.constant(fill, values.dtype))
    if by > 0:
        return tf.concat([values[by:], filling], axis=0)
    return tf.concat([filling, values[:by]], axis=0)


def placed(values: tf.Tensor, places: tf.Tensor, size: int, fill: int) -> tf.Tensor:
    """Puts values into a new array.

    Args:
        values: int32 `[n]`.
        places: int32 `[n]`, where each belongs; no two are equal, except those from `size` on, which go nowhere.
        size: of the new array.
        fill: what stands where nothing is put.
    """
    # Where nothing is put there is a 0, so that `fill` is what is counted from.
    places = tf.minimum(places, size)[:, tf.newaxis]
    return tf.scatter_nd(places, values - fill, [size + 1])[:size] + fill


def packed(values: tf.Tensor, is_kept: tf.Tensor, size: int, fill: int) -> tf.Tensor:
    """Moves the values that are kept to the front, in their order; `fill` stands behind them."""
    places = tf.where(is_kept, tf.cumsum(tf.cast(is_kept, tf.int32)) - 1, size)
    return placed(values, places, size, fill)
