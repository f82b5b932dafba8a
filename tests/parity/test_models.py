"""The same numbers as transformers, from its files to ours and back."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tf_clip import CLIPConfig, CLIPImageEncoder, CLIPModel, CLIPTextEncoder
from tf_clip.checkpoints.huggingface import source_tensor

from .conftest import CONFIGS, Reference
from .measuring import largest, report

BOUNDS = {
    "loss": 1e-5,
    "image_embeds": 1e-5,
    "text_embeds": 1e-5,
    "logits_per_image": 2e-4,
    "logits_per_text": 2e-4,
    "text_last_hidden_state": 1e-4,
    "text_pooler_output": 1e-4,
    "vision_last_hidden_state": 1e-4,
    "vision_pooler_output": 1e-4,
    "text_features": 1e-4,
    "image_features": 1e-4,
}
TOWERS = [
    pytest.param(CLIPTextEncoder, "CLIPTextModelWithProjection", "text", id="text"),
    pytest.param(CLIPImageEncoder, "CLIPVisionModelWithProjection", "vision", id="vision"),
]
TOWER_INPUTS = {"text": ("input_ids", "attention_mask"), "vision": ("pixel_values",)}


def make_inputs(config: CLIPConfig, padding: str = "right", images: int = 4, seed: int = 0) -> dict[str, np.ndarray]:
    """Four texts, from the shortest to the longest there is, and any number of pictures."""
    text, vision = config.text_config, config.vision_config
    generator = np.random.default_rng(seed)
    start, end = text.vocab_size - 2, text.vocab_size - 1  # the end has the highest id in every CLIP vocabulary
    length = text.max_position_embeddings
    lengths = np.linspace(3, length, 4).astype(int)
    ids = generator.integers(3, start, (4, length))
    mask = np.zeros_like(ids)
    for row, kept, count in zip(ids, mask, lengths, strict=True):
        row[0], row[count - 1] = start, end
        row[count:] = 0 if text.eos_token_id == 2 else end  # that the first end counts shows only in such padding
        kept[:count] = 1
        if padding == "left":
            row[count:] = 0
            row[:], kept[:] = np.roll(row, -count), np.roll(kept, -count)
    inputs = {"input_ids": ids.astype("int32")}
    if padding == "none":
        inputs["input_ids"][-1, -1] = 5  # a text that does not end
    else:
        inputs["attention_mask"] = mask.astype("int32")
    shape = (images, vision.image_size, vision.image_size, 3)
    return {**inputs, "pixel_values": generator.normal(size=shape).astype("float32")}


def theirs(reference: Reference, kind: str, folder: Path, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Runs a checkpoint in transformers."""
    np.savez(folder / "inputs.npz", **inputs)
    command = ("gradients",) if kind == "gradients" else ("run", kind)
    reference(*command, folder, folder / "inputs.npz", folder / "outputs.npz")
    with np.load(folder / "outputs.npz") as file:
        return dict(file)


