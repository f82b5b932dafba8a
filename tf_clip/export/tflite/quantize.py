"""Functions to a .tflite file by a recipe: TensorFlow's converter, and for 4 bits AI Edge Quantizer."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_clip.export.tflite.file import converted
from tf_clip.export.tflite.graph import Signatures
from tf_clip.export.tflite.recipes import Recipe
from tf_clip.export.tflite.runtime import require_litert
from tf_clip.export.weights import StoredWeights
from tf_clip.preprocessing.images.opening import open_image
from tf_clip.preprocessing.processor import Processor

_BLOCK = 32
"""How many 4-bit weights share a scale."""


class Calibration:
    """Examples of images and texts, from which the ranges of activations are taken.

    Args:
        processor: the model's processor.
        images: what the processor opens: paths, PIL images, files' bytes or uint8 pixels.
        texts: strings.
    """

    def __init__(self, processor: Processor, images: Sequence[Any], texts: Sequence[str]) -> None:
        self._processor = processor
        self._images, self._texts = images, texts

    def inputs_of(self, signatures: Signatures) -> Callable[[], Iterator[tuple[str, dict[str, np.ndarray]]]]:
        """Returns a function that gives inputs of each signature that has a tower.

        Raises:
            ValueError: there are no images, or no texts, that a signature could be given.
        """
        takes = {
            name: {spec.name: spec for spec in function.structured_input_signature[0]}
            for name, function in signatures.items()
        }
        images = [name for name, specs in takes.items() if "image_pixels" in specs]
        lengths = {name: specs["input_ids"].shape[1] for name, specs in takes.items() if "input_ids" in specs}
        rows = [(name, {"image_pixels": pixels}) for pixels in self._pixels(images) for name in images]
        # A longer text, cut, would have no end.
        rows += [
            (name, {key: tokens[key][:, :length] for key in takes[name]})
            for tokens in self._tokens(lengths)
            for name, length in lengths.items()
            if tokens["attention_mask"].sum() <= length
        ]
        missing = sorted({*images, *lengths} - {name for name, _ in rows})
        if missing:
            argument = "calibration_images" if missing[0] in images else "calibration_texts"
            raise ValueError(
                f"`{argument}` must be given for quantization='int8', for every signature. Received: none for "
                f"{', '.join(missing)}. Pass some hundred of the kind that the file will see, or take dynamic_int8."
            )
        return lambda: iter(rows)

    def _pixels(self, names: Sequence[str]) -> Iterator[np.ndarray]:
        if names:
            for index, image in enumerate(self._images):
                yield model_pixels(self._processor, image, index)

    def _tokens(self, lengths: dict[str, int]) -> Iterator[dict[str, np.ndarray]]:
        if lengths and self._texts:
            tokens = self._processor.tokenizer(
                list(self._texts), padding="max_length", max_length=max(lengths.values()), return_tensors="np"
            )
            for row in range(len(self._texts)):
                yield {name: values[row : row + 1].astype(np.int32) for name, values in tokens.items()}


def model_pixels(processor: Processor, image: Any, index: int) -> np.ndarray:
    """Opens an image, and resizes it as the processor does, uint8 `[1, side, side, 3]`."""
    opened = image if isinstance(image, np.ndarray) else open_image(image, index=index)
    levels = processor.image_processor(opened, do_rescale=False, do_normalize=False, return_tensors="np")
    pixels: np.ndarray = levels["pixel_values"].astype(np.uint8)
    return pixels


def quantized(signatures: Signatures, weights: StoredWeights, recipe: Recipe, calibration: Calibration) -> bytes:
    """Makes a file of functions as a recipe says.

    Raises:
        ImportError: AI Edge Quantizer is not installed, and the recipe needs it.
        ValueError: the converter fails, or there is nothing to calibrate with.
    """
    if recipe.weight_bits == 4:
        return _in_4_bits(converted(signatures, weights), weights)
    inputs = calibration.inputs_of(signatures) if recipe.is_static else None

    def set_up(converter: tf.lite.TFLiteConverter) -> None:
        if recipe.weight_bits < 32:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if recipe.weight_bits == 16:
            converter.target_spec.supported_types = [tf.float16]
        if inputs is not None:
            converter.representative_dataset = inputs
            # Resizing and tokenizing are not calibrated, and stay as they are.
            converter.target_spec.supported_ops = [
                tf.lite.OpsSet.TFLITE_BUILTINS_INT8,
                tf.lite.OpsSet.TFLITE_BUILTINS,
            ]

    return converted(signatures, weights, set_up)


def _in_4_bits(file: bytes, weights: StoredWeights) -> bytes:
    """Stores the weights of dense layers in 4 bits, and those of convolutions in 8, as they lose too much in 4."""
    require_litert("ai_edge_quantizer")
    from ai_edge_quantizer import qtyping, quantizer, recipe_manager

    recipe = recipe_manager.RecipeManager()
    operations, granularity = qtyping.TFLOperationName, qtyping.QuantGranularity
    in_blocks = all(width % _BLOCK == 0 for width in _input_widths(weights))
    recipe.add_dynamic_config(regex=".*", operation_name=operations.CONV_2D, num_bits=8)
    recipe.add_dynamic_config(
        regex=".*",
        operation_name=operations.FULLY_CONNECTED,
        num_bits=4,
        granularity=granularity.BLOCKWISE_32 if in_blocks else granularity.CHANNELWISE,
    )
    # The quantizer prints its progress.
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        result = quantizer.Quantizer(bytearray(file), recipe.get_quantization_recipe()).quantize()
    return bytes(result.quantized_model)


def _input_widths(weights: StoredWeights) -> Iterator[int]:
    """Yields how many inputs the dense layers have; those of several heads have more than two axes."""
    for path, variable in weights.variables.items():
        if path.endswith("kernel") and len(variable.shape) in (2, 3):
            yield from (variable.shape[0], math.prod(variable.shape[:-1]))
