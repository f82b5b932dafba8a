"""Ways to compute an image tower that were tried, and the one that was chosen among them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import numpy as np
from library import Call, Library


class Way(NamedTuple):
    """One way.

    Args:
        parts: of each block, side by side; 0 is the Keras model as it is.
        halves: of a batch, side by side.
        one_core: whether each operation keeps to one core.
        with_xla: whether XLA compiles the graph.
        with_onednn: whether TensorFlow uses oneDNN.
    """

    parts: int = 1
    halves: bool = False
    one_core: bool = False
    with_xla: bool = False
    with_onednn: bool = True


WAYS = {
    "the Keras model in a graph": Way(parts=0),
    "rewritten weights": Way(),
    "and blocks in two parts": Way(parts=2),
    "and one core an operation": Way(parts=2, one_core=True),
    "and halves of the batch: chosen": Way(parts=2, halves=True, one_core=True),
    "halves alone, one core an operation": Way(halves=True, one_core=True),
    "halves and parts, all cores an operation": Way(parts=2, halves=True),
    "four parts and halves, one core": Way(parts=4, halves=True, one_core=True),
    "chosen, without oneDNN": Way(parts=2, halves=True, one_core=True, with_onednn=False),
    "rewritten weights in XLA": Way(with_xla=True),
}


class Attempt(Library):
    """The image tower; the mode is one of `WAYS`."""

    imports: ClassVar[tuple[str, ...]] = ("tf_clip",)

    @classmethod
    def warm_up(cls, mode: str) -> None:
        """Starts TensorFlow with the way's switches."""
        way = WAYS[mode]
        os.environ["TF_ENABLE_ONEDNN_OPTS"] = str(int(way.with_onednn))
        import tensorflow as tf

        from tf_clip import set_inference_threads

        if way.one_core:
            set_inference_threads()
        tf.linalg.matmul(tf.ones((2, 2)), tf.ones((2, 2))).numpy()

    def load(self) -> None:
        """Loads the tower."""
        from tf_clip import CLIPImageEncoder

        self._tower = CLIPImageEncoder.from_pretrained(self.inputs.folder / "weights")
        self._way = WAYS[self.mode]
        self._encode = self._graph()

    def image(self, images: int, texts: int) -> Call:
        """Encodes pictures."""
        import tensorflow as tf

        pixels = tf.constant(self.inputs.pixels(images))
        # A graph of a fixed size has no halves.
        size = None if self._way.halves and images > 1 else images
        signature = [tf.TensorSpec([size, *pixels.shape[1:]], tf.float32)]
        run = tf.function(self._encode, input_signature=signature, autograph=False, jit_compile=self._way.with_xla)
        return lambda: np.asarray(run(pixels))

    def _graph(self) -> Callable[[Any], Any]:
        from tf_clip.inference.image_graph import encode_image
        from tf_clip.inference.tower_weights import image_weights

        if not self._way.parts:
            return lambda pixels: self._tower(pixels, training=False).image_embeds
        weights = image_weights(self._tower, None, self._way.parts, keep_tower=False)
        return lambda pixels: encode_image(pixels, weights)
