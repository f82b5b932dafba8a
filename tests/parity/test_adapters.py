"""Adapters of AdapterHub and of PEFT: what they do, what they are after one step of training, and their files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import tf_clip
from tf_clip.adapters.files import hub_layout

from .conftest import ADAPTER_PACKAGES, LEGACY_PACKAGES, Process
from .measuring import largest, report

RATE = 0.1
# The widths of every CLIP that OpenAI released with a transformer of patches of 32 and 16, and two layers of each.
TEXT = {"vocab_size": 514, "hidden_size": 512, "intermediate_size": 640, "num_hidden_layers": 2}
TEXT |= {"num_attention_heads": 8, "max_position_embeddings": 16, "bos_token_id": 512, "eos_token_id": 513}
VISION = {"hidden_size": 768, "intermediate_size": 896, "num_hidden_layers": 2, "num_attention_heads": 12}
VISION |= {"image_size": 48, "patch_size": 16}
CONFIG = {"text_config": TEXT, "vision_config": VISION, "projection_dim": 64}

JOINT, TEXTS, IMAGES = "CLIPModel", "CLIPTextModel", "CLIPVisionModel"
NO_DROPOUT = {"architecture": "reft", "dropout": 0.0, "layers": "all", "prefix_positions": 3, "suffix_positions": 2}
NO_DROPOUT |= {"r": 2, "tied_weights": False}
# From a title to the kind of model, the configuration, and what `adapters` does right there: merge, one step.
HUB: dict[str, tuple[str, Any, set[str]]] = {
    "seq_bn": (JOINT, "seq_bn", {"step"}),
    "double_seq_bn": (JOINT, "double_seq_bn", {"step"}),
    "par_bn": (JOINT, "par_bn", {"step"}),
    "scaled_par_bn": (JOINT, "scaled_par_bn", {"step"}),
    "seq_bn_inv": (JOINT, "seq_bn_inv", {"step"}),
    "seq_bn with norms": (JOINT, "seq_bn[ln_before=True,ln_after=True]", {"step"}),
    "lora": (JOINT, "lora", {"merge", "step"}),
    "lora of all it has": (JOINT, "lora[attn_matrices=['q','k','v'],intermediate_lora=True,output_lora=True,alpha=4]",
                           {"merge", "step"}),
    "lora, layers left out": (JOINT, "lora[leave_out=[0,3]]", {"merge", "step"}),
    "ia3": (JOINT, "ia3", {"step"}),  # merged there it forgets the bias
    "dora": (JOINT, "dora", set()),  # gradients go through the lengths there
    "prefix_tuning": (JOINT, "prefix_tuning", {"step"}),
    "prefix_tuning_flat": (JOINT, "prefix_tuning_flat", {"step"}),
    "mam": (JOINT, "mam", {"step"}),
    "unipelt": (JOINT, "unipelt", {"step"}),
    # What fails there on a model with two widths.
    "compacter, text": (TEXTS, "compacter", {"step"}),
    "compacter++, images": (IMAGES, "compacter++", {"step"}),
    "vera, text": (TEXTS, "vera", set()),  # what is trained there are whole matrices
    "loreft, images": (IMAGES, {**NO_DROPOUT, "orthogonality": True}, set()),  # trains around a stored basis
    "noreft, text": (TEXTS, {**NO_DROPOUT, "orthogonality": False}, {"step"}),
}  # fmt: skip
PEFT = {
    "lora": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]},
    "rank-stabilised lora": {"r": 4, "use_rslora": True, "target_modules": ["q_proj", "k_proj", "out_proj", "fc1"]},
    "dora": {"r": 4, "lora_alpha": 6, "use_dora": True, "target_modules": ["v_proj", "fc2"]},
    "lora of one layer": {"r": 4, "target_modules": ["fc1"], "layers_to_transform": [1]},
}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """`adapters` and PEFT, on transformers 4."""
    path = f"{ADAPTER_PACKAGES}:{LEGACY_PACKAGES}"
    process = Process("adapter_hub.py", tmp_path_factory.mktemp("hub") / "log.txt", PYTHONPATH=path, USE_TF="0")
    yield process
    process.close()


@pytest.fixture(scope="module")
def base(hub: Process, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model, beside it what it is fed with."""
    folder = tmp_path_factory.mktemp("base")
    (folder / "wanted.json").write_text(json.dumps(CONFIG))
    hub("make", JOINT, folder / "wanted.json", folder)
    generator = np.random.default_rng(0)
    input_ids = generator.integers(1, 512, (3, 9))
    input_ids[:, 0], input_ids[[0, 1, 2], [8, 6, 4]] = 512, 513
    mask = (np.arange(9) <= np.array([[8], [6], [4]])).astype("int64")
    pixel_values = generator.normal(size=(3, 48, 48, 3)).astype("float32")
    np.savez(folder / "inputs.npz", input_ids=input_ids, attention_mask=mask, pixel_values=pixel_values)
    return folder


def model_of(kind: str, base: Path) -> tuple[Any, dict[str, Any]]:
    with np.load(base / "inputs.npz") as file:
        inputs = dict(file)
    pixel_values = inputs.pop("pixel_values")
    inputs = {name: value.astype("int32") for name, value in inputs.items()}
    if kind != TEXTS:
        inputs = {"pixel_values": pixel_values} if kind == IMAGES else {**inputs, "pixel_values": pixel_values}
    return getattr(tf_clip, kind).from_pretrained(base), inputs


