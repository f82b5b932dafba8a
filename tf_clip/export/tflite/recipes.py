"""How the numbers of a .tflite file are stored, and how near to the model its answers must stay."""

from __future__ import annotations

from typing import NamedTuple

from tf_clip.export.tflite.check import Tolerance


class Recipe(NamedTuple):
    """One way to store a model.

    Args:
        weight_bits: of the weights.
        table_bits: of the vocabulary's rows, each of which has a scale of its own.
        tolerance: how far the file's answers may be from the model's, on noise and odd texts. It is there to find
            broken files; how good a recipe is, `litert_report` says.
        is_static: whether activations are integers, too, of ranges that calibration finds.
    """

    weight_bits: int
    table_bits: int
    tolerance: Tolerance
    is_static: bool = False


RECIPES = {
    "float32": Recipe(32, 32, Tolerance(embeds=1e-5, cosine=0.99999, probabilities=1e-4)),
    "float16": Recipe(16, 16, Tolerance(embeds=0.01, cosine=0.999, probabilities=0.05)),
    "dynamic_int8": Recipe(8, 8, Tolerance(embeds=0.1, cosine=0.98, probabilities=0.3)),
    "int4": Recipe(4, 8, Tolerance(embeds=0.3, cosine=0.9, probabilities=0.6)),
    # Noise and odd texts are far from what it was calibrated with.
    "int8": Recipe(8, 8, Tolerance(embeds=0.6, cosine=0.75, probabilities=0.9), is_static=True),
}


def recipe_of(quantization: str) -> Recipe:
    """Returns a recipe by its name.

    Raises:
        ValueError: there is none of this name.
    """
    if quantization not in RECIPES:
        raise ValueError(
            f"`quantization` must be one of {', '.join(RECIPES)}. Received: quantization={quantization!r}. "
            "Choose dynamic_int8 if unsure."
        )
    return RECIPES[quantization]
