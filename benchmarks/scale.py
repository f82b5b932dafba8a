"""How time and memory grow, and what embedding very many images and captions takes: `make bench-scale`.

Curves: a random ViT-B/32 against batch, image size and text length, and zero-shot classification against classes,
each point in a process of its own, whose peak is its memory. Then `tf-clip embed --output` embeds generated images
and captions from the disk with the shipped model, and says how long the model waited for input.

python scale.py docs/benchmarks --images 100000 --captions 1000000
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "peers"))
CURVES = {
    "batch": (1, 2, 4, 8, 16, 32, 64),
    "image size": (224, 320, 448, 640),
    "text length": (8, 16, 32, 48, 77),
    "classes": (10, 100, 1000, 10000, 100000),
}
CALLS = 5


def point(curve: str, size: int, config: dict[str, Any]) -> dict[str, float]:
    """Measures one point in this process: seconds of a call, and bytes that the calls add to the process's peak."""
    import tensorflow as tf
    from worker import forget_peak, resident

    from tf_clip import CLIPModel, class_probabilities

    model = CLIPModel(config)
    generator = np.random.default_rng(0)
    side = model.config.vision_config.image_size
    pixels = tf.constant(generator.normal(size=(1, side, side, 3)).astype(np.float32))
    embeds = generator.normal(size=(8, model.config.projection_dim)).astype(np.float32)
    if curve == "batch":
        value, encode = tf.repeat(pixels, size, axis=0), tf.function(model.get_image_features, autograph=False)
    elif curve == "image size":
        value = tf.image.resize(pixels, (size, size))
        encode = tf.function(lambda x: model.get_image_features(x, interpolate_pos_encoding=True), autograph=False)
    elif curve == "text length":
        value = tf.ones((8, size), tf.int32)
        encode = tf.function(model.get_text_features, autograph=False)
    else:
        value = generator.normal(size=(size, embeds.shape[1])).astype(np.float32)

        def encode(classes: np.ndarray) -> np.ndarray:
            return class_probabilities(embeds, classes, np.log(100.0))

    before = resident()
    forget_peak()
    np.asarray(encode(value))
    times = []
    for _ in range(CALLS):
        start = time.perf_counter()
        np.asarray(encode(value))
        times.append(time.perf_counter() - start)
    return {"seconds": statistics.median(times), "bytes": resident("VmHWM") - before}


def curves(config: dict[str, Any], sizes: dict[str, tuple[int, ...]]) -> dict[str, list[dict[str, float]]]:
    """Measures every point, relative to the first of its curve; memory in sizes of the weights."""
    from tf_clip import CLIPConfig
    from tf_clip.families.cost import parameter_count

    weights = 4 * parameter_count(CLIPConfig.from_dict(config))
    found: dict[str, list[dict[str, float]]] = {}
    for curve, values in sizes.items():
        found[curve] = []
        for size in values:
            command = [sys.executable, __file__, "--point", curve, str(size), json.dumps(config)]
            result = subprocess.run(command, capture_output=True, text=True, check=False)
            if result.returncode:
                raise SystemExit(f"{curve} {size} failed:\n{result.stderr[-2000:]}")
            raw = json.loads(result.stdout.splitlines()[-1])
            base = found[curve][0]["seconds"] if found[curve] else raw["seconds"]
            row = {"size": size, **raw, "time": raw["seconds"] / base, "memory": raw["bytes"] / weights}
            found[curve].append(row)
            print(f"{curve} {size}: {row['time']:.2f}", file=sys.stderr, flush=True)
    return found


def write_inputs(folder: Path, images: int, captions: int) -> None:
    """Writes generated images, and captions of the lengths that captions have."""
    from PIL import Image

    words = (HERE / "peers" / "captions.txt").read_text("utf-8").split()
    generator = np.random.default_rng(0)
    (folder / "images").mkdir()
    for index in range(images):
        rough = generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(rough).resize((96, 96)).save(folder / "images" / f"{index:06}.jpg", quality=85)
    with (folder / "captions.txt").open("w", encoding="utf-8") as file:
        for _ in range(captions):
            file.write(" ".join(generator.choice(words, size=generator.integers(4, 16))) + "\n")


