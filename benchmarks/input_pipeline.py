"""How fast training data comes, against how fast ViT-B/32 trains on it: `make bench-input`.

Both are measured in turns in one run, the input without a model and the model on a batch that is ready, so that what
else the machine does hits both alike. Figures are ratios; absolute times say nothing about another machine.
"""

from __future__ import annotations

import argparse
import io
import os
import statistics
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from kept import keep
from machine import described
from PIL import Image

from tf_clip import (
    Augmentation,
    CLIPConfig,
    CLIPFeatureExtractorTF,
    CLIPModel,
    CLIPProcessor,
    CLIPTokenizer,
    TrainingData,
    read_pairs,
)

HEIGHT, WIDTH = 480, 640
IMAGES = 512
COLOURS = Augmentation(flip_prob=0.5, color_jitter=(0.4, 0.4, 0.4, 0.1), color_jitter_prob=0.8, gray_scale_prob=0.2)
AUGMENTATIONS = {
    "as for inference": None,
    "random crop, as CLIP's": Augmentation(),
    "crop, flip, colors": COLOURS,
}
CAPTION = "a photograph of number {}, with as many words as captions usually have"


def photograph(seed: int) -> bytes:
    """Returns a JPEG with as much in it as a photograph."""
    rough = np.random.default_rng(seed).integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(rough).resize((WIDTH, HEIGHT)).save(file, "JPEG", quality=90)
    return file.getvalue()


def write_sources(folder: Path) -> dict[str, Path]:
    """Writes the same pairs as files with a table, and as a shard."""
    lines = ["image,caption"]
    with tarfile.open(folder / "shard.tar", "w") as shard:
        for index in range(IMAGES):
            caption = CAPTION.format(index)
            data = photograph(index)
            (folder / f"{index}.jpg").write_bytes(data)
            lines.append(f'{index}.jpg,"{caption}"')
            for name, content in ((f"{index}.jpg", data), (f"{index}.txt", caption.encode())):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                shard.addfile(member, io.BytesIO(content))
    (folder / "pairs.csv").write_text("\n".join(lines), encoding="utf-8")
    return {"files and a CSV": folder / "pairs.csv", "a tar shard": folder / "shard.tar"}


class Input:
    """Training data without a model; epochs follow each other without an end."""

    def __init__(self, data: TrainingData) -> None:
        self._data, self._epoch = data, 0
        self._batches = iter(data.dataset())

    def run(self, count: int) -> float:
        """Takes `count` batches; returns how long that took."""
        start = time.perf_counter()
        for _ in range(count):
            self.next()
        return time.perf_counter() - start

    def next(self) -> dict[str, tf.Tensor]:
        """Takes one batch."""
        while (batch := next(self._batches, None)) is None:
            self._epoch += 1
            self._batches = iter(self._data.dataset(self._epoch))
        return batch


def measured(steps: int, rounds: int, batch_size: int, folder: Path) -> list[dict[str, Any]]:
    """Returns, for each kind of input, its speed as a multiple of the training step's."""
    processor = CLIPProcessor(CLIPFeatureExtractorTF(), CLIPTokenizer.from_pretrained("pictogram-clip"))
    inputs = {}
    for source, path in write_sources(folder).items():
        for name, augment in AUGMENTATIONS.items():
            data = TrainingData(read_pairs(path), processor, batch_size=batch_size, augment=augment)
            inputs[source, name] = Input(data)
    model = CLIPModel(CLIPConfig())
    model.compile(keras.optimizers.AdamW(1e-5))
    batch = next(iter(inputs.values())).next()
    model.train_on_batch(batch)
    times: dict[Any, list[float]] = {key: [] for key in (*inputs, "training")}
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(steps):
            model.train_on_batch(batch)
        times["training"].append(time.perf_counter() - start)
        for key, source in inputs.items():
            source.run(4)  # what was prefetched while the model trained costs nothing, and is let go
            times[key].append(source.run(4 * steps) / 4)
    training = statistics.median(times["training"])
    return [
        {"source": source, "augmentation": name, "times_training": training / statistics.median(times[source, name])}
        for source, name in inputs
    ]


def page(result: dict[str, Any]) -> str:
    """Returns the result as a page."""
    rows = "\n".join(
        f"| {row['source']} | {row['augmentation']} | {row['times_training']:.1f} x |" for row in result["inputs"]
    )
    return f"""# Training data against training

Written by `make bench-input` on {result["machine"]}.
JPEG files of {WIDTH} x {HEIGHT}, decoded, prepared and tokenized; and training steps of ViT-B/32 with AdamW in float32
on random weights, in batches of {result["batch_size"]}. Both in turns in one run, the median of {result["rounds"]} \
rounds of {result["steps"]} steps.

Images a second of the input alone, as a multiple of those of the training step:

| images are | augmentation | input is |
|---|---|---|
{rows}

On an accelerator, training is faster by far and decoding is not: there, what counts is how many cores decode.
"""


def main() -> None:
    """Measures, and writes both files."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path, help="the folder to write input_pipeline.md and input_pipeline.json into")
    parser.add_argument("--steps", type=int, default=2, help="training steps a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=32)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        inputs = measured(args.steps, args.rounds, args.batch_size, Path(folder))
    result = {
        "machine": described("tensorflow", "keras"),
        "batch_size": args.batch_size,
        "steps": args.steps,
        "rounds": args.rounds,
        "inputs": inputs,
    }
    args.out.mkdir(parents=True, exist_ok=True)
    result = keep(args.out / "input_pipeline.json", result)
    (args.out / "input_pipeline.md").write_text(page(result), encoding="utf-8")
    for row in inputs:
        print(f"{row['source']}, {row['augmentation']}: {row['times_training']:.1f} x the training step's speed")


if __name__ == "__main__":
    main()
