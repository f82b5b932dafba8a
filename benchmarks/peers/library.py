"""What a library's side of the benchmark looks like, and the inputs that all libraries read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

Call = Callable[[], Any]
"""Does a piece of work once and returns its result as an array, so that nothing of it is still to be done."""
LEARNING_RATE = 1e-5
MATMUL_SIDE = 2048
CHOICES = "choices"
"""The folder, beside the inputs, where tf_clip remembers which engine it found the fastest."""


class Inputs:
    """What `inputs.py` wrote.

    Args:
        folder: where it did.
    """

    def __init__(self, folder: Path) -> None:
        with np.load(folder / "inputs.npz") as file:
            self._arrays = dict(file)
        self.folder = folder
        self.class_embeds: np.ndarray = self._arrays["class_embeds"]
        self.strings = (folder / "captions.txt").read_text("utf-8").splitlines()

    def pixels(self, count: int, *, channels_first: bool = False) -> np.ndarray:
        """Returns normalized images, float32."""
        pixels = self._arrays["pixel_values"][:count]
        return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)) if channels_first else pixels

    def tokens(self, count: int, length: int | None = None, padding: int | None = None) -> dict[str, np.ndarray]:
        """Returns `input_ids` and `attention_mask`, int32.

        Args:
            count: how many captions.
            length: what they are padded to; None takes the longest of them.
            padding: the id that pads; None takes that of the end, as CLIP's tokenizer does.
        """
        ids, mask = self._arrays["input_ids"][:count], self._arrays["attention_mask"][:count]
        longest = int(mask.sum(1).max())
        extra = [(0, 0), (0, (length or longest) - longest)]
        ids, mask = np.pad(ids[:, :longest], extra), np.pad(mask[:, :longest], extra)
        end = int(self._arrays["input_ids"].max())
        return {
            "input_ids": np.where(mask == 1, ids, end if padding is None else padding).astype(np.int32),
            "attention_mask": mask,
        }

    def files(self, count: int) -> list[bytes]:
        """Returns images as JPEG bytes."""
        return [(self.folder / "images" / f"{index}.jpg").read_bytes() for index in range(count)]


class Library:
    """A library with the weights loaded. A subclass has a method for each kind of work that it can do.

    Each method takes the numbers of images and texts, and returns a `Call`: `image` and `text` to features of any
    length, `joint` and `end_to_end` to `logits_per_image`, `zero_shot` to probabilities, `training` to the loss before
    the step, `matmul` to nothing that is looked at.

    Args:
        inputs: what all libraries read.
        mode: which one of the ways in which the library can run.
    """

    imports: ClassVar[tuple[str, ...]]
    """What a user of the library imports, which is timed."""

    def __init__(self, inputs: Inputs, mode: str) -> None:
        self.inputs, self.mode = inputs, mode

    @classmethod
    def prepare_imports(cls) -> None:
        """Makes the imports possible."""

    @classmethod
    def warm_up(cls, mode: str) -> None:
        """Starts what starts at the first use, so that loading is measured without it."""

    @classmethod
    def kinds(cls, mode: str) -> list[str]:
        """Returns what the library can do in a mode."""
        known = ("image", "text", "joint", "end_to_end", "zero_shot", "training", "matmul")
        return [kind for kind in known if hasattr(cls, kind)]

    def load(self) -> None:
        """Reads the checkpoint."""


class EncodersApart(Library):
    """A library whose encoders are called one after the other; `load` sets `_scale`, the temperature's factor."""

    _scale: float

    def joint(self, images: int, texts: int) -> Call:
        """Compares images and captions."""
        image, text = self.image(images, 0), self.text(0, texts)
        return lambda: similarities(image(), text(), self._scale)

    def zero_shot(self, images: int, texts: int) -> Call:
        """Names images."""
        image = self.image(images, 0)
        return lambda: probabilities(image(), self.inputs.class_embeds)


def probabilities(features: np.ndarray, class_embeds: np.ndarray) -> np.ndarray:
    """Returns the classes' probabilities, for libraries that have no function of their own for them."""
    logits = 100.0 * (features / np.linalg.norm(features, axis=1, keepdims=True)) @ class_embeds.T
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponentials / exponentials.sum(axis=1, keepdims=True)


def similarities(image_features: np.ndarray, text_features: np.ndarray, scale: float) -> np.ndarray:
    """Returns `logits_per_image`, for libraries that encode alone."""
    images, texts = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (image_features, text_features))
    return scale * images @ texts.T
