"""What tf_clip says about models is what their own libraries say: activations, sizes, parameters, operations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tf_clip import CLIPConfig, known_models
from tf_clip.families import cost
from tf_clip.families.clip import openclip

from .conftest import Process
from .test_formats import EVEN, REAL, RESNET, RN50, openai_arguments


def test_the_registry_agrees_with_openclip(reference: Process, folder: Path) -> None:
    reference("list_openclip", folder / "rows.json")
    rows = {row["hub_id"]: row for row in json.loads((folder / "rows.json").read_text()) if row["hub_id"]}
    compared = 0
    for model in known_models():
        if model.layout != "openclip":
            continue
        row = rows[model.hub_id]
        described = {**row["model_cfg"], "quick_gelu": row.get("quick_gelu", False)}
        described.pop("custom_text", None)
        theirs = CLIPConfig.from_dict(openclip.to_config(described, model.hub_id))
        ours = model.config
        assert theirs.text_config.hidden_act == ours.text_config.hidden_act, model.hub_id
        assert cost.parameter_count(theirs) == cost.parameter_count(ours), model.hub_id
        assert cost.operations_per_image(theirs) == cost.operations_per_image(ours), model.hub_id
        assert theirs.vision_config.num_attention_heads == ours.vision_config.num_attention_heads, model.hub_id
        assert ("0.5" in model.images) == (row["mean"] == [0.5, 0.5, 0.5]), model.hub_id
        assert ("square" in model.images) == (row["resize_mode"] == "squash"), model.hub_id
        compared += 1
    assert compared > 25


@pytest.mark.parametrize(("config", "resnet"), [(EVEN, None), (REAL, None), (EVEN, RESNET), (REAL, RN50)])
def test_costs_are_what_pytorch_counts(
    config: dict[str, Any], resnet: dict[str, Any] | None, reference: Process, folder: Path
) -> None:
    arguments = openai_arguments(config, resnet)
    (folder / "arguments.json").write_text(json.dumps(arguments))
    reference("count_operations", folder / "arguments.json", folder / "counts.json")
    counts = json.loads((folder / "counts.json").read_text())
    if resnet:
        vision = {"model_type": "clip_resnet_model", "depths": resnet["layers"], "embedding_size": resnet["width"]}
        vision |= {"num_attention_heads": resnet["width"] // 2, "image_size": resnet["image_size"]}
        config = {**config, "vision_config": vision}
    ours = CLIPConfig.from_dict(config)
    pooled_in_vain = 0
    if resnet:
        # This release of theirs pools with every place as a query and then keeps the first alone.
        width, places = ours.vision_config.hidden_size, ours.vision_config.num_patches + 1
        pooled_in_vain = 2 * (places - 1) * (width * width + 2 * places * width + width * ours.projection_dim)
    assert cost.parameter_count(ours) == counts["parameters"]
    assert cost.operations_per_text(ours) == counts["text"]
    assert cost.operations_per_image(ours) + pooled_in_vain == counts["image"]
