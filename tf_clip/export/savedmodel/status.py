"""The `status` of a row, and what a row that cannot be used gives."""

from __future__ import annotations

import tensorflow as tf

OK = "ok"
BROKEN = "the file is broken or cut short"
NOT_AN_IMAGE = "not a JPEG, PNG, WebP or GIF file"
ON_BAD_ROW = ("status", "error")
"""A row that cannot be used says so in its `status`, or fails the whole request."""


def is_ok(status: tf.Tensor) -> tf.Tensor:
    """Tells which rows can be used, bool of the same shape."""
    return status == OK


def zeros_where_bad(values: tf.Tensor, usable: tf.Tensor) -> tf.Tensor:
    """Replaces the values of unusable rows by zeros; `usable` broadcasts."""
    return tf.where(usable, values, tf.zeros([], values.dtype))


def fail_if_bad(status: tf.Tensor, argument: str) -> tf.Tensor:
    """Returns `status` if all rows are usable, and fails with the first row that is not."""
    bad = tf.where(~is_ok(status))[:1, 0]
    received = tf.strings.join(["row ", tf.strings.as_string(bad), ", ", tf.gather(status, bad)])
    rule = f"`{argument}` must hold rows that can all be read, as this model was exported with on_bad_row='error'."
    message = tf.strings.join([rule, " Received: ", tf.strings.reduce_join(received), ". Leave it out."])
    with tf.control_dependencies([tf.debugging.Assert(tf.size(bad) == 0, [message])]):
        return tf.identity(status)
