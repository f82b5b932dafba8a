"""One engine's side of the benchmark of mobile files: reads what to encode, encodes it, answers with the seconds.

python litert_worker.py ENGINE THREADS FOLDER
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from litert_files import RECIPES, TEXT_LENGTH, read_inputs, torch_towers

CALLS = {"image": 3, "text": 10}
"""How often in one measurement."""
Work = dict[str, Callable[[], np.ndarray]]
"""From `"image"` and `"text"` to what encodes it, float32 `[1, projection_dim]`."""


def litert(recipe: str) -> Callable[[int, Path, dict], Work]:
    """Returns the engine that runs one recipe's files."""

    def engine(threads: int, folder: Path, inputs: dict) -> Work:
        from tf_clip.export.tflite.runtime import LiteRTFile

        image, text = (LiteRTFile(folder / recipe / f"{part}_encoder.tflite", threads) for part in ("image", "text"))
        ids = inputs["input_ids"]
        padded = np.pad(ids, [(0, 0), (0, TEXT_LENGTH - ids.shape[1])], mode="edge")
        return {
            "image": lambda: image("encode_pixels", image_pixels=inputs["image_pixels"])["image_embeds"],
            "text": lambda: text(f"encode_ids_{TEXT_LENGTH}", input_ids=padded)["text_embeds"],
        }

    return engine


def tensorflow(with_xla: bool) -> Callable[[int, Path, dict], Work]:
    """Returns the engine that runs this library's graphs."""

    def engine(threads: int, folder: Path, inputs: dict) -> Work:
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        from tf_clip import CLIPModel

        model = CLIPModel.from_pretrained(folder / "weights")

        def graph(encode, value):
            def embed(value):
                return tf.math.l2_normalize(encode(value), axis=-1)

            spec = [tf.TensorSpec(value.shape, value.dtype)]
            function = tf.function(embed, input_signature=spec, autograph=False, jit_compile=with_xla)
            return lambda: function(value).numpy()

        return {
            "image": graph(model.get_image_features, tf.constant(inputs["pixel_values"])),
            "text": graph(model.get_text_features, tf.constant(inputs["input_ids"])),
        }

    return engine


def torch(threads: int, folder: Path, inputs: dict) -> Work:
    """Runs transformers."""
    import torch

    torch.set_num_threads(threads)
    images, texts = torch_towers(folder)

    def run(tower, value):
        def encode():
            with torch.inference_mode():
                return tower(value).numpy()

        return encode

    return {
        "image": run(images, torch.from_numpy(inputs["channels_first"])),
        "text": run(texts, torch.from_numpy(inputs["input_ids"]).long()),
    }


def onnxruntime(threads: int, folder: Path, inputs: dict) -> Work:
    """Runs the ONNX files in ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads

    def run(name, value):
        session = onnxruntime.InferenceSession(folder / f"{name}.onnx", options, providers=["CPUExecutionProvider"])
        return lambda: session.run(None, {"inputs": value})[0]

    return {
        "image": run("image", inputs["channels_first"]),
        "text": run("text", inputs["input_ids"].astype(np.int64)),
    }


def openvino(threads: int, folder: Path, inputs: dict) -> Work:
    """Runs the ONNX files in OpenVINO, in float32, which it does not on every processor by itself."""
    import openvino

    options = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32"}

    def run(name, value):
        compiled = openvino.Core().compile_model(folder / f"{name}.onnx", "CPU", options)
        return lambda: compiled(value)[0]

    return {
        "image": run("image", inputs["channels_first"]),
        "text": run("text", inputs["input_ids"].astype(np.int64)),
    }


OURS = {
    **{f"LiteRT {recipe}": litert(recipe) for recipe in RECIPES},
    "TensorFlow": tensorflow(with_xla=False),
    "TensorFlow XLA": tensorflow(with_xla=True),
}
"""Engines that need tf_clip."""
PEERS = {"PyTorch": torch, "ONNX Runtime": onnxruntime, "OpenVINO": openvino}
"""Engines that need what litert_peers.txt lists."""


def peak_memory() -> int:
    """Returns the most bytes that this process has had in memory."""
    # Not getrusage: that counts the process that started this one, too.
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE).group(1))


def main() -> None:
    """Answers until the input ends."""
    # Libraries write lines of their own.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    name, threads, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    # No engine may take another core for what it does beside.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    inputs = read_inputs(folder)
    works = {**OURS, **PEERS}[name](threads, folder, inputs)
    embeds = {kind: work()[0].tolist() for kind, work in works.items()}
    print(json.dumps(embeds), file=answers, flush=True)
    for line in sys.stdin:
        kind = line.strip()
        if kind == "memory":
            print(json.dumps(peak_memory()), file=answers, flush=True)
            continue
        start = time.perf_counter()
        for _ in range(CALLS[kind]):
            works[kind]()
        print(json.dumps((time.perf_counter() - start) / CALLS[kind]), file=answers, flush=True)


if __name__ == "__main__":
    main()
