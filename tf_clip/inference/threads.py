"""How the fast graphs share the processor's cores: parts of a block beside each other, each on one core."""

from __future__ import annotations

import tensorflow as tf

from tf_clip.machine import usable_cores

MOST_PARTS = 4
"""Into which blocks are cut; with more, their products are too narrow to be fast."""


def has_gpu() -> bool:
    """Says whether TensorFlow has a GPU, on which it then computes."""
    return bool(tf.config.list_physical_devices("GPU"))


def parts() -> int:
    """Returns into how many parts blocks are cut: one for each core, and none for a GPU, which is full without."""
    return 1 if has_gpu() else min(usable_cores(), MOST_PARTS)


def set_inference_threads() -> None:
    """Tells TensorFlow to run each operation on one core: compiled models have operations for all of them.

    For programs that run compiled models and little else, before anything is computed. Everything else, such as a
    Keras model and its training, becomes slower, as far as it has no operations that can run at the same time. On more
    than four cores nothing is changed, since a graph has too few parts for them; nor beside a GPU.

    Raises:
        RuntimeError: TensorFlow has started, and its threads with it.

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
