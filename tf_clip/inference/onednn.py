"""Whether TensorFlow multiplies matrices with oneDNN on this machine, which decides how weights are best laid out."""

from __future__ import annotations

import functools

import numpy as np
import tensorflow as tf


@functools.cache
def multiplies_with_onednn() -> bool:
    """Says whether batches of products run in oneDNN; in TensorFlow's own kernels, narrow ones take twice the time.

    That depends on how TensorFlow was built, on the processor and on a switch of the environment. TensorFlow says it
    nowhere but in the graphs that it runs.
    """
    tf.zeros([]).numpy()  # a session that came first would decide on the threads of all
    with tf.Graph().as_default() as graph, tf.compat.v1.Session(graph=graph) as session:
        rows = tf.compat.v1.placeholder(tf.float32, [1, None, 64])
        product = tf.matmul(rows, tf.compat.v1.placeholder_with_default(tf.ones([2, 64, 64]), [2, 64, 64]))
        metadata = tf.compat.v1.RunMetadata()
        options = tf.compat.v1.RunOptions(output_partition_graphs=True)
        session.run(product, {rows: np.ones([1, 4, 64])}, options, metadata)
    return any("Mkl" in node.op for found in metadata.partition_graphs for node in found.node)
