"""How the numbers of a .tflite file are stored, and how near to the model its answers must stay."""

from __future__ import annotations

from typing import NamedTuple

from tf_clip.export.litert_check import Tolerance


class Recipe(NamedTuple):
    """One way to store a model.

    Args:
        tolerance: how far the file's answers may be from the model's.
    """

    tolerance: Tolerance


RECIPES = {
    "float32": Recipe(Tolerance(embeds=1e-5, cosine=0.99999, probabilities=1e-4)),
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
