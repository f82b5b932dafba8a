"""`LiteRTModel`: the files that `litert` wrote, run in Python."""

from __future__ import annotations

import functools
import importlib.util
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

DESCRIPTION = "tf_clip.json"
"""The name, inside a file, of what tells programs what it is."""


def require_litert(*modules: str) -> None:
    """Checks that LiteRT is installed.

    Args:
        modules: what else is needed of the extra.

    Raises:
        ImportError: something is not.
    """
    for module in ("ai_edge_litert", *modules):
        if importlib.util.find_spec(module) is None:
            raise ImportError(
                f"LiteRT files need {module.replace('_', '-')}, which is not installed. "
                "Install the extra: pip install 'tf_clip[litert]'."
            )


def description_of(file: bytes) -> dict[str, Any]:
    """Reads the description in a file.

    Raises:
        ValueError: there is none.
    """
    require_litert()
    from ai_edge_litert import schema_py_generated as schema

    if file[4:8] == b"TFL3":
        model = schema.Model.GetRootAs(file, 0)
        for index in range(model.MetadataLength()):
            entry = model.Metadata(index)
            if entry.Name() == DESCRIPTION.encode():
                return dict(json.loads(model.Buffers(entry.Buffer()).DataAsNumpy().tobytes()))
    raise ValueError(
        f"The file must be one that tf_clip.export.litert wrote. Received: {len(file)} bytes without {DESCRIPTION}. "
        "Export the model again."
    )


class LiteRTFile:
    """Runs the signatures of one .tflite file.

    Args:
        file: its path or its bytes.
        threads: how many of the processor's cores may be used.

    Attributes:
        shapes: for each signature, the shape of every input; -1 is any size.
        width: of the embeddings, 0 in a file that gives none.

    Raises:
        ImportError: LiteRT is not installed.
    """

    def __init__(self, file: Path | bytes, threads: int = 1) -> None:
        require_litert()
        from ai_edge_litert.interpreter import Interpreter

        content = {"model_content": file} if isinstance(file, bytes) else {"model_path": str(file)}
        self._file = file
        self._interpreter = Interpreter(num_threads=threads, **content)
        self._runners: dict[str, Any] = {}
        self.shapes: dict[str, dict[str, tuple[int, ...]]] = {}
        self.width = 0
        for name in self._interpreter.get_signature_list():
            runner = self._runners[name] = self._interpreter.get_signature_runner(name)
            details = runner.get_input_details()
            self.shapes[name] = {key: tuple(map(int, value["shape_signature"])) for key, value in details.items()}
            for output, value in runner.get_output_details().items():
                if output in ("image_embeds", "text_embeds"):
                    self.width = int(value["shape"][-1])

    @functools.cached_property
    def description(self) -> dict[str, Any]:
        """What the file says of itself; see `description_of`."""
        return description_of(self._file if isinstance(self._file, bytes) else self._file.read_bytes())

    def __call__(self, signature: str, **inputs: np.ndarray) -> dict[str, np.ndarray]:
        """Runs one signature.

        Raises:
            ValueError: there is no such signature, or an input has another shape. LiteRT itself would take some
                of them, and compute nonsense.
        """
        if signature not in self._runners:
            raise ValueError(
                f"`signature` must be one of {sorted(self._runners)}. Received: signature={signature!r}. Choose one."
            )
        for name, shape in self.shapes[signature].items():
            given = np.shape(inputs[name])
            if len(given) != len(shape) or any(
                got == 0 or want not in (-1, got) for got, want in zip(given, shape, strict=True)
            ):
                wanted = [size if size > 0 else "any" for size in shape]
                raise ValueError(
                    f"`{name}` must have shape {wanted} for {signature}. Received: shape {list(given)}. "
                    "Resize images, and pad token ids."
                )
        outputs: dict[str, np.ndarray] = self._runners[signature](**inputs)
        return outputs


