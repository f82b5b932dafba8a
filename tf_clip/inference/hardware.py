"""What TensorFlow computes with on this machine, and how the rewritten graphs are fitted to it."""

from __future__ import annotations

import functools

import numpy as np
import tensorflow as tf

from tf_clip.machine import usable_cores

MOST_PARTS = 4
"""A block is cut into at most this many parts: more parts would be too narrow to be fast."""


def has_gpu() -> bool:
    """Returns whether TensorFlow has a GPU, on which it then computes."""
    return bool(tf.config.list_physical_devices("GPU"))


def parts() -> int:
    """Returns how many parts a block is cut into: one for each core. A GPU is busy without parts and gets one."""
    return 1 if has_gpu() else min(usable_cores(), MOST_PARTS)


@functools.cache
def multiplies_with_onednn() -> bool:
    """Returns whether TensorFlow multiplies batches of matrices with oneDNN.

    TensorFlow's own kernels need twice the time for narrow matrices. Which of the two runs depends on how TensorFlow
    was built, on the processor and on an environment variable. It can only be seen in a graph that TensorFlow has run.
    """
    tf.zeros([]).numpy()  # starts TensorFlow; a session that starts it would set the thread count of the whole process
    with tf.Graph().as_default() as graph, tf.compat.v1.Session(graph=graph) as session:
        rows = tf.compat.v1.placeholder(tf.float32, [1, None, 64])
        product = tf.matmul(rows, tf.compat.v1.placeholder_with_default(tf.ones([2, 64, 64]), [2, 64, 64]))
        metadata = tf.compat.v1.RunMetadata()
        options = tf.compat.v1.RunOptions(output_partition_graphs=True)
        session.run(product, {rows: np.ones([1, 4, 64])}, options, metadata)
    return any("Mkl" in node.op for found in metadata.partition_graphs for node in found.node)


def set_inference_threads() -> None:
    """Makes TensorFlow run each operation on one core; a compiled model runs several operations at the same time.

    Call it first, in programs that run compiled models and little else. Anything else, such as training a Keras model,
    becomes slower. Nothing changes on more than four cores, which a compiled graph has too few parts for, nor beside a
    GPU.

    Raises:
        RuntimeError: TensorFlow has already computed something, and has its threads.

    Example:
        >>> set_inference_threads()  # doctest: +SKIP
        >>> model = CLIPModel.from_pretrained("pictogram-clip")  # doctest: +SKIP
        >>> fast = compile_for_inference(model)  # doctest: +SKIP

    Source: `docs/inference.md`.
    """
    if usable_cores() > MOST_PARTS or has_gpu():
        return
    try:
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(usable_cores())
    except RuntimeError as error:
        raise RuntimeError(
            "set_inference_threads() must be called before TensorFlow computes anything. "
            "Received: the call after that. Make it the program's first call, before a model is made."
        ) from error
