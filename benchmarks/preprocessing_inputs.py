"""Captions and images for the benchmark of preprocessing, the same on both sides."""

from __future__ import annotations

import gzip
import importlib.metadata
import io
import random
from pathlib import Path

import numpy as np
from PIL import Image

from tf_clip import CLIPTokenizer
from tf_clip.preprocessing.text.byte_pair_encoding import byte_symbols

CAPTIONS = 10_000
SINGLE = "A photo of two cats, asleep on a couch."
NEW_WORD = "A photo of a labradoodlish dog."
IMAGES = {(480, 640): 16, (3000, 4000): 4}
"""From height and width to how many are prepared in one call."""


def captions() -> list[str]:
    """Returns sentences of 6 to 14 words, from what installed packages say about themselves."""
    words = [
        word
        for package in sorted(importlib.metadata.distributions(), key=lambda found: found.metadata["Name"] or "")
        for word in str(package.metadata.get_payload() or "").split()
    ]
    generator = random.Random(0)
    starts = [generator.randrange(len(words) - 14) for _ in range(CAPTIONS)]
    return [" ".join(words[start : start + generator.randint(6, 14)]) for start in starts]


def photographs(height: int, width: int) -> list[np.ndarray]:
    """Returns decoded images, uint8 `[height, width, 3]`: smooth shapes, edges and a camera's noise."""
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    made = []
    for index in range(IMAGES[height, width]):
        waves = [128 + 90 * np.sin(rows / (20 + 7 * index) + k) * np.cos(columns / (31 + k)) for k in range(3)]
        image = np.stack(waves, axis=-1) + 60 * ((rows + 2 * columns) % 400 > 200)[..., np.newaxis]
        noise = generator.normal(0, 6, (height, width, 1)).astype(np.float32)
        made.append(np.clip(image + noise, 0, 255).astype(np.uint8))
    return made


def as_jpeg(image: np.ndarray) -> bytes:
    """Returns a file's bytes, as a camera would write them."""
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "JPEG", quality=90)
    return stream.getvalue()


def tokenizer() -> CLIPTokenizer:
    """Returns CLIP's own tokenizer, from the data file of a wheel that has it."""
    (archive,) = [
        file.locate()
        for file in importlib.metadata.files("open-clip-torch") or []
        if file.name == "bpe_simple_vocab_16e6.txt.gz"
    ]
    with gzip.open(str(archive), "rt", encoding="utf-8", newline="\n") as file:
        merges = [tuple(line.split(" ")) for line in file.read().split("\n")[1:48895]]
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    symbols = byte_symbols()
    letters = [symbols[byte] for byte in sorted(range(256), key=lambda byte: (byte not in printable, byte))]
    names = [*letters, *(letter + "</w>" for letter in letters), *map("".join, merges)]
    names += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer({name: index for index, name in enumerate(names)}, merges)


def write_all(folder: Path) -> None:
    """Writes everything, so that all processes read the same."""
    tokenizer().save_pretrained(folder)
    (folder / "captions.txt").write_text("\n".join(captions()), "utf-8")
    for height, width in IMAGES:
        images = photographs(height, width)
        np.save(folder / f"{height}.npy", np.stack(images))
        for index, image in enumerate(images):
            (folder / f"{height}-{index}.jpg").write_bytes(as_jpeg(image))
