"""Clients that keep a server busy, and compare each answer with what the Python model says."""

from __future__ import annotations

import dataclasses
import io
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tf_clip import CLIPModel, CLIPProcessor, class_embeddings, class_probabilities, embed_images, embed_texts
from tf_clip.client import RestClient

TOLERANCE = 1e-5
IMAGES, BAD_EVERY = 48, 50
PATIENCE = 120.0  # seconds that a call may take with its retries: a restart takes some


@dataclasses.dataclass(frozen=True)
class Sample:
    """One call: when it began and ended, what was asked, and what was wrong with the answer, if anything was."""

    begin: float
    end: float
    kind: str
    rows: int
    wrong: str = ""
    lost: str = ""


class Questions:
    """Images and texts with the Python model's answers.

    Args:
        name: the model's name or folder.
        examples: the folder with chosen to vary, labels and sentences.
    """

    def __init__(self, name: str, examples: Path) -> None:
        self.labels = (examples / "labels.txt").read_text("utf-8").split("\n")
        self.labels = [label for label in self.labels if label]
        words = [line for line in (examples / "sentences.txt").read_text("utf-8").split("\n") if line]
        self.texts = [*words, *self.labels, *(f"{first} beside {last}" for first in self.labels[:6] for last in words)]
        self.files = _images(sorted(examples.glob("*.png")))
        model, processor = CLIPModel.from_pretrained(name), CLIPProcessor.from_pretrained(name)
        self.image_embeds = embed_images(model, processor, self.files).embeds
        self.text_embeds = embed_texts(model, processor, self.texts)
        scale = float(model.logit_scale.numpy())
        classes = class_embeddings(model, processor, self.labels)
        self.probabilities = class_probabilities(self.image_embeds, classes, scale)
        self.logits = np.exp(scale) * self.image_embeds @ self.text_embeds.T

    def ask(self, client: RestClient, chance: random.Random) -> tuple[str, int, str]:
        """Makes one call and returns its kind, its rows, and what was wrong with the answer."""
        kind = chance.choices(("encode_image", "encode_text", "classify", "similarity_pairs"), (55, 20, 20, 5))[0]
        chosen = chance.sample(range(len(self.files)), 1 if kind != "similarity_pairs" else 2)
        texts = chance.sample(range(len(self.texts)), chance.randint(1, 4) if kind == "encode_text" else 2)
        files = [self.files[index] for index in chosen]
        if kind == "encode_text":
            result = client.encode_texts([self.texts[index] for index in texts])
            return kind, len(texts), _compared(result.embeds, self.text_embeds[texts], result.status)
        if kind == "similarity_pairs":
            pairs = client.similarity_pairs(files, [self.texts[index] for index in texts])
            # Logits are as far apart as the temperature makes them.
            expected = self.logits[chosen, texts]
            return kind, 2, _compared(pairs.logits / 100, expected / 100, pairs.status)
        if chance.randrange(BAD_EVERY) == 0:
            bad = client.encode_images([files[0][: len(files[0]) // 2]])
            is_told = bad.status != ["ok"] and not bad.embeds.any()
            return "a broken file", 1, "" if is_told else f"a broken file is {bad.status}"
        if kind == "encode_image":
            embedded = client.encode_images(files)
            return kind, 1, _compared(embedded.embeds, self.image_embeds[chosen], embedded.status)
        classes = client.classify(files)
        best = self.labels[int(np.argmax(self.probabilities[chosen[0]]))]
        if classes.labels[0][0] != best:
            return kind, 1, f"the label {classes.labels[0][0]}, and not {best}"
        return kind, 1, _compared(classes.probabilities, self.probabilities[chosen], classes.status)


def _compared(received: np.ndarray, expected: np.ndarray, status: list[str]) -> str:
    if any(one != "ok" for one in status):
        return f"the status {status}"
    if received.shape != expected.shape:
        return f"the shape {received.shape}, and not {expected.shape}"
    difference = float(np.abs(received - expected).max())
    return "" if difference <= TOLERANCE else f"a difference of {difference:.1e}"


def _images(paths: list[Path]) -> list[bytes]:
    """Returns JPEG files of several sizes, turned and cut from the images given."""
    chance = random.Random(0)
    files = []
    for index in range(IMAGES):
        with Image.open(paths[index % len(paths)]) as opened:
            image = opened.convert("RGB").rotate(90 * (index // len(paths)))
        image = image.resize((chance.randint(200, 640), chance.randint(200, 640)))
        file = io.BytesIO()
        image.save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    return files


class Load:
    """A number of clients, each with one call under way at a time, until `stop`.

    Args:
        questions: what they ask.
        url: of the server.
        clients: how many.
    """

    def __init__(self, questions: Questions, url: str, clients: int) -> None:
        self.samples: list[Sample] = []
        self._questions, self._url = questions, url
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        chance = random.Random(number)
        with RestClient(self._url, retries=30, deadline=PATIENCE, timeout=20) as client:
            while not self._ended.is_set():
                self.samples.append(_timed(lambda: self._questions.ask(client, chance)))


def _timed(ask: Callable[[], tuple[str, int, str]]) -> Sample:
    begin = time.monotonic()
    try:
        kind, rows, wrong = ask()
    except Exception as error:  # whatever it is, it is counted and the run goes on
        return Sample(begin, time.monotonic(), "lost", 0, lost=f"{type(error).__name__}: {error}")
    return Sample(begin, time.monotonic(), kind, rows, wrong)
