"""`compile_for_inference`: a model's towers as the fastest functions that compute the same."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_clip.adapters.composition import require_same_for_every_row
from tf_clip.export.tflite.runtime import require_litert
from tf_clip.inference.choice import Choices
from tf_clip.inference.encoder import Encoder
from tf_clip.inference.onednn import multiplies_with_onednn
from tf_clip.inference.runners import ENGINES
from tf_clip.inference.text_plan import cut_texts, groups_of
from tf_clip.inference.threads import has_gpu, parts
from tf_clip.inference.tower_weights import image_weights, is_plain, text_weights
from tf_clip.inference.work import BATCH_SIZES, TEXT_LENGTHS, ImageWork, TextWork
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

    The weights are copied, rewritten, and never change again: train the model first.

    Args:
        model: the model; it is not changed if it is kept. ResNets, and towers with adapters, run as Keras has them,
            with the model's own weights: leave both alone afterwards.
        processor: its processor; needed for images as bytes.
        engine: `"tensorflow"`, `"xla"` (compiles for seconds at each new size), `"litert"` (converts for minutes at
            each new size, and holds the weights once more; needs the extra `litert`) or `"auto"`, which measures
            `candidates` at each new size and takes the fastest.
        candidates: what `"auto"` chooses among.
        batch_sizes: numbers of images, and of texts of any length, that all is made ready for before this returns:
            traced, compiled, and for `"auto"` measured. Other sizes are when they come.
        keep_model: whether the model can be used afterwards. If not, its blocks' weights are moved, one block after
            the other, so that there is never a second copy of all; calling the model is an error from then on.
        cache_dir: where `"auto"` remembers what it measured; None for nowhere.

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
        if not isinstance(size, int) or size < 1:
            raise ValueError(
                f"`batch_sizes` must be positive whole numbers. Received: batch_sizes={list(batch_sizes)!r}. "
                "Leave it out if unsure."
            )
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
        self._logit_bias = 0.0 if bias is None else float(keras.ops.convert_to_numpy(bias))
        core_count, part_count = usable_cores(), parts()
        choices = Choices(cache_dir, self.config.to_dict(), core_count)
        options = (engine, candidates, choices, core_count)
        normalization = None if processor is None else processor.image_processor.scale_and_shift()
        image, text = model.image_encoder, model.text_encoder
        images: Any = _image_function(image)
        if is_plain(image):
            images = image_weights(image, normalization, part_count, keep_model)
        texts: Any = _text_function(text)
        if is_plain(text):
            texts = text_weights(text, part_count, keep_model, in_strips=_in_strips(engine, candidates))
        vision, longest = self.config.vision_config, self.config.text_config.max_position_embeddings
        self._image_shape = (vision.image_size, vision.image_size, vision.num_channels)
        kinds = {"float32": tf.float32} if normalization is None else {"float32": tf.float32, "uint8": tf.uint8}
        self._encoders = {
            name: Encoder(ImageWork(f"images {name}", images, normalization, self._image_shape, dtype), *options)
            for name, dtype in kinds.items()
        }
        self._encoders["text"] = Encoder(
            TextWork("texts", texts, self.config.text_config.vocab_size, longest), *options
        )

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
        """Compares texts with images, as `CLIPModel` does.

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
        logits = (text_embeds @ image_embeds.T * scale + np.float32(self._logit_bias)).astype(np.float32)
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
        starts = range(0, len(images), most)
        return self._stacked(
            [encode(images[start : start + most], len(images[start : start + most])) for start in starts]
        )

    def get_text_features(self, input_ids: Any, attention_mask: Any = None) -> np.ndarray:
        """Encodes texts, **not** to unit length; see `encode_text`."""
        ids = np.asarray(input_ids)
        mask = None if attention_mask is None else np.asarray(attention_mask)
        self._require_texts(ids, mask)
        features = np.empty((len(ids), self.config.projection_dim), np.float32)
        if not len(ids):
            return features
        encoder = self._encoders["text"]
        texts = cut_texts(ids, mask, self.config.text_config.eos_token_id)
        if len(ids) == 1:
            return encoder(texts, 1)  # not sorted with nothing, which takes longer than one thinks
        # Programs of a fixed size hold fewer texts than a graph of any size does well with.
        for rows in groups_of(texts, _MOST_TEXTS if encoder.takes_any_size else BATCH_SIZES[-1]):
            features[rows] = encoder(texts.take(rows), len(rows))
        return features

    @property
    def chosen(self) -> dict[str, dict[tuple[int, ...], str]]:
        """What `"auto"` chose so far: for each kind of work, the engine at each size."""
        return {name: dict(encoder.chosen) for name, encoder in self._encoders.items()}

    @property
    def traces(self) -> int:
        """How many graphs were traced so far; it stays when sizes come again."""
        return sum(encoder.traces for encoder in self._encoders.values())

    def _prepare(self, size: int) -> None:
        # Larger ones are cut into full batches, and a rest.
        sizes = {min(size, BATCH_SIZES[-1]), size % BATCH_SIZES[-1]} - {0}
        text = self.config.text_config
        longest = text.max_position_embeddings
        lengths = {min(length, longest) for length in (*TEXT_LENGTHS, longest)}
        for count in sizes:
            for dtype in self._encoders.keys() - {"text"}:
                self.get_image_features(np.zeros((count, *self._image_shape), dtype))
            for length in lengths:
                ids = np.zeros((count, length), np.int32)
                ids[:, -1] = min(text.eos_token_id, text.vocab_size - 1)
                self.get_text_features(ids)

    def _stacked(self, rows: list[np.ndarray]) -> np.ndarray:
        return np.concatenate([np.empty((0, self.config.projection_dim), np.float32), *rows])

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
        text = self.config.text_config
        longest = text.max_position_embeddings
        if ids.ndim != 2 or not 0 < ids.shape[1] <= longest or not np.issubdtype(ids.dtype, np.integer):
            raise ValueError(
                f"`input_ids` must be whole numbers of shape [m, 1 to {longest}]. "
                f"Received: {ids.dtype} of shape {list(ids.shape)}. Let the processor make them."
            )
        if mask is not None and mask.shape != ids.shape:
            raise ValueError(
                f"`attention_mask` must have the shape of `input_ids`, {list(ids.shape)}. "
                f"Received: shape {list(mask.shape)}. Let the processor make both."
            )
        if ids.size and not 0 <= ids.min() <= ids.max() < text.vocab_size:
            raise ValueError(
                f"`input_ids` must be from 0 to {text.vocab_size - 1}, the model's vocabulary. "
                f"Received: {ids.min()} to {ids.max()}. Take the tokenizer of its checkpoint."
            )


