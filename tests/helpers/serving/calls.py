"""What every runtime is asked, and what the Python model answers to it, row by row."""

from __future__ import annotations

import functools
import io
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from helpers import ROOT

IMAGES = ROOT / "examples" / "images"
# As docs/local_server.md exports.
LABELS = (IMAGES / "labels.txt").read_text(encoding="utf-8").splitlines()
TOP_K = 5

NOT_AN_IMAGE = "not a JPEG, PNG, WebP or GIF file"
TOO_MANY_PIXELS = "more than 89478485 pixels"
BROKEN = "the file is broken or cut short"
TOO_LONG = "more than 65536 bytes of text"


def in_format(name: str, file_format: Any, mode: Any = "RGB", **options: Any) -> Any:
    file = io.BytesIO()
    Image.open(IMAGES / f"{name}.png").convert("RGBA").convert(mode).save(file, file_format, **options)
    return file.getvalue()


OWL = (IMAGES / "owl.png").read_bytes()
BUS = in_format("bus", "JPEG", quality=90)
CUT = BUS[: len(BUS) // 2]
# A header alone: 40 000 x 40 000 pixels, which would be 4.8 GB.
HUGE = OWL[:16] + (40_000).to_bytes(4, "big") * 2 + OWL[24:]
GOOD_IMAGES = [
    OWL,
    BUS,
    in_format("castle", "WEBP", lossless=True),
    in_format("rocket", "GIF", "P"),
    in_format("elephant", "PNG", "L"),
    in_format("pizza", "JPEG", "L", progressive=True),
]
BAD_IMAGES = {
    1: (CUT, BROKEN),
    2: (b"", NOT_AN_IMAGE),
    4: (b"no image", NOT_AN_IMAGE),
    5: (HUGE, TOO_MANY_PIXELS),
}
TEXTS = [
    b"an owl",
    b"",
    b"A photo of a CASTLE &amp; a moat, 1900",
    "ein Bär, два кота, 自行車 🦉".encode(),
    b"\xff\xfe is no UTF-8",
    b"so many words " * 40,
]


@dataclass(frozen=True)
class Call:
    """One request.

    Args:
        signature: which one it asks for.
        inputs: an array for each input.
        bad: for an input, why its bad rows are bad.
    """

    signature: str
    inputs: dict[str, np.ndarray]
    bad: dict[str, dict[int, str]] = field(default_factory=dict)


def strings(rows: Any) -> Any:
    return np.array([*rows, None], object)[:-1]


def images(rows: Any) -> Any:
    return {"image_bytes": strings(rows)}


def texts(rows: Any) -> Any:
    return {"text": strings(rows)}


def with_bad_images(good: Any, bad: Any) -> Any:
    """Returns images with bad ones at their places, and why each of those is bad."""
    rows = list(good)
    for index, (data, _) in bad.items():
        rows.insert(index, data)
    return rows, {index: why for index, (_, why) in bad.items()}


def calls(processor: Any) -> Any:
    """Returns what is asked of an exported model with this processor, by the calls' names."""
    generator = np.random.default_rng(0)
    mixed, why = with_bad_images(GOOD_IMAGES[:3], BAD_IMAGES)
    many = [OWL, BUS] * 32
    many[17] = CUT
    megabyte = [b"an owl", b"a" * 2**20, b"a bus"]
    ids = processor.tokenizer(["an owl", "a red bicycle by the sea"])["input_ids"].numpy()
    unknown = ids.copy()
    unknown[0, 1] = processor.tokenizer.vocab_size
    no_id = f"a token id outside 0..{processor.tokenizer.vocab_size - 1}"
    pixels = generator.integers(0, 256, (2, 47, 30, 3)).astype("uint8")
    found = {
        "every format": Call("encode_image", images(GOOD_IMAGES)),
        "one image": Call("encode_image", images([OWL])),
        "bad images among good": Call("encode_image", images(mixed), {"image_bytes": why}),
        "bad images alone": Call("encode_image", images([CUT, b""]), {"image_bytes": {0: BROKEN, 1: NOT_AN_IMAGE}}),
        "a cut JPEG among 64": Call("encode_image", images(many), {"image_bytes": {17: BROKEN}}),
        "pixels": Call("encode_image_pixels", {"image_pixels": pixels}),
        "texts": Call("encode_text", texts(TEXTS)),
        "a text of a megabyte": Call("encode_text", texts(megabyte), {"text": {1: TOO_LONG}}),
        "token ids": Call("encode_tokens", {"input_ids": ids}),
        "an unknown token id": Call("encode_tokens", {"input_ids": unknown}, {"input_ids": {0: no_id}}),
        "classes": Call("classify", images(mixed), {"image_bytes": why}),
        "the default": Call("serving_default", images(GOOD_IMAGES)),
    }
    both = {"image_bytes": why, "text": {1: TOO_LONG}}
    found["all with all"] = Call("similarity", images(mixed) | texts(megabyte), both)
    both = {"image_bytes": why, "text": {6: TOO_LONG}}
    found["pairs"] = Call("similarity_pairs", images(mixed) | texts([*TEXTS, b"a" * 2**17]), both)
    return found


class PythonModel:
    """The answers of the Python model: each row prepared and encoded by itself, so that no other can matter.

    Args:
        model: the model that was exported.
        processor: its processor.
    """

    def __init__(self, model: Any, processor: Any) -> None:
        from tf_clip import class_embeddings

        self.model, self.processor = model, processor
        self.scale = float(np.exp(model.logit_scale.numpy()))
        # The same few rows are in many calls.
        self._of_file = functools.cache(self._of_file)  # type: ignore[method-assign]
        self._of_text = functools.cache(self._of_text)  # type: ignore[method-assign]
        self.classes = class_embeddings(model, processor, LABELS)

    def answer(self, call: Any) -> Any:
        """Returns the outputs that every runtime must give."""
        return getattr(self, f"_{call.signature}")(call)

    def _encode_image(self, call: Any) -> Any:
        embeds, status = self._rows(call, "image_bytes", self._of_file)
        return {"image_embeds": embeds, "status": status}

    def _encode_image_pixels(self, call: Any) -> Any:
        return {"image_embeds": np.stack([self._of_pixels(row) for row in call.inputs["image_pixels"]])}

    def _encode_text(self, call: Any) -> Any:
        embeds, status = self._rows(call, "text", self._of_text)
        return {"text_embeds": embeds, "status": status}

    def _encode_tokens(self, call: Any) -> Any:
        embeds, status = self._rows(call, "input_ids", self._of_ids)
        return {"text_embeds": embeds, "status": status}

    def _classify(self, call: Any) -> Any:
        embeds, status = self._rows(call, "image_bytes", self._of_file)
        usable = (status == b"ok")[:, None]
        probabilities = softmax(self.scale * embeds @ self.classes.T) * usable
        best = np.argsort(-probabilities, axis=1, kind="stable")[:, :TOP_K]
        labels = np.array([label.encode() for label in LABELS], object)[best]
        return {
            "labels": np.where(usable, labels, b""),
            "scores": np.take_along_axis(probabilities, best, 1),
            "probabilities": probabilities,
            "status": status,
        }

    _serving_default = _classify

    def _similarity(self, call: Any) -> Any:
        images, image_status = self._rows(call, "image_bytes", self._of_file)
        texts_of, text_status = self._rows(call, "text", self._of_text)
        logits = self.scale * images @ texts_of.T
        usable = (image_status == b"ok")[:, None] & (text_status == b"ok")
        probabilities = softmax(np.where(text_status == b"ok", logits, -np.inf))
        return {
            "logits_per_image": logits,
            "probabilities": np.where(usable, probabilities, 0),
            "image_status": image_status,
            "text_status": text_status,
        }

    def _similarity_pairs(self, call: Any) -> Any:
        images, image_status = self._rows(call, "image_bytes", self._of_file)
        texts_of, text_status = self._rows(call, "text", self._of_text)
        status = np.where(image_status == b"ok", text_status, image_status)
        return {"logits": self.scale * (images * texts_of).sum(1), "status": status}

    def _rows(self, call: Any, name: str, embed: Any) -> Any:
        bad = call.bad.get(name, {})
        count = len(call.inputs[name])
        nothing = np.zeros(self.model.config.projection_dim, "float32")
        rows = [nothing if row in bad else embed(call.inputs[name][row]) for row in range(count)]
        return np.stack(rows), strings([bad.get(row, "ok").encode() for row in range(count)])

    def _of_file(self, data: bytes) -> Any:
        return self._of_values(self.processor(images=[data])["pixel_values"])

    def _of_pixels(self, pixels: Any) -> Any:
        return self._of_values(self.processor(images=pixels)["pixel_values"])

    def _of_values(self, pixel_values: Any) -> Any:
        return unit(self.model.get_image_features(pixel_values).numpy()[0])

    def _of_text(self, text: str) -> Any:
        return self._of_ids(self.processor.tokenizer(tf.constant([text]))["input_ids"][0])

    def _of_ids(self, ids: Any) -> Any:
        return unit(self.model.get_text_features(tf.convert_to_tensor(ids)[tf.newaxis]).numpy()[0])


def unit(row: int) -> Any:
    return row / np.linalg.norm(row)


def softmax(logits: Any) -> Any:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)
