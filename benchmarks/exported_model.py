"""What an exported model's safety and its half precision cost, as ratios within this run.

python benchmarks/exported_model.py
"""

from __future__ import annotations

import io
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from PIL import Image

from tf_clip import CLIPConfig, CLIPFeatureExtractorTF, CLIPModel, CLIPProcessor
from tf_clip.export.savedmodel.graph import EncodingGraph, Limits
from tf_clip.export.savedmodel.images import read_images
from tf_clip.export.weights import DTYPES, StoredWeights
from tf_clip.preprocessing.images.decode import MAX_PIXELS

ROUNDS, CALLS = 12, 3
BATCHES = (1, 8, 32)


def photograph(height=480, width=640):
    """Returns a JPEG with as much in it as a photograph."""
    rough = np.random.default_rng(0).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(rough).resize((width, height)).save(file, "JPEG")
    return file.getvalue()


def fastest(functions):
    """Calls functions in turn; returns each one's shortest time."""
    best = dict.fromkeys(functions, float("inf"))
    for _ in range(ROUNDS):
        for name, function in functions.items():
            start = time.perf_counter()
            for _ in range(CALLS):
                function()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def reading():
    """Files read row by row, each on its own, against all of them or none."""
    extractor = CLIPFeatureExtractorTF()
    size = (224, 224)
    spec = [tf.TensorSpec([None], tf.string)]
    by_row = tf.function(lambda files: read_images(extractor, files, size, MAX_PIXELS), input_signature=spec)
    together = tf.function(lambda files: extractor(files)["pixel_values"], input_signature=spec)
    for count in BATCHES:
        files = tf.constant([photograph()] * count)
        np.testing.assert_array_equal(by_row(files).pixel_values, together(files))
        best = fastest({"by row": lambda: by_row(files), "together": lambda: together(files)})  # noqa: B023
        print(
            f"reading {count:2} JPEG of 640 x 480, a bad one costing its row only: {ratio(best, 'by row', 'together')}"
        )


def half_precision():
    """Weights stored in half, cast at each call, against float32."""
    tower = {"hidden_size": 512, "intermediate_size": 2048, "num_hidden_layers": 3, "num_attention_heads": 8}
    text, vision = {**tower, "eos_token_id": 49407}, {**tower, "image_size": 56, "patch_size": 8}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision))
    processor = CLIPProcessor.from_pretrained("pictogram-clip")
    limits = Limits("status", MAX_PIXELS, 65_536)
    graphs = {dtype: EncodingGraph(StoredWeights(model, dtype), processor, limits) for dtype in DTYPES}
    for count in BATCHES:
        ids = tf.constant([[1, 2, 3, 4, 5, 6, 7, 49407]] * count)
        pixels = tf.random.normal([count, 300, 300, 3])
        pixels = tf.cast(pixels * 50 + 128, tf.uint8)
        for kind, rows in (("texts", ids), ("images", pixels)):
            calls = {}
            for dtype, graph in graphs.items():
                function = tf.function(graph.input_ids if kind == "texts" else graph.image_pixels)
                calls[dtype] = lambda function=function, rows=rows: function(rows)
            best = fastest(calls)
            told = ", ".join(f"{dtype} {ratio(best, dtype, 'float32')}" for dtype in DTYPES[1:])
            print(f"{count:2} {kind}, weights stored in half against float32: {told}")


def ratio(best, one, other):
    """Returns how often one's time is the other's."""
    return f"{best[one] / best[other]:.2f}"


reading()
half_precision()