def _require_kinds(model: TwoTowerModel, processor: Processor | None) -> None:
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "Keras's backend must be tensorflow to compile a model for inference. "
            f"Received: {keras.backend.backend()!r}. Set KERAS_BACKEND=tensorflow, and load the model again."
        )
    if not isinstance(model, TwoTowerModel) or not isinstance(processor, Processor | None):
        raise TypeError(
            "`model` and `processor` must be a CLIPModel and its CLIPProcessor or None. "
            f"Received: {type(model).__name__} and {type(processor).__name__}. Load both with from_pretrained."
        )


def _require_engines(engine: str, candidates: Sequence[str]) -> None:
    if engine not in (*ENGINES, "auto"):
        raise ValueError(
            f"`engine` must be one of {', '.join(ENGINES)} or auto. Received: engine={engine!r}. "
            'Use "tensorflow" if unsure.'
        )
    if isinstance(candidates, str) or not candidates or not set(candidates) <= set(ENGINES):
        raise ValueError(
            f"`candidates` must be some of {', '.join(ENGINES)}. Received: candidates={candidates!r}. "
            "Leave it out if unsure."
        )
    if engine == "litert" or (engine == "auto" and "litert" in candidates):
        require_litert()


def _in_strips(engine: str, candidates: Sequence[str]) -> bool:
    """Says whether a text tower's kernels are to be: compilers are slower with them."""
    engines = candidates if engine == "auto" else (engine,)
    return "tensorflow" in engines and not has_gpu() and multiplies_with_onednn()


def _image_function(tower: Any) -> Any:
    return lambda images: tower(images, training=False).image_embeds


def _text_function(tower: Any) -> Any:
    return lambda input_ids, mask: tower(input_ids, attention_mask=mask, training=False).text_embeds