class LiteRTModel:
    """Encodes images and texts with the files of a folder that `litert` wrote; neither Keras nor TensorFlow is used.

    Args:
        folder: the folder.
        threads: how many of the processor's cores may be used.

    Raises:
        FileNotFoundError: a file that a method needs is not in the folder.
        ImportError: LiteRT is not installed.

    Example:
        >>> model = LiteRTModel("mobile")
        >>> model.encode_texts(["an owl"]).shape
        (1, 128)
    """

    def __init__(self, folder: str | Path, *, threads: int = 1) -> None:
        self._folder, self._threads = Path(folder), threads
        self._files: dict[str, LiteRTFile] = {}

    def encode_images(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Encodes images.

        Args:
            images: uint8 `[height, width, 3]` each, of any sizes.

        Returns:
            float32 `[n, projection_dim]`, of unit length.

        Raises:
            TypeError: the pixels are not uint8.
            ValueError: an image has another shape.
        """
        file = self._file("image_encoder")
        rows = []
        for image in images:
            pixels = np.asarray(image)
            if pixels.dtype != np.uint8:
                raise TypeError(
                    f"`images` must be uint8 pixels. Received: dtype {pixels.dtype}. Decode the files to bytes."
                )
            if (1, *pixels.shape) == file.shapes["encode_pixels"]["image_pixels"]:
                answer = file("encode_pixels", image_pixels=pixels[np.newaxis])
            elif "encode_image" in file.shapes:
                answer = file("encode_image", image=pixels)
            else:
                answer = file("encode_pixels", **file("resize_image", image=pixels))
            rows.append(answer["image_embeds"])
        return _stacked(rows, file)

    def encode_texts(self, texts: Sequence[str | bytes]) -> np.ndarray:
        """Encodes texts, which are cut where the tokenizer cuts them.

        Args:
            texts: strings, or their UTF-8.

        Returns:
            float32 `[m, projection_dim]`, of unit length.
        """
        if isinstance(texts, (str, bytes)):
            raise TypeError(f"`texts` must be a sequence of texts. Received: {texts!r}. Put a single one into a list.")
        file = self._file("text_from_utf8")
        rows = []
        for text in texts:
            inputs = utf8_inputs(text, file)
            if "encode_utf8" in file.shapes:
                answer = file("encode_utf8", **inputs)
            else:
                tokens = file("tokenize", **inputs)
                answer = _encoded(file, _tokens_alone(tokens, file))
            rows.append(answer["text_embeds"])
        return _stacked(rows, file)

    def encode_ids(self, input_ids: Sequence[Sequence[int]]) -> np.ndarray:
        """Encodes token ids, each text at the shortest length that holds it.

        Args:
            input_ids: for each text its ids, from the start to the end token.

        Returns:
            float32 `[m, projection_dim]`, of unit length.

        Raises:
            ValueError: a text has no ids or too many, or ones that the model has not.
        """
        file = self._file("text_encoder")
        rows = []
        for ids in input_ids:
            answer = _encoded(file, ids)
            if not answer["is_valid"][0]:
                raise ValueError(
                    f"`input_ids` must be ids of the model's vocabulary. Received: {[int(index) for index in ids]}. "
                    "Take the tokenizer of its checkpoint."
                )
            rows.append(answer["text_embeds"])
        return _stacked(rows, file)

    def _file(self, name: str) -> LiteRTFile:
        if name not in self._files:
            path = self._folder / f"{name}.tflite"
            if not path.is_file():
                raise FileNotFoundError(
                    f"`folder` must hold {name}.tflite. Received: {self._folder}. Write it with tf_clip.export.litert."
                )
            self._files[name] = LiteRTFile(path, self._threads)
        return self._files[name]


def utf8_inputs(text: str | bytes, file: LiteRTFile) -> Mapping[str, np.ndarray]:
    """Returns the inputs of a text; bytes that the file has no room for are left out, and counted."""
    data = text.encode("utf-8", "replace") if isinstance(text, str) else text
    utf8 = np.zeros(math.prod(file.shapes["tokenize"]["utf8"]), np.uint8)
    kept = data[: len(utf8)]
    utf8[: len(kept)] = np.frombuffer(kept, np.uint8)
    return {"utf8": utf8, "length": np.array([len(data)], np.int32)}


def _tokens_alone(tokens: Mapping[str, np.ndarray], file: LiteRTFile) -> np.ndarray:
    """Returns a text's ids without padding."""
    (row,), (count,) = tokens["input_ids"], tokens["num_tokens"]
    alone: np.ndarray = row[-count:] if file.description["text"].get("padding_side") == "left" else row[:count]
    return alone


def _encoded(file: LiteRTFile, ids: Sequence[int] | np.ndarray) -> dict[str, np.ndarray]:
    """Encodes the ids of one text at the shortest length that holds them."""
    lengths = sorted(shapes["input_ids"][1] for shapes in file.shapes.values() if "input_ids" in shapes)
    if not 0 < len(ids) <= lengths[-1]:
        raise ValueError(
            f"`input_ids` must hold 1 to {lengths[-1]} ids a text. Received: {len(ids)}. "
            "Cut the texts, and keep their end token."
        )
    length = next(length for length in lengths if length >= len(ids))
    signature = f"encode_ids_{length}"
    text = file.description["text"]
    is_token = np.arange(length) < len(ids)
    if text.get("padding_side") == "left":
        is_token = is_token[::-1]
    inputs = {"input_ids": np.full((1, length), text["pad_token_id"], np.int32)}
    inputs["input_ids"][0, is_token] = ids
    if "attention_mask" in file.shapes[signature]:
        inputs["attention_mask"] = is_token[np.newaxis].astype(np.int32)
    return file(signature, **inputs)


def _stacked(rows: Sequence[np.ndarray], file: LiteRTFile) -> np.ndarray:
    return np.concatenate([np.empty((0, file.width), np.float32), *rows])