def embedding(images: int, captions: int) -> dict[str, Any]:
    """Embeds both from the disk with the shipped model, and a hundredth of them, and returns what that took."""
    found: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        for share in (100, 1):
            folder = Path(temporary) / f"one in {share}"
            folder.mkdir()
            write_inputs(folder, max(1, images // share), max(1, captions // share))
            jobs = {
                "image_embeds": [str(folder / "images")],
                "text_embeds": ["--texts-file", str(folder / "captions.txt")],
            }
            for name, words in jobs.items():
                job = run_job(name, [*words, "--output", str(folder / "out")])
                # The last has all, and is compared with a job that hardly grows.
                found[name] = {**job, "memory": job["peak_bytes"] / found.get(name, job)["peak_bytes"]}
                print(f"{name}: {found[name]}", file=sys.stderr, flush=True)
    return found


def run_job(name: str, words: list[str]) -> dict[str, Any]:
    """Runs `tf-clip embed`, and returns its rows, the share of the time without input, seconds and the peak."""
    code = (
        "import resource, subprocess, sys; subprocess.run([sys.executable, *sys.argv[1:]], check=True);"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    command = [sys.executable, "-c", code, "-m", "tf_clip", "embed", *words, "--json"]
    start = time.perf_counter()
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    seconds = time.perf_counter() - start
    answer, _, kilobytes = output.strip().rpartition("\n")
    job = json.loads(answer)["arrays"][name]
    return {"rows": job["rows"], "waited": job["waited"], "seconds": seconds, "peak_bytes": 1024 * int(kilobytes)}


def page(result: dict[str, Any]) -> str:
    """Returns the page."""
    parts = [
        "# How cost grows",
        f"Written by `make bench-scale` on {result['run']}. A random ViT-B/32; time is relative to a curve's first "
        "point, memory is\nwhat the calls add to the process, in sizes of the model's weights.",
        "![Time and memory against batch, image size, text length and classes](scale.png)",
    ]
    for curve, rows in result["curves"].items():
        lines = [f"| {curve} | time | memory |", "|---|---|---|"]
        lines += [f"| {row['size']:,} | {row['time']:.2f} | {row['memory']:.2f} |" for row in rows]
        parts.append("\n".join(lines))
    parts.append("## Very many, from the disk")
    parts.append(
        "`tf-clip embed --output` with the shipped model; waiting is the share of the time without input, and memory "
        "the process's\npeak, relative to embedding a hundredth of the rows."
    )
    lines = ["| what | rows | waited for input | memory |", "|---|---|---|---|"]
    for name, job in result["embedding"].items():
        lines.append(f"| `{name}` | {job['rows']:,} | {100 * job['waited']:.0f} % | {job['memory']:.2f} |")
    return "\n\n".join([*parts, "\n".join(lines)]) + "\n"


def draw(found: dict[str, list[dict[str, float]]], path: Path) -> None:
    """Draws the curves."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, grid = pyplot.subplots(
        1, len(found), figsize=(4.2 * len(found), 3.8), constrained_layout=True, squeeze=False
    )
    for axes, (curve, rows) in zip(grid[0], found.items(), strict=True):
        sizes = [row["size"] for row in rows]
        axes.plot(sizes, [row["time"] for row in rows], "o-", color="#4477aa", label="time, first point = 1")
        axes.plot(sizes, [row["memory"] for row in rows], "s--", color="#aa3377", label="memory, weights = 1")
        axes.set(xlabel=curve, xscale="log", yscale="symlog", ylim=(0, None))
        axes.set_xticks(sizes, [f"{size:,}" for size in sizes], fontsize=8)
        top = max(rows[-1]["time"], rows[-1]["memory"])
        ticks = [tick for tick in (0, 1, 2, 5, 10, 20, 100, 1000, 10000) if tick <= top]
        axes.set_yticks(ticks, [f"{tick:,}" for tick in ticks])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    grid[0][0].legend(frameon=False)
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def main() -> None:
    """Measures, and writes scale.json, scale.md and scale.png."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", default=Path("docs/benchmarks"))
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--captions", type=int, default=1_000_000)
    parser.add_argument("--quick", action="store_true", help="a tiny model and few rows")
    parser.add_argument("--point", nargs=3, metavar=("CURVE", "SIZE", "CONFIG"), help="measure one in this process")
    options = parser.parse_args()
    if options.point:
        curve, size, config = options.point
        print(json.dumps(point(curve, int(size), json.loads(config))))
        return
    from kept import keep
    from machine import described

    config: dict[str, Any] = {"text_config": {}, "vision_config": {}}
    sizes = CURVES
    if options.quick:
        tower = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1}
        config = {"text_config": tower, "vision_config": tower}
        sizes = {curve: values[:2] for curve, values in CURVES.items()}
        options.images, options.captions = min(options.images, 50), min(options.captions, 500)
    result = {
        "run": described("tensorflow", "keras"),
        "curves": curves(config, sizes),
        "embedding": embedding(options.images, options.captions),
    }
    result = keep(options.folder / "scale.json", result)
    (options.folder / "scale.md").write_text(page(result), encoding="utf-8")
    draw(result["curves"], options.folder / "scale.png")


if __name__ == "__main__":
    main()
