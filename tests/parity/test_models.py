"""The same numbers as transformers 5 for every class and option, from its files to ours and back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .conftest import CONFIGS, NAMES, Process
from .inputs import make_inputs
from .measuring import compare, largest, record

SAFETENSORS = "transformers 5, safetensors"
INSIDE = {"output_hidden_states": True, "output_attentions": True}
# From the class there to the class here, its part of the configuration, and what it reads.
CLASSES: dict[str, tuple[str, str | None, tuple[str, ...]]] = {
    "CLIPTextModel": ("CLIPTextModel", "text_config", ("input_ids", "attention_mask")),
    "CLIPTextModelWithProjection": ("CLIPTextEncoder", "text_config", ("input_ids", "attention_mask")),
    "CLIPVisionModel": ("CLIPVisionModel", "vision_config", ("pixel_values",)),
    "CLIPVisionModelWithProjection": ("CLIPImageEncoder", "vision_config", ("pixel_values",)),
    "CLIPForImageClassification": ("CLIPForImageClassification", None, ("pixel_values",)),
}


def both(
    folder: Path,
    processes: tuple[Process, Process],
    kinds: tuple[str, str],
    inputs: dict[str, np.ndarray],
    options: dict[str, Any] | None = None,
    arguments: dict[str, Any] | None = None,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Runs a checkpoint here and in transformers; returns our results and theirs."""
    library, reference = processes
    np.savez(folder / "inputs.npz", **inputs)
    chosen = json.dumps(options or {})
    reference("run", kinds[0], folder, folder / "inputs.npz", folder / "theirs.npz", chosen)
    here = (folder / "inputs.npz", folder / "ours.npz", chosen, json.dumps(arguments or {}))
    library("run", kinds[1], folder, *here)
    with np.load(folder / "ours.npz") as ours, np.load(folder / "theirs.npz") as theirs:
        return dict(ours), dict(theirs)


def config_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())


# In each test the backend comes last, so that a large checkpoint is loaded there once.
@pytest.mark.parametrize(("padding", "images"), [("right", 4), ("left", 2), ("none", 2)])
def test_the_joint_model(checkpoint: Path, library: Process, reference: Process, padding: str, images: int) -> None:
    inputs = make_inputs(config_of(checkpoint), padding, images)
    row = ("CLIPModel", f"{SAFETENSORS}, {checkpoint.name}")
    compare(row, library.backend, *both(checkpoint, (library, reference), ("CLIPModel", "CLIPModel"), inputs, INSIDE))


def test_fused_attention(checkpoint: Path, library: Process, reference: Process) -> None:
    inputs = make_inputs(config_of(checkpoint), "left")
    kinds, arguments = ("CLIPModel", "CLIPModel"), {"attn_implementation": "sdpa"}
    row = ("CLIPModel", f"{SAFETENSORS}, {checkpoint.name}, sdpa here")
    ours, theirs = both(checkpoint, (library, reference), kinds, inputs, arguments=arguments)
    # Tokens of padding on the left read nothing at all: what comes out there has no meaning.
    for results in (ours, theirs):
        results["text.last_hidden_state"] = results["text.last_hidden_state"][inputs["attention_mask"] == 1]
    compare(row, library.backend, ours, theirs)


def test_other_positions_and_sizes(checkpoint: Path, library: Process, reference: Process) -> None:
    config = config_of(checkpoint)
    size, patch = config["vision_config"]["image_size"], config["vision_config"]["patch_size"]
    inputs = make_inputs(config, sides=(size + 2 * patch + 3, size - patch))
    for name in ("input_ids", "attention_mask"):
        inputs[name] = inputs[name][:, :-3]
    inputs["position_ids"] = np.arange(inputs["input_ids"].shape[1], dtype="int32")[None, ::-1].copy() + 3
    options = {**INSIDE, "interpolate_pos_encoding": True}
    row = ("CLIPModel", f"{SAFETENSORS}, {checkpoint.name}, other positions and image sizes")
    kinds = ("CLIPModel", "CLIPModel")
    compare(row, library.backend, *both(checkpoint, (library, reference), kinds, inputs, options))


