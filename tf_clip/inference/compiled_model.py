"""`compile_for_inference`: a model's towers as the fastest functions that compute the same."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_clip.adapters.composition import require_same_for_every_row
from tf_clip.errors import require
from tf_clip.export.tflite.runtime import require_litert
from tf_clip.families.family import family_of, rewriting_of
from tf_clip.inference import causal_text, vision_transformer
from tf_clip.inference.choice import Choices
from tf_clip.inference.encoder import Encoder
from tf_clip.inference.engines import ENGINES
from tf_clip.inference.hardware import has_gpu, multiplies_with_onednn, parts
from tf_clip.inference.keras_towers import KerasTextWork, keras_images
from tf_clip.inference.tower_weights import has_other_weights
from tf_clip.inference.work import BATCH_SIZES, ImageWork, TextWork
from tf_clip.machine import usable_cores
from tf_clip.models.outputs import CLIPOutput
from tf_clip.models.two_towers import TwoTowerModel
from tf_clip.preprocessing.processor import Processor
from tf_clip.unit_length import unit_rows

_MOST_TEXTS = 256


def compile_for_inference(
    model: TwoTowerModel,
    processor: Processor | None = None,
    *,
    engine: str = "auto",
    candidates: Sequence[str] = ("tensorflow", "xla"),
    batch_sizes: Sequence[int] = (),
    keep_model: bool = True,
    cache_dir: str | Path | None = "~/.cache/tf_clip",
) -> CompiledModel:
    """Makes the fastest functions of a model on this machine; they compute the same, in float32.

    The weights of a tower that can be rewritten exactly are copied and never change again: train the model first. Every
    other tower runs as Keras has it, with the model's own weights: a tower with adapters, a ResNet, a subclass, a Keras
    layer of your own. Leave the model alone afterwards.

    Args:
        model: the model; it is not changed if it is kept.
        processor: its processor; needed for images as bytes.
        engine: `"tensorflow"`, `"xla"` (compiles for seconds at each new size), `"litert"` (converts for minutes at
            each new size, and holds the weights once more; needs the extra `litert`) or `"auto"`, which measures
            `candidates` at each new size and takes the fastest.
        candidates: the engines that `"auto"` chooses among.
        batch_sizes: numbers of images and of texts for which everything is traced, compiled and, for `"auto"`, measured
            before this returns. For other sizes that happens at the first call.
        keep_model: whether the model can be used afterwards. If not, the weights of its blocks are moved, one block
            after the other, so that memory never holds all of them twice; calling the model fails from then on.
        cache_dir: the folder in which `"auto"` remembers what it measured; None for nowhere.

    Returns:
        The functions.

    Raises:
        ImportError: LiteRT is asked for, but not installed.
        TypeError: the model or the processor is of another kind.
        ValueError: its active adapters do not do the same with every row, an engine has another name, a size is not
            positive, or Keras does not run on TensorFlow.

    Example:
        >>> fast = compile_for_inference(model, processor)
        >>> fast.encode_text(**processor(text=["an owl", "a bus"])).shape
        (2, 128)

    Source: `docs/inference.md`.
    """
    _require_kinds(model, processor)
    require_same_for_every_row(model.active_adapters)
    _require_engines(engine, candidates)
    for size in batch_sizes:
        is_size = isinstance(size, int) and size > 0
        require(is_size, "batch_sizes", "positive whole numbers", list(batch_sizes), "Leave it out if unsure.")
    folder = None if cache_dir is None else Path(cache_dir).expanduser()
    compiled = CompiledModel(model, processor, engine, tuple(candidates), folder, keep_model)
    for size in batch_sizes:
        compiled._prepare(size)
    return compiled


class CompiledModel:
    """A model's towers, made by `compile_for_inference`.

    It takes a model's place in `embed_images`, `embed_texts`, `class_embeddings` and `zero_shot_classifier`.

    Args:
        model, processor, engine, candidates: see `compile_for_inference`.
        cache_dir: the folder, or None.
        keep_model: see `compile_for_inference`.

    Attributes:
        config: the model's configuration.
        logit_scale: the model's temperature, a logarithm, float32 `[]`.
        logit_bias: what is added to its logits, float32 `[]`; None where it has none.
    """

    def __init__(
        self,
        model: TwoTowerModel,
        processor: Processor | None,
        engine: str,
        candidates: tuple[str, ...],
        cache_dir: Path | None,
        keep_model: bool,
    ) -> None:
        self.config = model.config
        self.logit_scale = tf.constant(keras.ops.convert_to_numpy(model.logit_scale), tf.float32)
        bias = model.logit_bias
        self.logit_bias = None if bias is None else tf.constant(keras.ops.convert_to_numpy(bias), tf.float32)
        image, text = model.image_encoder, model.text_encoder
        side, channels = image.config.image_size, getattr(image.config, "num_channels", 3)
        self._image_shape = (side, side, channels)
        self._vocab_size, self._longest = text.config.vocab_size, text.config.max_position_embeddings
        normalization = None if processor is None else processor.image_processor.scale_and_shift()
        engines = candidates if engine == "auto" else (engine,)
        works = _image_works(image, self._image_shape, normalization, keep_model)
        self._text_work = _text_work(text, engines, keep_model)
        cores = usable_cores()
        described = {"image": _described(image), "text": _described(text)}
        choices = Choices(cache_dir, described, cores) if engine == "auto" else None
        self._encoders = {
            name: Encoder(work, engine, candidates, choices, cores)
            for name, work in {**works, "text": self._text_work}.items()
        }

    def encode_image(self, images: Any) -> np.ndarray:
        """Encodes images.

        Args:
            images: `pixel_values` as the processor makes them, or uint8 pixels of the model's size,
                `[n, image_size, image_size, 3]`.

        Returns:
            float32 `[n, projection_dim]`, of unit length.

        Raises:
            ValueError: the shape or the dtype is another, or there are bytes and no processor was given.
        """
        return unit_rows(self.get_image_features(images))

    def encode_text(self, input_ids: Any, attention_mask: Any = None) -> np.ndarray:
        """Encodes texts.

        Args:
            input_ids: int `[m, length]`.
            attention_mask: `[m, length]`, 1 keeps a token; None keeps all.

        Returns:
            float32 `[m, projection_dim]`, of unit length.

        Raises:
            ValueError: the shape is another, a text is too long, or an id is not of the vocabulary.
        """
        return unit_rows(self.get_text_features(input_ids, attention_mask))

    def __call__(self, input_ids: Any, pixel_values: Any = None, attention_mask: Any = None) -> CLIPOutput:
        """Compares texts with images, as the model does.

        Args:
            input_ids: see `encode_text`; or a dictionary of all arguments.
            pixel_values: see `encode_image`.
            attention_mask: see `encode_text`.

        Returns:
            `logits_per_image` `[n, m]`, `logits_per_text`, `text_embeds` and `image_embeds`, float32.
        """
        if isinstance(input_ids, Mapping):
            return self(**input_ids)
        text_embeds, image_embeds = self.encode_text(input_ids, attention_mask), self.encode_image(pixel_values)
        scale = np.float32(math.exp(float(self.logit_scale)))
        bias = np.float32(0.0 if self.logit_bias is None else self.logit_bias)
        logits = (text_embeds @ image_embeds.T * scale + bias).astype(np.float32)
        return CLIPOutput(
            logits_per_image=logits.T, logits_per_text=logits, text_embeds=text_embeds, image_embeds=image_embeds
        )

    def get_image_features(self, pixel_values: Any) -> np.ndarray:
        """Encodes images, **not** to unit length; see `encode_image`."""
        images = np.asarray(pixel_values)
        if np.issubdtype(images.dtype, np.floating):
            images = images.astype(np.float32, copy=False)
        self._require_images(images)
        encode, most = self._encoders[images.dtype.name], BATCH_SIZES[-1]
        batches = (images[start : start + most] for start in range(0, len(images), most))
        rows = [encode(batch, len(batch)) for batch in batches]
        return np.concatenate([np.empty((0, self.config.projection_dim), np.float32), *rows])

    def get_text_features(self, input_ids: Any, attention_mask: Any = None) -> np.ndarray:
        """Encodes texts, **not** to unit length; see `encode_text`."""
        ids = np.asarray(input_ids)
        mask = None if attention_mask is None else np.asarray(attention_mask)
        self._require_texts(ids, mask)
        features = np.empty((len(ids), self.config.projection_dim), np.float32)
        if not len(ids):
            return features
        encoder = self._encoders["text"]
        rows = self._text_work.rows(ids, mask)
        if len(ids) == 1:
            return encoder(rows, 1)  # a single text needs no sorting, which would cost a noticeable part of its time
        # Programs of a fixed size take fewer texts than are best for a graph of any size.
        most = _MOST_TEXTS if encoder.takes_any_size else BATCH_SIZES[-1]
        for indices, batch in self._text_work.batches(rows, most):
            features[indices] = encoder(batch, len(indices))
        return features

    @property
    def chosen(self) -> dict[str, dict[tuple[int, ...], str]]:
        """What `"auto"` chose so far: for each kind of work, the engine at each size."""
        return {name: dict(encoder.chosen) for name, encoder in self._encoders.items()}

    @property
    def traces(self) -> int:
        """How many graphs were traced so far; a size that comes again adds none."""
        return sum(encoder.traces for encoder in self._encoders.values())

    def _prepare(self, size: int) -> None:
        # Larger numbers of rows are cut into full batches and a rest.
        for count in {min(size, BATCH_SIZES[-1]), size % BATCH_SIZES[-1]} - {0}:
            for encoder in self._encoders.values():
                encoder.prepare(count)

    def _require_images(self, images: np.ndarray) -> None:
        if images.dtype == np.uint8 and "uint8" not in self._encoders:
            raise ValueError(
                "`processor` must be given to compile_for_inference for images as bytes. Received: uint8 pixels. "
                "Pass it, or the processor's pixel_values."
            )
        if images.dtype.name not in self._encoders or images.shape[1:] != self._image_shape:
            raise ValueError(
                f"`images` must be floats or uint8 of shape [n, {', '.join(map(str, self._image_shape))}]. "
                f"Received: {images.dtype} of shape {list(images.shape)}. Let the processor make them."
            )

    def _require_texts(self, ids: np.ndarray, mask: np.ndarray | None) -> None:
        if ids.ndim != 2 or not 0 < ids.shape[1] <= self._longest or not np.issubdtype(ids.dtype, np.integer):
            raise ValueError(
                f"`input_ids` must be whole numbers of shape [m, 1 to {self._longest}]. "
                f"Received: {ids.dtype} of shape {list(ids.shape)}. Let the processor make them."
            )
        if mask is not None and mask.shape != ids.shape:
            raise ValueError(
                f"`attention_mask` must have the shape of `input_ids`, {list(ids.shape)}. "
                f"Received: shape {list(mask.shape)}. Let the processor make both."
            )
        if ids.size and not 0 <= ids.min() <= ids.max() < self._vocab_size:
            raise ValueError(
                f"`input_ids` must be from 0 to {self._vocab_size - 1}, the model's vocabulary. "
                f"Received: {ids.min()} to {ids.max()}. Take the tokenizer of its checkpoint."
            )


def _image_works(
    tower: Any,
    shape: tuple[int, int, int],
    normalization: tuple[np.ndarray, np.ndarray] | None,
    keep_tower: bool,
) -> dict[str, ImageWork]:
    """Returns an image tower's work by the images' dtype: rewritten where that is exact, else as Keras has it."""
    is_rewritten = rewriting_of(tower) == "vision_transformer" and not has_other_weights(
        tower, vision_transformer.WEIGHTS_OUTSIDE_OF_BLOCKS
    )
    if is_rewritten:
        encode = vision_transformer.rewritten(tower, normalization, parts(), keep_tower)
    else:
        encode = keras_images(tower, normalization)
    dtypes = (tf.float32,) if normalization is None else (tf.float32, tf.uint8)
    return {
        dtype.name: ImageWork(f"images {dtype.name}", encode, shape, dtype, has_halves=is_rewritten) for dtype in dtypes
    }


def _text_work(tower: Any, engines: Sequence[str], keep_tower: bool) -> TextWork:
    """Returns a text tower's work: rewritten where that is exact, else as Keras has it."""
    vocab_size, longest = tower.config.vocab_size, tower.config.max_position_embeddings
    ends = family_of(tower).text_ends if rewriting_of(tower) == "causal_text" else None
    if ends is None or has_other_weights(tower, causal_text.WEIGHTS_OUTSIDE_OF_BLOCKS):
        return KerasTextWork(tower, vocab_size, longest, may_be_longer=ends is not None)
    # Compilers are slower with panels.
    in_panels = "tensorflow" in engines and not has_gpu() and multiplies_with_onednn()
    weights = causal_text.text_weights(tower, parts(), keep_tower, in_panels)
    ends_of = functools.partial(ends.positions, tower.config)
    return causal_text.CausalTextWork(weights, ends_of, vocab_size, longest)


def _described(tower: Any) -> str:
    return f"{type(tower).__module__}.{type(tower).__qualname__} {tower.config!r}"


def _require_kinds(model: Any, processor: Any) -> None:
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "Keras's backend must be tensorflow to compile a model for inference. "
            f"Received: {keras.backend.backend()!r}. Set KERAS_BACKEND=tensorflow, and load the model again."
        )
    if not isinstance(model, TwoTowerModel) or not isinstance(processor, Processor | None):
        raise TypeError(
            "`model` and `processor` must be a model with two towers and its processor or None. "
            f"Received: {type(model).__name__} and {type(processor).__name__}. Load both with from_pretrained."
        )


def _require_engines(engine: str, candidates: Sequence[str]) -> None:
    advice = 'Use "tensorflow" if unsure.'
    require(engine in (*ENGINES, "auto"), "engine", f"one of {', '.join(ENGINES)} or auto", engine, advice)
    is_choice = not isinstance(candidates, str) and bool(candidates) and set(candidates) <= set(ENGINES)
    require(is_choice, "candidates", f"some of {', '.join(ENGINES)}", candidates, "Leave it out if unsure.")
    if "litert" in (candidates if engine == "auto" else (engine,)):
        require_litert()
