"""Reference checkpoints, inputs and outputs, made by `reference.py` with transformers and PyTorch."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

REFERENCE = Path(__file__).with_name("reference.py")

ODD = {
    "text_config": {
        "vocab_size": 99,
        "hidden_size": 40,
        "intermediate_size": 72,
        "projection_dim": 12,
        "num_hidden_layers": 3,
        "num_attention_heads": 5,
        "max_position_embeddings": 20,
        "hidden_act": "gelu",
        "bos_token_id": 97,
        "eos_token_id": 98,
        "pad_token_id": 0,
    },
    "vision_config": {
        "hidden_size": 48,
        "intermediate_size": 100,
        "projection_dim": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "image_size": 30,
        "patch_size": 7,
    },
    "projection_dim": 24,
}
LEGACY = {**ODD, "text_config": {**ODD["text_config"], "eos_token_id": 2}}
CONFIGS = {"vit_b_32": {}, "odd": ODD, "legacy_eos": LEGACY}


def pytest_configure(config):
    if not all(importlib.util.find_spec(name) for name in ("torch", "transformers")):
        raise pytest.UsageError("tests/parity needs torch and transformers: run `make parity`, which installs them.")


def reference(*words):
    result = subprocess.run(
        [sys.executable, str(REFERENCE), *map(str, words)], capture_output=True, text=True, timeout=600
    )
    assert result.returncode == 0, result.stdout + result.stderr


def report(label, difference, bound):
    print(f"\n  {label}: {difference:.2e} (at most {bound:.0e})", end="")
    assert difference <= bound, label


def largest(ours, theirs):
    return float(np.abs(np.asarray(ours) - np.asarray(theirs)).max())


def make_inputs(config, count=3, seed=0):
    """As many texts as images; texts of several lengths, padded on the right."""
    text, vision = config.text_config, config.vision_config
    generator = np.random.default_rng(seed)
    length = min(12, text.max_position_embeddings)
    ends = np.arange(count) % (length - 3) + 3
    ids = generator.integers(3, text.vocab_size - 2, (count, length))
    ids[:, 0] = text.vocab_size - 2
    ids[np.arange(count), ends - 1] = text.vocab_size - 1  # the highest id, as in every CLIP vocabulary
    mask = np.arange(length) < ends[:, None]
    ids = np.where(mask, ids, text.vocab_size - 1 if text.eos_token_id != 2 else 0)
    pixels = generator.normal(size=(count, vision.image_size, vision.image_size, 3))
    return {
        "input_ids": ids.astype("int32"),
        "attention_mask": mask.astype("int32"),
        "pixel_values": pixels.astype("float32"),
    }


@pytest.fixture(scope="session", params=CONFIGS)
def checkpoint(request, tmp_path_factory):
    """A folder that transformers has saved a random model in."""
    folder = tmp_path_factory.mktemp(request.param)
    config = folder / "wanted.json"
    config.write_text(json.dumps(CONFIGS[request.param]))
    reference("make", folder, config)
    return folder
