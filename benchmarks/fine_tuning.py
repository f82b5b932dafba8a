"""Compare ways to fine-tune: trainable parameters, peak memory, time of a step, and what it helps; each in a process.

python benchmarks/fine_tuning.py docs/benchmarks

The shipped model learns scikit-learn's digits from 1000 images: the probe by logistic regression, the others by
captions such as "the digit 3". All are asked the same 500 others, without a probe by zero-shot classification.
Writes fine_tuning.md and fine_tuning.json. Memory and time are ratios to `full`; memory is what loading did not take.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from kept import keep
from machine import described

NAMES = [f"the digit {name}" for name in ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9")]
EPOCHS, BATCH_SIZE = 8, 64
# The recipes that are compared, each with the best of a few learning rates.
RATES = {"lora": 3e-3, "lit": 3e-4, "layerwise": 3e-4, "full": 1e-4}
METHODS = ("zero-shot", "probe", *RATES)


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", help="where the table is written")
    parser.add_argument("--method", choices=METHODS, help="measure one in this process, and print JSON")
    args = parser.parse_args()
    if args.method:
        print(json.dumps(measure(args.method)))
        return
    rows = []
    for method in METHODS:
        command = [sys.executable, __file__, "--method", method]
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if result.returncode:
            raise SystemExit(f"{method} failed:\n{result.stderr}")
        rows.append(json.loads(result.stdout.splitlines()[-1]))
        print(rows[-1], flush=True)
    write(rows, args.folder or Path("docs/benchmarks"))


def measure(method: str) -> dict[str, object]:
    """Trains by one method, and asks."""
    import keras
    from sklearn.datasets import load_digits

    from tf_clip import CLIPModel, CLIPProcessor

    keras.utils.set_random_seed(0)
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))[:1500]
    pixels = np.repeat(np.uint8(255 - digits.images[order] * 15.9375)[..., np.newaxis], 3, axis=3)
    targets = digits.target[order]
    model, processor = CLIPModel.from_pretrained("pictogram-clip"), CLIPProcessor.from_pretrained("pictogram-clip")
    images = list(pixels)
    inputs = processor(text=[NAMES[target] for target in targets[:1000]], images=images[:1000], return_tensors="np")
    before = peak()
    start = time.perf_counter()
    step = None
    if method == "probe":
        accuracy = probed(model, processor, images, targets)
        trained = 10 * (model.config.vision_config.hidden_size + 1)
    else:
        trained = 0
        if method != "zero-shot":
            trained, step = tune(model, dict(inputs), targets, method)
        accuracy = asked(model, processor, images[1000:], targets[1000:])
    return {
        "method": method,
        "trainable": trained,
        "memory": peak() - before,
        "step": step,
        "seconds": time.perf_counter() - start,
        "accuracy": accuracy,
    }


def tune(model: object, inputs: dict[str, np.ndarray], targets: np.ndarray, method: str) -> tuple[int, float]:
    """Trains by captions; returns how many weights, and the seconds of a step."""
    import keras

    from tf_clip.training.recipes import RECIPES

    class Times(keras.callbacks.Callback):
        """Notes when each batch ends."""

        def __init__(self) -> None:
            super().__init__()
            self.ends: list[float] = []

        def on_train_batch_end(self, batch: int, logs: object = None) -> None:
            """Notes it."""
            self.ends.append(time.perf_counter())

    times = Times()
    steps = EPOCHS * -(-len(inputs["input_ids"]) // BATCH_SIZE)
    RECIPES[method](learning_rate=RATES[method]).compile(model, steps=steps)
    inputs["pair_ids"] = targets[: len(inputs["input_ids"])].astype("int32")  # images of a digit share their caption
    model.fit(inputs, batch_size=BATCH_SIZE, epochs=EPOCHS, verbose=0, callbacks=[times])
    trained = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
    return trained, float(np.median(np.diff(times.ends)))


def asked(model: object, processor: object, images: list[np.ndarray], targets: np.ndarray) -> float:
    """Returns the share named right among the ten captions."""
    from tf_clip import class_embeddings, embed_images

    classes = class_embeddings(model, processor, NAMES)
    embeds = embed_images(model, processor, images, batch_size=BATCH_SIZE).embeds
    return float(np.mean(np.argmax(embeds @ classes.T, axis=1) == targets))


def probed(model: object, processor: object, images: list[np.ndarray], targets: np.ndarray) -> float:
    """Fits a probe on 800 images, chooses its strength by 200, and returns the share named right."""
    from tf_clip import image_features, linear_probe

    features = image_features(model, processor, images, batch_size=BATCH_SIZE).values
    probe = linear_probe(features[:800], targets[:800], features[800:1000], targets[800:1000])
    return float(np.mean(probe.predict(features[1000:]) == targets[1000:]))


def peak() -> int:
    """Returns the most memory that this process had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def write(rows: list[dict[str, object]], folder: Path) -> None:
    """Writes the table."""
    folder.mkdir(parents=True, exist_ok=True)
    by_name = {row["method"]: row for row in rows}
    full = by_name["full"]
    lines = [
        "# Ways to fine-tune",
        "",
        f"Written by `make bench-fine-tuning` on {described('tensorflow', 'keras', 'scikit-learn')}.",
        "The shipped model and 1000 of scikit-learn's digits; 500 others are asked. Ratios to `full`.",
        "",
        "| way | trainable parameters | peak memory | time of a step | time of all | accuracy |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        step = "-" if row["step"] is None else f"{row['step'] / full['step']:.2f}"
        lines.append(
            f"| {row['method']} | {row['trainable']:,} | {row['memory'] / full['memory']:.2f} | {step} "
            f"| {row['seconds'] / full['seconds']:.2f} | {row['accuracy']:.3f} |"
        )
    (folder / "fine_tuning.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    ratios = [
        {
            "method": row["method"],
            "trainable": row["trainable"],
            "memory": round(row["memory"] / full["memory"], 3),
            "step": None if row["step"] is None else round(row["step"] / full["step"], 3),
            "time": round(row["seconds"] / full["seconds"], 3),
            "accuracy": row["accuracy"],
        }
        for row in rows
    ]
    keep(folder / "fine_tuning.json", ratios)
    print("\n".join(lines))


if __name__ == "__main__":
    main()
