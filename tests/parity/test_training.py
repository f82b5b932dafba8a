"""A step of training as transformers and torch make it, AdamW as torch's, and the losses of OpenCLIP."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from .conftest import CONFIGS, Process
from .inputs import make_inputs
from .measuring import largest, record, report

# The large one on one backend; gradients of all sizes are compared on all backends in test_models.py.
STEPS = [("odd", "tensorflow"), ("odd", "jax"), ("odd", "torch")]
STEPS += [pytest.param("vit_b_32", "tensorflow", marks=pytest.mark.real_size)]


@pytest.mark.parametrize(("name", "backend"), STEPS)
def test_one_step_of_fit(
    name: str, backend: str, libraries: dict[str, Process], reference: Process, folder: Path
) -> None:
    rate = "0.001"
    (folder / "wanted.json").write_text(json.dumps(CONFIGS[name]))
    reference("make", "CLIPModel", folder, folder / "wanted.json")
    np.savez(folder / "inputs.npz", **make_inputs(CONFIGS[name], seed=5))
    reference("train_one_step", folder, folder / "inputs.npz", folder / "theirs.npz", rate)
    with np.load(folder / "theirs.npz") as file:
        theirs = dict(file)
    # transformers leaves out what the paper does: the temperature is clipped.
    theirs["logit_scale"] = np.minimum(theirs["logit_scale"], np.float32(np.log(100.0)))
    # At once, and in chunks.
    for chunk_size in ("null", "3"):
        libraries[backend]("train_one_step", folder, folder / "inputs.npz", folder / "ours.npz", rate, chunk_size)
        with np.load(folder / "ours.npz") as file:
            ours = dict(file)
        row = ("CLIPModel", f"transformers 5 and torch, {name}, one step of fit")
        if chunk_size != "null":
            row = (row[0], row[1] + " in chunks")
        assert ours.keys() == theirs.keys()
        record(row, "loss", backend, abs(ours.pop("loss") - theirs["loss"]) / max(1.0, float(theirs["loss"])))
        record(row, "weights", backend, max(largest(ours[key], theirs[key]) for key in ours))


@pytest.mark.parametrize("decay", [0.0, 0.2])
def test_adamw(library: Process, reference: Process, folder: Path, decay: float) -> None:
    """With the settings of the paper; three steps along the same gradients, from below epsilon to large."""
    options = json.dumps({"lr": 5e-4, "betas": [0.9, 0.98], "eps": 1e-6, "weight_decay": decay})
    generator = np.random.default_rng(0)
    sizes = 10.0 ** generator.uniform(-9, 2, (20, 25))  # of two axes, since others do not decay here
    np.savez(
        folder / "inputs.npz",
        weights=generator.normal(size=(20, 25)).astype("float32"),
        gradients=(sizes * generator.normal(size=(3, 20, 25))).astype("float32"),
    )
    for process, name in ((reference, "theirs.npz"), (library, "ours.npz")):
        process("update", folder / name, folder / "inputs.npz", options)
    with np.load(folder / "ours.npz") as ours, np.load(folder / "theirs.npz") as theirs:
        report(f"AdamW, decay {decay}, {library.backend}", largest(ours["path"], theirs["path"]), 1e-6)


@pytest.mark.parametrize("chunk_size", ["null", "4"])
def test_losses(library: Process, reference: Process, folder: Path, chunk_size: str) -> None:
    generator = np.random.default_rng(0)
    embeds = generator.normal(size=(2, 11, 16)).astype("float32")
    embeds /= np.linalg.norm(embeds, axis=-1, keepdims=True)
    np.savez(
        folder / "inputs.npz",
        text_embeds=embeds[0],
        image_embeds=embeds[1],
        scale=np.float32(20.0),
        bias=np.float32(-8.0),
        pair_ids=generator.integers(0, 5, 11).astype("int32"),
    )
    reference("losses", folder / "inputs.npz", folder / "theirs.npz")
    library("losses", folder / "inputs.npz", folder / "ours.npz", chunk_size)
    with np.load(folder / "ours.npz") as ours, np.load(folder / "theirs.npz") as theirs:
        assert len(theirs.files) >= 10
        for key in theirs.files:
            difference = largest(ours[key], theirs[key]) / max(1.0, np.abs(theirs[key]).max())
            report(f"losses, {key}, {library.backend}", difference, 1e-5)
