"""A compiled ViT-B/32 against transformers on the same random weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from .conftest import Process


@pytest.mark.real_size
def test_a_compiled_vit_b_32_computes_what_transformers_does(folder: Path, reference: Process) -> None:
    from tf_clip import CLIPConfig, CLIPModel, compile_for_inference

    text = {"bos_token_id": 49406, "eos_token_id": 49407}
    model = CLIPModel(CLIPConfig(text_config=text))
    generator = np.random.default_rng(0)
    for variable in model.weights:
        # Fresh norms do nothing, and fresh biases are zero.
        if len(variable.shape) == 1:
            variable.assign(variable + 0.1 * generator.normal(size=variable.shape))
    model.save_pretrained(folder)
    fast = compile_for_inference(model, engine="tensorflow")
    del model

    ends = np.array([12, 5, 5, 76])
    input_ids = generator.integers(0, 49406, (4, 77))
    input_ids[:, 0] = 49406
    input_ids[1, :4] = input_ids[2, :4]
    input_ids[np.arange(4), ends] = 49407
    pixel_values = generator.normal(size=(3, 224, 224, 3)).astype("float32")
    ours = fast(input_ids, pixel_values)

    np.savez(folder / "inputs.npz", input_ids=input_ids, pixel_values=pixel_values)
    reference("run", "CLIPModel", folder, folder / "inputs.npz", folder / "theirs.npz", json.dumps({}))
    with np.load(folder / "theirs.npz") as theirs:
        for name in ("image_embeds", "text_embeds"):
            np.testing.assert_allclose(ours[name], theirs[name], atol=1e-5)
        np.testing.assert_allclose(ours["logits_per_image"], theirs["logits_per_image"], atol=1e-4)