def test_gradients(checkpoint: Path, library: Process, reference: Process) -> None:
    """Of every variable, so that no layer hides behind a stopped or doubled gradient."""
    np.savez(checkpoint / "inputs.npz", **make_inputs(config_of(checkpoint), seed=4))
    for process, name in ((reference, "theirs.npz"), (library, "ours.npz")):
        process("gradients", checkpoint, checkpoint / "inputs.npz", checkpoint / name)
    with np.load(checkpoint / "ours.npz") as ours, np.load(checkpoint / "theirs.npz") as theirs:
        here, there = dict(ours), dict(theirs)
    row = ("CLIPModel", f"{SAFETENSORS}, {checkpoint.name}, one contrastive step")
    compare(row, library.backend, {"loss": here.pop("loss")}, {"loss": there.pop("loss")})
    assert here.keys() == there.keys()
    steepest = max(np.abs(gradient).max() for gradient in there.values())
    worst = 0.0
    for name, gradient in there.items():
        if name.endswith("k_proj.bias"):
            # A shift of all scores changes no softmax: the true gradient is zero, and rounding is all there is.
            assert max(np.abs(here[name]).max(), np.abs(gradient).max()) < 1e-6 * steepest
        else:
            worst = max(worst, largest(here[name], gradient) / np.abs(gradient).max())
    record(row, "gradients", library.backend, worst)


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("name", NAMES)
def test_a_class_saved_alone(name: str, kind: str, library: Process, folder: Path, reference: Process) -> None:
    ours_kind, part, reads = CLASSES[kind]
    config = CONFIGS[name]
    wanted = config[part] if part else {**config, "num_labels": 5}
    (folder / "wanted.json").write_text(json.dumps(wanted))
    reference("make", kind, folder, folder / "wanted.json")
    everything = make_inputs(config, "left", seed=3)
    inputs = {read: everything[read] for read in reads}
    row = (ours_kind, f"{SAFETENSORS}, {name}")
    compare(row, library.backend, *both(folder, (library, reference), (kind, ours_kind), inputs, INSIDE))
    if kind in ("CLIPTextModel", "CLIPVisionModel"):
        old = folder / "old"
        reference("to_version_4", kind, folder, old)
        library("run", ours_kind, old, folder / "inputs.npz", folder / "ours.npz", json.dumps(INSIDE))
        with np.load(folder / "ours.npz") as ours, np.load(folder / "theirs.npz") as theirs:
            compare((ours_kind, f"transformers 4 names, .bin, {name}"), library.backend, dict(ours), dict(theirs))
    back = folder / "back"
    library("again", ours_kind, folder, back)
    row = (ours_kind, f"saved here, loaded by transformers 5, {name}")
    compare(row, library.backend, *both(back, (library, reference), (kind, ours_kind), inputs, INSIDE))


@pytest.mark.parametrize(
    ("labels", "count", "problem_type"),
    [
        (np.array([0, 4, 2, 2]), 5, "single_label_classification"),
        (np.eye(5, dtype="float32")[[0, 4, 2, 2]], 5, "multi_label_classification"),
        (np.array([0.5, -1.0, 2.0, 0.0], "float32"), 1, "regression"),
    ],
    ids=["one class", "several classes", "regression"],
)
def test_losses_of_the_classifier(
    labels: np.ndarray, count: int, problem_type: str, library: Process, folder: Path, reference: Process
) -> None:
    kind = "CLIPForImageClassification"
    config = {**CONFIGS["odd"], "num_labels": count, "problem_type": problem_type}
    (folder / "wanted.json").write_text(json.dumps(config))
    reference("make", kind, folder, folder / "wanted.json")
    inputs = {"pixel_values": make_inputs(CONFIGS["odd"])["pixel_values"], "labels": labels}
    row = (kind, f"{SAFETENSORS}, odd, {problem_type}")
    compare(row, library.backend, *both(folder, (library, reference), (kind, kind), inputs))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_saved_here_loaded_there(name: str, dtype: str, library: Process, folder: Path, reference: Process) -> None:
    (folder / "wanted.json").write_text(json.dumps(CONFIGS[name]))
    library("make", "CLIPModel", folder / "wanted.json", folder, dtype)
    inputs = make_inputs(CONFIGS[name], seed=1)
    row = ("CLIPModel", f"saved here as {dtype}, loaded by transformers 5, {name}")
    compare(row, library.backend, *both(folder, (library, reference), ("CLIPModel", "CLIPModel"), inputs))