def ours(model: CLIPModel, inputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Runs the same here, under the names that the reference writes."""
    texts = {name: array for name, array in inputs.items() if name != "pixel_values"}
    output = model(**inputs, return_loss=len(inputs["input_ids"]) == len(inputs["pixel_values"]))
    results = {name: value for name, value in output.items() if name in BOUNDS}
    for side in ("text", "vision"):
        for name, value in output[f"{side}_model_output"].items():
            results[f"{side}_{name}"] = value
    results["text_features"] = model.get_text_features(**texts)
    results["image_features"] = model.get_image_features(inputs["pixel_values"])
    return results


def compare(label: str, here: Mapping[str, Any], there: Mapping[str, np.ndarray]) -> None:
    assert here.keys() == there.keys()
    for name in there:
        # A loss of random models at a scale of 100 is tens, of which float32 keeps seven digits.
        scale = max(1.0, float(there[name])) if name == "loss" else 1.0
        report(f"{label} {name}", largest(here[name], there[name]) / scale, BOUNDS[name])


def disturb(model: Any) -> None:
    """Moves every weight: fresh norms and biases are ones and zeros, which would hide a swapped one."""
    generator = np.random.default_rng(0)
    for variable in model.trainable_variables:
        if variable.path.endswith("logit_scale"):
            variable.assign(np.log(100.0))
        else:
            variable.assign_add(generator.normal(0, 0.02, variable.shape).astype("float32"))


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> CLIPModel:
    model = CLIPModel.from_pretrained(checkpoint)
    assert not {"torch", "transformers"} & set(sys.modules), "loading must not need them"
    np.testing.assert_allclose(np.exp(model.logit_scale.numpy()), 100, rtol=1e-6)
    return model


@pytest.mark.parametrize(("padding", "images"), [("right", 4), ("left", 2), ("none", 2)])
def test_saved_there_loaded_here(
    checkpoint: Path, model: CLIPModel, reference: Reference, padding: str, images: int
) -> None:
    inputs = make_inputs(model.config, padding, images)
    compare(checkpoint.name, ours(model, inputs), theirs(reference, "CLIPModel", checkpoint, inputs))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_saved_here_loaded_there(checkpoint: Path, folder: Path, reference: Reference, dtype: str) -> None:
    model = CLIPModel(CLIPConfig.from_pretrained(checkpoint))
    disturb(model)
    model.save_pretrained(folder, dtype=dtype)
    if dtype == "float16":
        model = CLIPModel.from_pretrained(folder)  # for the rounded weights; the arithmetic stays in float32
    inputs = make_inputs(model.config, seed=1)
    label = f"{checkpoint.name} back as {dtype},"
    compare(label, ours(model, inputs), theirs(reference, "CLIPModel", folder, inputs))


def compare_tower(label: str, side: str, tower: Any, inputs: Mapping[str, np.ndarray], there: Any) -> None:
    here = tower(**inputs)
    for name in (f"{'image' if side == 'vision' else side}_embeds", "last_hidden_state"):
        # These embeddings are not of unit length: they are what the joint model calls features.
        report(f"{label} {side} {name}", largest(here[name], there[name]), 1e-4)


@pytest.mark.parametrize(("cls", "kind", "side"), TOWERS)
def test_a_tower_of_a_full_checkpoint_and_back(
    checkpoint: Path, model: CLIPModel, folder: Path, reference: Reference, cls: Any, kind: str, side: str
) -> None:
    tower = cls.from_pretrained(checkpoint)
    everything = make_inputs(model.config, seed=2)
    inputs = {name: everything[name] for name in TOWER_INPUTS[side]}
    there = theirs(reference, "CLIPModel", checkpoint, everything)
    embeds = "image" if side == "vision" else side
    whole = {
        f"{embeds}_embeds": there[f"{embeds}_features"],
        "last_hidden_state": there[f"{side}_last_hidden_state"],
    }
    compare_tower(f"{checkpoint.name} part,", side, tower, inputs, whole)
    tower.save_pretrained(folder)
    compare_tower(f"{checkpoint.name} part back,", side, tower, inputs, theirs(reference, kind, folder, inputs))


@pytest.mark.parametrize(("cls", "kind", "side"), TOWERS)
@pytest.mark.parametrize("name", CONFIGS)
def test_a_tower_saved_alone(name: str, folder: Path, reference: Reference, cls: Any, kind: str, side: str) -> None:
    (folder / "wanted.json").write_text(json.dumps(CONFIGS[name][f"{side}_config"]))
    reference("make", kind, folder, folder / "wanted.json")
    everything = make_inputs(CLIPConfig.from_dict(CONFIGS[name]), "left", seed=3)
    inputs = {key: everything[key] for key in TOWER_INPUTS[side]}
    tower = cls.from_pretrained(folder)
    compare_tower(f"{name} alone,", side, tower, inputs, theirs(reference, kind, folder, inputs))


def test_gradients(checkpoint: Path, model: CLIPModel, reference: Reference) -> None:
    """Of every variable, so that no layer hides behind a stopped or doubled gradient."""
    inputs = make_inputs(model.config, seed=4)
    there = theirs(reference, "gradients", checkpoint, inputs)
    variables = model._variables_by_path()
    with tf.GradientTape() as tape:
        loss = model(**inputs, return_loss=True).loss
    here = tape.gradient(loss, [variable.value for variable in variables.values()])
    compare(checkpoint.name, {"loss": loss}, {"loss": there.pop("loss")})
    assert len(there) == len(variables)
    steepest = max(np.abs(gradient).max() for gradient in there.values())
    worst = 0.0
    for path, gradient in zip(variables, here, strict=True):
        source = source_tensor(path)
        array = source.to_file_layout(tf.convert_to_tensor(gradient).numpy())
        # The true gradient of k_proj's bias is zero: what either side returns there is rounding alone.
        reach = max(np.abs(there[source.name]).max(), 1e-4 * steepest)
        worst = max(worst, largest(array, there[source.name]) / reach)
    # Twelve layers of float32 sums in another order leave less in common than three.
    report(f"{checkpoint.name} gradients, relative", worst, 1e-3 if checkpoint.name == "vit_b_32" else 1e-4)
