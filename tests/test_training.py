"""The input pipeline, and the training script: it learns, and goes on after a kill."""

import csv
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tf_clip import CLIPModel, pairs_dataset

ROOT = Path(__file__).resolve().parents[1]
PAIRS = 200


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """200 pictures of random pixels, each with a random word of its own, and the CSV file that says so."""
    folder = tmp_path_factory.mktemp("pairs")
    generator = np.random.default_rng(0)
    paths, captions = [], []
    for index in range(PAIRS):
        path = folder / f"{index}.png"
        Image.fromarray(generator.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(path)
        paths.append(path)
        captions.append("".join(map(chr, generator.integers(ord("a"), ord("z") + 1, 8))))
    with (folder / "pairs.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "caption"), *zip([path.name for path in paths], captions, strict=True)])
    return folder, paths, captions


def test_batches_are_what_the_processor_makes(pairs, tiny_processor):
    _, paths, captions = pairs
    dataset = pairs_dataset(paths, captions, tiny_processor, batch_size=64, shuffle=False)
    batches = list(dataset.as_numpy_iterator())
    assert [len(batch["pixel_values"]) for batch in batches] == [64, 64, 64, 8]
    expected = tiny_processor(text=captions[:64], images=paths[:64], return_tensors="np")
    for name, values in expected.items():
        np.testing.assert_allclose(batches[0][name], values, atol=1e-6)


def test_orders_repeat_over_runs_and_differ_over_epochs(pairs, tiny_processor):
    _, paths, captions = pairs

    def orders(seed):
        dataset = pairs_dataset(paths, captions, tiny_processor, batch_size=PAIRS, seed=seed)
        return [next(iter(dataset))["input_ids"].numpy().tolist() for _ in range(2)]

    first, second = orders(seed=1)
    assert first != second
    assert orders(seed=1) == [first, second]
    assert orders(seed=2)[0] != first


def test_bad_pictures_end_the_run_or_are_skipped(pairs, tiny_processor, tmp_path):
    _, paths, captions = pairs
    (tmp_path / "broken.png").write_bytes(b"broken")
    mixed = [paths[0], tmp_path / "broken.png", tmp_path / "missing.png", paths[1]]
    with pytest.raises(tf.errors.OpError):
        list(pairs_dataset(mixed, captions[:4], tiny_processor))
    (batch,) = pairs_dataset(mixed, captions[:4], tiny_processor, skip_bad=True, shuffle=False)
    expected = tiny_processor(text=[captions[0], captions[3]])
    np.testing.assert_array_equal(batch["input_ids"], expected["input_ids"])


@pytest.mark.parametrize("count", [0, 3])
def test_unpaired_captions_are_refused(pairs, tiny_processor, count):
    with pytest.raises(ValueError, match="`captions` must hold one text for each of `image_paths`"):
        pairs_dataset(pairs[1][:2] if count else [], ["x"] * count, tiny_processor)


def test_the_script_learns_and_resumes_after_a_kill(pairs, tiny_checkpoint, tmp_path):
    epochs = 45
    command = [
        sys.executable,
        "-u",
        str(ROOT / "examples" / "train_on_pairs.py"),
        "--pairs",
        str(pairs[0] / "pairs.csv"),
    ]
    command += ["--from-config", str(tiny_checkpoint), "--out", str(tmp_path / "out"), "--epochs", str(epochs)]
    command += ["--batch-size", "50", "--learning-rate", "3e-3"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    running = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
    )
    for line in running.stdout:
        if line.startswith(f"Epoch 12/{epochs}"):
            os.killpg(running.pid, signal.SIGKILL)
            break
    assert running.wait(timeout=60) == -signal.SIGKILL
    running.stdout.close()
    assert not (tmp_path / "out" / "model.safetensors").exists()

    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    started = [int(number) for number in re.findall(rf"Epoch (\d+)/{epochs}", result.stdout)]
    assert started[0] in (11, 12), "it goes on with the epoch after the last whole one"
    assert started[-1] == epochs
    assert float(re.search(r"accuracy in batches of 50: ([\d.]+)", result.stdout)[1]) > 0.9
    CLIPModel.from_pretrained(tmp_path / "out")
