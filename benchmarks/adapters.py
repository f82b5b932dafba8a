"""What adapters cost: a step of fine-tuning against a full one, and inference against the plain model, as ratios.

Each way of training runs in a process of its own, whose peak memory is what it ever had. Inference is timed in one
process, the ways in turn, so that what else the machine does falls on all.

python benchmarks/adapters.py FOLDER [--layers 12] [--batch-size 8] [--steps 5]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from kept import keep
from machine import described

import tf_clip

WAYS = {"full": None, "lora": "lora", "seq_bn": "seq_bn", "ia3": "ia3", "prefix_tuning_flat": "prefix_tuning_flat"}
INFERENCE_ROUNDS = 15


def model_of(layers: int) -> tf_clip.CLIPModel:
    """Returns a random model with the widths of ViT-B/32."""
    keras.utils.set_random_seed(0)
    tower = {"num_hidden_layers": layers}
    return tf_clip.CLIPModel(tf_clip.CLIPConfig(text_config=tower, vision_config=tower))


def pairs_of(count: int) -> dict[str, np.ndarray]:
    """Returns random pairs."""
    generator = np.random.default_rng(0)
    input_ids = generator.integers(1, 49000, (count, 77)).astype("int32")
    input_ids[:, -1] = 49407
    return {"input_ids": input_ids, "pixel_values": generator.normal(size=(count, 224, 224, 3)).astype("float32")}


def one_way(way: str, layers: int, batch_size: int, steps: int) -> None:
    """Trains, and prints the time of a step, the peak memory and the number of weights that are trained."""
    model, pairs = model_of(layers), pairs_of(batch_size)
    if WAYS[way] is not None:
        model.add_adapter(way, WAYS[way])
        model.train_adapter(way)
    model.compile(keras.optimizers.AdamW(1e-4))
    model.train_on_batch(pairs)  # traces
    times = []
    for _ in range(steps):
        start = time.perf_counter()
        model.train_on_batch(pairs)
        times.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    trained = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
    print(json.dumps({"time": statistics.median(times), "peak": peak, "trained": trained}))


def inference(layers: int, batch_size: int) -> dict[str, float]:
    """Returns the time of both towers with each adapter, and with LoRA merged, in those of the plain model."""
    model, pairs = model_of(layers), pairs_of(batch_size)
    functions = {}
    for way in ("plain", "lora", "seq_bn", "ia3", "merged"):
        if way == "merged":
            model.merge_adapter("lora")
        elif way != "plain":
            model.add_adapter(way, way, set_active=True)
        encode = tf.function(lambda ids, pixels: (model.get_text_features(ids), model.get_image_features(pixels)))
        functions[way] = encode.get_concrete_function(*(tf.constant(value) for value in pairs.values()))
    times: dict[str, list[float]] = {way: [] for way in functions}
    inputs = [tf.constant(value) for value in pairs.values()]
    for number in range(INFERENCE_ROUNDS + 1):
        for way, function in functions.items():
            start = time.perf_counter()
            function(*inputs)
            if number:
                times[way].append(time.perf_counter() - start)
    ratios = {way: [own / plain for own, plain in zip(times[way], times["plain"], strict=True)] for way in times}
    return {way: statistics.median(ratio) for way, ratio in ratios.items() if way != "plain"}


def main() -> None:
    """Measures and writes the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where adapters.md and adapters.json are written")
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--way", choices=WAYS)
    arguments = parser.parse_args()
    sizes = (arguments.layers, arguments.batch_size)
    if arguments.way:
        one_way(arguments.way, *sizes, arguments.steps)
        return
    runs = {}
    for way in WAYS:
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        command = [sys.executable, *sys.argv, "--way", way]
        output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
        runs[way] = json.loads(output.splitlines()[-1])
        print(way, runs[way], flush=True)
    write(arguments.folder, runs, inference(*sizes), sizes)


def write(folder: Path, runs: dict[str, dict[str, float]], costs: dict[str, float], sizes: tuple[int, int]) -> None:
    """Writes the table, and the ratios in it as JSON."""
    full = runs["full"]
    machine = described("keras", "tensorflow")
    ratios = {
        way: {"trained": run["trained"], "time": run["time"] / full["time"], "peak": run["peak"] / full["peak"]}
        for way, run in runs.items()
    }
    lines = [
        "# What adapters cost",
        "",
        f"Written by `make bench-adapters`: {machine}.",
        f"The widths of ViT-B/32, {sizes[0]} layers in each tower, batches of {sizes[1]}, float32, AdamW. Each way of",
        "training ran in a process of its own; its peak is all the memory that it ever had, the model and TensorFlow",
        "included.",
        "",
        "| trained | weights | time of a step | peak memory |",
        "|---|---|---|---|",
        *(
            f"| `{way}` | {run['trained']:,} | {run['time']:.2f} x | {run['peak']:.2f} x |"
            for way, run in ratios.items()
        ),
        "",
        "Inference of both towers, the ways in turn in one process:",
        "",
        "| active | time, in those of the plain model |",
        "|---|---|",
        *(f"| `{way}`{' LoRA' if way == 'merged' else ''} | {ratio:.3f} x |" for way, ratio in costs.items()),
        "",
        f"Wished for: an active LoRA at most 1.10 x: {'reached' if costs['lora'] <= 1.1 else 'not reached'}; "
        f"a merged one 1.00 x: {'reached' if costs['merged'] <= 1.01 else 'not reached'}.",
        "",
    ]
    (folder / "adapters.md").write_text("\n".join(lines), encoding="utf-8")
    results = {"machine": machine, "training": ratios, "inference": costs}
    keep(folder / "adapters.json", results)


if __name__ == "__main__":
    main()
