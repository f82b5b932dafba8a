"""The sides of engines that run a file of the model, and of a matrix product in NumPy."""

from __future__ import annotations

import os
from typing import ClassVar

import numpy as np
from library import MATMUL_SIDE, Call, EncodersApart, Library


class OnnxFiles(EncodersApart):
    """An engine that runs ONNX files; the lengths are those that transformers gives."""

    def load(self) -> None:
        """Reads the temperature; a file is loaded for each shape, when it is asked for."""
        from safetensors import safe_open

        with safe_open(self.inputs.folder / "weights" / "model.safetensors", "numpy") as file:
            self._scale = float(np.exp(file.get_tensor("logit_scale")))

    def session(self, name: str, value: np.ndarray) -> Call:
        """Returns what runs the file of this input for values of this shape."""
        raise NotImplementedError

    def image(self, images: int, texts: int) -> Call:
        """Encodes images."""
        return self.session("pixel_values", self.inputs.pixels(images, channels_first=True))

    def text(self, images: int, texts: int) -> Call:
        """Encodes captions, padded to the longest."""
        return self.session("input_ids", self.inputs.tokens(texts)["input_ids"].astype(np.int64))


class OnnxRuntime(OnnxFiles):
    """ONNX Runtime."""

    imports: ClassVar[tuple[str, ...]] = ("onnxruntime",)

    def session(self, name: str, value: np.ndarray) -> Call:
        """Fixes the shape, which lets the engine prepare more."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = len(os.sched_getaffinity(0))
        for dimension, size in zip(("batch", "length"), value.shape[: 1 + (name == "input_ids")], strict=False):
            options.add_free_dimension_override_by_name(dimension, size)
        path = str(self.inputs.folder / "onnx" / f"{name}.onnx")
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return lambda: session.run(None, {name: value})[0]


class OpenVINO(OnnxFiles):
    """OpenVINO, in float32, which it does not take on every processor by itself."""

    imports: ClassVar[tuple[str, ...]] = ("openvino",)

    def session(self, name: str, value: np.ndarray) -> Call:
        """Fixes the shape, which lets the engine prepare more."""
        import openvino

        core = openvino.Core()
        model = core.read_model(self.inputs.folder / "onnx" / f"{name}.onnx")
        model.reshape(list(value.shape))
        threads = len(os.sched_getaffinity(0))
        options = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}
        compiled = core.compile_model(model, "CPU", options)
        return lambda: compiled(value)[0]


class NumPy(Library):
    """NumPy, which multiplies matrices and does nothing else here."""

    imports: ClassVar[tuple[str, ...]] = ("numpy",)

    def matmul(self, images: int, texts: int) -> Call:
        """Multiplies two large matrices."""
        generator = np.random.default_rng(0)
        one, other = (generator.normal(size=(MATMUL_SIDE, MATMUL_SIDE)).astype(np.float32) for _ in range(2))
        return lambda: float((one @ other)[0, 0])
