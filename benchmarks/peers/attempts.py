"""Ways to compute the towers that were tried, and those that were chosen among them."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import numpy as np
from library import Call, Library


class Way(NamedTuple):
    """One way.

    Args:
        parts: of each block, side by side; 0 is the Keras model as it is.
        halves: of a batch of images, side by side.
        one_core: whether each operation keeps to one core.
        with_xla: whether XLA compiles the graph.
        with_onednn: whether TensorFlow uses oneDNN.
        panels: whether kernels are cut into panels, which is for captions alone.
    """

    parts: int = 1
    halves: bool = False
    one_core: bool = False
    with_xla: bool = False
    with_onednn: bool = True
    panels: bool = False

    @property
    def kinds(self) -> list[str]:
        """What it can do: halves are of images, panels of captions' weights."""
        if not self.parts or self.halves:
            return ["image"]
        return ["text"] if self.panels else ["image", "text"]


WAYS = {
    "the Keras model in a graph": Way(parts=0),
    "rewritten weights": Way(),
    "and blocks in two parts": Way(parts=2),
    "and one core an operation": Way(parts=2, one_core=True),
    "and halves of the batch: chosen for images": Way(parts=2, halves=True, one_core=True),
    "or kernels in panels: chosen for captions": Way(parts=2, one_core=True, panels=True),
    "panels, all cores an operation": Way(parts=2, panels=True),
    "halves alone, one core an operation": Way(halves=True, one_core=True),
    "halves and parts, all cores an operation": Way(parts=2, halves=True),
    "four parts and halves, one core": Way(parts=4, halves=True, one_core=True),
    "chosen for images, without oneDNN": Way(parts=2, halves=True, one_core=True, with_onednn=False),
    "panels, without oneDNN": Way(parts=2, one_core=True, panels=True, with_onednn=False),
    "rewritten weights in XLA": Way(with_xla=True),
}


class Attempt(Library):
    """One tower at a time; the mode is one of `WAYS`."""

    imports: ClassVar[tuple[str, ...]] = ("tf_clip",)

    @classmethod
    def kinds(cls, mode: str) -> list[str]:
        """Returns the towers that the way is one for."""
        return WAYS[mode].kinds

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
        """Loads the model."""
        from tf_clip import CLIPModel

        self._model = CLIPModel.from_pretrained(self.inputs.folder / "weights")
        self._way = WAYS[self.mode]

    def image(self, images: int, texts: int) -> Call:
        """Encodes images."""
        import tensorflow as tf

        from tf_clip.inference.vision_transformer import encode_images

        pixels = tf.constant(self.inputs.pixels(images))
        # A graph of a fixed size has no halves.
        size = None if self._way.halves and images > 1 else images
        tower = self._model.image_encoder
        if not self._way.parts:
            return self._graph(lambda pixels: tower(pixels, training=False).image_embeds, [pixels], size)
        weights = self._image_weights  # read before anything is traced
        return self._graph(lambda pixels: encode_images(pixels, weights), [pixels], size)

    def text(self, images: int, texts: int) -> Call:
        """Encodes one caption, which is all that is tried."""
        import tensorflow as tf

        from tf_clip.families.family import family_of
        from tf_clip.inference.causal_text import encode_one_text
        from tf_clip.inference.text_plan import cut_texts

        tower, ids = self._model.text_encoder, self.inputs.tokens(texts)["input_ids"]
        tokens = cut_texts(ids, None, family_of(tower).text_ends.positions(tower.config, ids)).input_ids[0]
        weights = self._text_weights  # read before anything is traced
        return self._graph(lambda tokens: encode_one_text(tokens, weights), [tf.constant(tokens)])

    @functools.cached_property
    def _image_weights(self) -> Any:
        from tf_clip.inference.vision_transformer import image_weights

        return image_weights(self._model.image_encoder, None, self._way.parts, keep_tower=False)

    @functools.cached_property
    def _text_weights(self) -> Any:
        from tf_clip.inference.causal_text import text_weights

        return text_weights(self._model.text_encoder, self._way.parts, keep_tower=False, in_panels=self._way.panels)

    def _graph(self, encode: Callable[..., Any], inputs: list[Any], *batch: int | None) -> Call:
        """Returns the call of a graph for inputs as they are, or of another batch size."""
        import tensorflow as tf

        signature = [tf.TensorSpec([*batch, *array.shape[len(batch) :]], array.dtype) for array in inputs]
        run = tf.function(encode, input_signature=signature, autograph=False, jit_compile=self._way.with_xla)
        return lambda: np.asarray(run(*inputs))
