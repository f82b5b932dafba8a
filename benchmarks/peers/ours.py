"""tf_clip's side of the benchmark, with each of its engines."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from library import CHOICES, LEARNING_RATE, MATMUL_SIDE, Call, Inputs, Library

TRAINING = "training"
ENGINES_OF_PARTS = ("auto", "tensorflow")


class TFClip(Library):
    """tf_clip; the mode is the engine, or `training`."""

    imports: ClassVar[tuple[str, ...]] = ("tf_clip",)

    def __init__(self, inputs: Inputs, mode: str) -> None:
        super().__init__(inputs, mode)
        self._engine = None

    @classmethod
    def kinds(cls, mode: str) -> list[str]:
        """Returns what is measured in a mode; LiteRT converts for a minute or more at each size, so it has few."""
        if mode == "litert":
            return ["image", "text"]
        return [kind for kind in super().kinds(mode) if kind == "matmul" or (kind == "training") == (mode == TRAINING)]

    @classmethod
    def warm_up(cls, mode: str) -> None:
        """Starts TensorFlow and Keras, with the threads that the documentation tells programs to take."""
        import keras

        from tf_clip import CLIPModel, CLIPProcessor, set_inference_threads  # noqa: F401

        if mode in ENGINES_OF_PARTS:
            set_inference_threads()
        keras.ops.convert_to_numpy(keras.ops.ones((2, 2)) @ keras.ops.ones((2, 2)))

    def load(self) -> None:
        """Loads the model."""
        from tf_clip import CLIPModel

        self.model = CLIPModel.from_pretrained(self.inputs.folder / "weights")

    @property
    def engine(self):
        """What encodes, made when it is first asked for."""
        from tf_clip import compile_for_inference

        if self._engine is None:
            options = {"engine": self.mode, "keep_model": False, "cache_dir": self.inputs.folder / CHOICES}
            self._engine = compile_for_inference(self.model, **options)
            self.model = None
        return self._engine

    def image(self, images: int, texts: int) -> Call:
        """Encodes images."""
        import tensorflow as tf

        pixels, encode = tf.constant(self.inputs.pixels(images)), self.engine.get_image_features
        return lambda: np.asarray(encode(pixels))

    def text(self, images: int, texts: int) -> Call:
        """Encodes captions, padded to the longest."""
        import tensorflow as tf

        tokens = {name: tf.constant(value) for name, value in self.inputs.tokens(texts).items()}
        encode = self.engine.get_text_features
        return lambda: np.asarray(encode(**tokens))

    def joint(self, images: int, texts: int) -> Call:
        """Compares images and captions."""
        import tensorflow as tf

        pixels = tf.constant(self.inputs.pixels(images))
        tokens = {name: tf.constant(value) for name, value in self.inputs.tokens(texts).items()}
        engine = self.engine
        return lambda: engine(**tokens, pixel_values=pixels).logits_per_image

    def end_to_end(self, images: int, texts: int) -> Call:
        """Compares files and strings; decoding, resizing and tokenizing are in the graph."""
        import tensorflow as tf

        from tf_clip import CLIPProcessor

        processor, engine = CLIPProcessor.from_pretrained(self.inputs.folder / "weights"), self.engine

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
        def prepare_images(data):
            return processor.image_processor(data)["pixel_values"]

        @tf.function(input_signature=[tf.TensorSpec([None], tf.string)], autograph=False)
        def prepare_texts(strings):
            return processor.tokenizer(strings)

        files, strings = self.inputs.files(images), self.inputs.strings[:texts]

        def run() -> np.ndarray:
            pixels = prepare_images(tf.constant(files))
            return engine(**prepare_texts(tf.constant(strings)), pixel_values=pixels).logits_per_image

        return run

    def zero_shot(self, images: int, texts: int) -> Call:
        """Names images."""
        import tensorflow as tf

        from tf_clip import class_probabilities

        pixels, encode = tf.constant(self.inputs.pixels(images)), self.engine.encode_image
        return lambda: np.asarray(class_probabilities(encode(pixels), self.inputs.class_embeds, np.log(100.0)))

    def training(self, images: int, texts: int) -> Call:
        """Trains on the same batch again and again."""
        from tf_clip.training.optimizers import AdamW

        self.model.compile(AdamW(LEARNING_RATE, weight_decay=0.01, beta_1=0.9, beta_2=0.98, epsilon=1e-6))
        import tensorflow as tf

        batch = {**self.inputs.tokens(texts), "pixel_values": self.inputs.pixels(images)}
        batch = {name: tf.constant(value) for name, value in batch.items()}
        return lambda: np.asarray(self.model.train_on_batch(batch, return_dict=True)["loss"])

    def matmul(self, images: int, texts: int) -> Call:
        """Multiplies two large matrices in TensorFlow."""
        return tensorflow_matmul()


def tensorflow_matmul() -> Call:
    """Returns the product of two large matrices, in TensorFlow; in halves, of which each core has one."""
    import tensorflow as tf

    one, other = (tf.random.stateless_normal((MATMUL_SIDE, MATMUL_SIDE), (seed, 0)) for seed in (0, 1))

    @tf.function(autograph=False)
    def multiply():
        return [tf.linalg.matmul(half, other) for half in tf.split(one, 2)]

    return lambda: multiply()[1][0, 0].numpy()
