"""Inputs for both sides: texts padded in every way, images, positions."""

from __future__ import annotations

from typing import Any

import numpy as np

from tf_clip import CLIPConfig


def make_inputs(
    config: dict[str, Any], padding: str = "right", images: int = 4, seed: int = 0, sides: tuple[int, int] | None = None
) -> dict[str, np.ndarray]:
    """Makes four texts, from the shortest to the longest there is, and any number of images.

    Args:
        config: a parsed config.json of a whole model.
        padding: "right", "left", or "none" for no mask and a text that does not end.
        images: number of images.
        seed: of the random numbers.
        sides: height and width of the images; None takes the model's.
    """
    whole = CLIPConfig.from_dict(config)
    text, vision = whole.text_config, whole.vision_config
    generator = np.random.default_rng(seed)
    start, end = text.vocab_size - 2, text.vocab_size - 1  # the end has the highest id in every CLIP vocabulary
    length = text.max_position_embeddings
    lengths = np.linspace(3, length, 4).astype(int)
    ids = generator.integers(3, start, (4, length))
    mask = np.zeros_like(ids)
    for row, kept, count in zip(ids, mask, lengths, strict=True):
        row[0], row[count - 1] = start, end
        row[count:] = 0 if text.eos_token_id == 2 else end  # that the first end counts shows only in such padding
        kept[:count] = 1
        if padding == "left":
            row[count:] = 0
            row[:], kept[:] = np.roll(row, -count), np.roll(kept, -count)
    inputs = {"input_ids": ids.astype("int32")}
    if padding == "none":
        inputs["input_ids"][-1, -1] = 5
    else:
        inputs["attention_mask"] = mask.astype("int32")
    height, width = sides or (vision.image_size, vision.image_size)
    return {**inputs, "pixel_values": generator.normal(size=(images, height, width, 3)).astype("float32")}
