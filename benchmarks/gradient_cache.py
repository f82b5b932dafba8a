"""How much memory a step of training takes, plain and in chunks: each in a process of its own, as ratios.

python benchmarks/gradient_cache.py FOLDER      writes gradient_cache.md and gradient_cache.json there

What is counted is by how much a process grows at most in one step of `fit`, beyond the pixels of the batch itself: the
model is the shipped one, made and compiled, and has made a step on a few pairs before.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from kept import keep
from machine import described

TESTS = Path(__file__).resolve().parents[1] / "tests"
# Pairs a batch, and pairs a chunk.
CASES = [(128, None), (512, None), (512, 128), (4096, 128)]
PAGE = """# Memory of a step of training

Written by `make bench-gradient-cache` on {machine}.
The shipped model is trained on random pairs, each line in a process of its own. Memory is by how much the process grows
at most in one step beyond the pixels of the batch; memory and time per pair are shown as ratios to a plain batch of
{batch}.

| batch | chunks of | memory | time per pair |
|---|---|---|---|
"""


def measure(batch: int, chunk: int | None) -> dict[str, Any]:
    """Returns the bytes and the seconds of a step in this process."""
    sys.path.insert(0, str(TESTS))
    import keras
    import tensorflow as tf

    from helpers.memory import peak_of
    from tf_clip import CLIPModel

    model = CLIPModel.from_pretrained("pictogram-clip")
    model.compile(keras.optimizers.SGD(1e-3), encode_chunk_size=chunk)
    side, length = model.config.vision_config.image_size, model.config.text_config.max_position_embeddings

    def batch_of(count: int) -> tf.data.Dataset:
        def pairs(seed: tf.Tensor) -> dict[str, tf.Tensor]:
            ids = tf.random.stateless_uniform((count, length - 1), [seed, 1], 0, 4000, "int32")
            end = tf.fill((count, 1), model.config.text_config.eos_token_id)
            pixel_values = tf.random.stateless_normal((count, side, side, 3), [seed, 0])
            return {"input_ids": tf.concat([ids, end], axis=1), "pixel_values": pixel_values}

        return tf.data.Dataset.range(1).map(pairs)

    model.fit(batch_of(4), verbose=0)
    seconds = []

    def step() -> None:
        start = time.perf_counter()
        model.fit(batch_of(batch), verbose=0)
        seconds.append(time.perf_counter() - start)

    grown = peak_of(step)
    step()  # what is compiled is compiled now
    return {"batch": batch, "chunk": chunk, "bytes": grown - 4 * 3 * batch * side**2, "seconds": seconds[1]}


def main() -> None:
    """Runs all cases and writes the page, or one of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(*json.loads(arguments.one))))
        return
    rows = []
    for case in CASES:
        command = [sys.executable, __file__, str(arguments.folder), "--one", json.dumps(case)]
        rows.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    first = rows[0]
    lines = [PAGE.format(batch=first["batch"], machine=described("tensorflow", "keras"))]
    for row in rows:
        row["memory ratio"] = round(row.pop("bytes") / first.get("bytes", 1), 2) if row is not first else 1.0
        row["time ratio"] = round(row["seconds"] / row["batch"] / (first["seconds"] / first["batch"]), 2)
        chunk = row["chunk"] or "-"
        lines.append(f"| {row['batch']} | {chunk} | {row['memory ratio']:.2f} x | {row['time ratio']:.2f} x |\n")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    kept = [{key: value for key, value in row.items() if key not in ("seconds", "bytes")} for row in rows]
    keep(arguments.folder / "gradient_cache.json", kept)
    (arguments.folder / "gradient_cache.md").write_text("".join(lines), encoding="utf-8")
    print("".join(lines))


if __name__ == "__main__":
    main()