def require_close(label: str, output: Any, path: Path, bound: float = 1e-5) -> None:
    with np.load(path) as file:
        theirs = dict(file)
    for name, value in theirs.items():
        scale = max(1.0, float(np.abs(value).max()))
        report(f"adapters, {label}, {name}", largest(np.asarray(output[name]), value) / scale, bound)


def take_step(model: Any, kind: str, inputs: dict[str, Any]) -> dict[str, np.ndarray]:
    """Takes one step of plain descent; returns the adapter's weights from before."""
    import tensorflow as tf

    before = hub_layout.to_tensors(hub_layout.adapter_modules(model.adapters.sites, "a", "a"))
    model.train_adapter("a")
    with tf.GradientTape() as tape:
        output = model(**inputs, return_loss=True) if kind == JOINT else model(**inputs)
        loss = output.loss if kind == JOINT else tf.reduce_mean(tf.square(output.pooler_output))
    optimizer = keras.optimizers.SGD(RATE)
    gradients = tape.gradient(loss, model.trainable_variables, unconnected_gradients=tf.UnconnectedGradients.ZERO)
    optimizer.apply(gradients, model.trainable_variables)
    return before


def require_equal_steps(label: str, model: Any, before: dict[str, np.ndarray], stepped: Path) -> None:
    """Compares the weights after one step, and what it changed in parts of the largest change."""
    ours = hub_layout.to_tensors(hub_layout.adapter_modules(model.adapters.sites, "a", "a"))
    model.load_adapter(stepped, load_as="b")
    theirs = hub_layout.to_tensors(hub_layout.adapter_modules(model.adapters.sites, "b", "a"))
    assert ours.keys() == theirs.keys() == before.keys()
    change = max(largest(theirs[name], before[name]) for name in before)
    worst = max(largest(ours[name], theirs[name]) for name in ours)
    assert change > 1e-5, "a step that changes nothing compares nothing"
    report(f"adapters, {label}, weights after one step", worst, 1e-5)
    report(f"adapters, {label}, one step in parts of its largest change", worst / change, 3e-4)


@pytest.mark.parametrize("title", HUB)
def test_an_adapter_of_adapter_hub(title: str, hub: Process, base: Path, folder: Path) -> None:
    kind, config, right = HUB[title]
    options = {"config": config, **dict.fromkeys(right, True)}
    hub("hub", kind, base, json.dumps(options), base / "inputs.npz", folder / "theirs")
    model, inputs = model_of(kind, base)
    assert model.load_adapter(folder / "theirs", set_active=True) == "a"
    require_close(f"{title}, active", model(**inputs), folder / "theirs" / "active.npz")
    if "merge" in right:
        model.merge_adapter("a")
        require_close(f"{title}, merged", model(**inputs), folder / "theirs" / "merged.npz")
        model.reset_adapter()
    model.save_adapter(folder / "ours", "a")
    hub("hub_reads", kind, base, folder / "ours", base / "inputs.npz", folder / "back.npz")
    model.active_adapters = "a"
    require_close(f"{title}, saved here, read there", model(**inputs), folder / "back.npz")
    if "step" in right:
        before = take_step(model, kind, inputs)
        require_equal_steps(title, model, before, folder / "theirs" / "stepped")


@pytest.mark.parametrize("block", ["Stack", "BatchSplit", "Fuse"])
def test_a_composition_of_adapter_hub(block: str, hub: Process, base: Path, folder: Path) -> None:
    options = {"batch_sizes": [1, 2]} if block == "BatchSplit" else {}
    wanted = json.dumps({"config": "seq_bn", "options": options})
    hub("hub_composed", JOINT, base, block, wanted, base / "inputs.npz", folder)
    model, inputs = model_of(JOINT, base)
    setup = model.adapters.load_adapter_setup(folder, set_active=True)
    assert type(setup).__name__ == block
    require_close(f"seq_bn, {block}", model(**inputs), folder / "active.npz")


@pytest.mark.parametrize("title", PEFT)
def test_an_adapter_of_peft(title: str, hub: Process, base: Path, folder: Path) -> None:
    hub("peft_makes", JOINT, base, json.dumps(PEFT[title]), base / "inputs.npz", folder / "theirs")
    model, inputs = model_of(JOINT, base)
    model.load_adapter(folder / "theirs", load_as="a", set_active=True)
    label = f"PEFT's {title}"
    require_close(f"{label}, active", model(**inputs), folder / "theirs" / "active.npz")
    model.merge_adapter("a")
    require_close(f"{label}, merged", model(**inputs), folder / "theirs" / "active.npz")
    model.reset_adapter()
    model.save_adapter(folder / "ours", "a", layout="peft")
    hub("peft_reads", JOINT, base, folder / "ours", base / "inputs.npz", folder / "back.npz")
    model.active_adapters = "a"
    require_close(f"{label}, saved here, read there", model(**inputs), folder / "back.npz")
    before = take_step(model, JOINT, inputs)
    require_equal_steps(label, model, before, folder / "theirs" / "stepped")
