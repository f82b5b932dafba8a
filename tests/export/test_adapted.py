"""Exports of models with adapters: active they are in the graph, merged they cost nothing, switched are refused."""

import numpy as np
import pytest

import tf_clip
from helpers.adapted import add
from helpers.served_models import encoded, signatures_of
from tf_clip.adapters import Switch


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_active_and_merged_adapters_are_exported(tiny_config, tiny_processor, tmp_path, dtype):
    model = tf_clip.CLIPModel(tiny_config)
    add(model, "lora", "lora")
    add(model, "mixed", "seq_bn[reduction_factor=4]|prefix_tuning[prefix_length=2,bottleneck_size=4]")
    files = [encoded(shape=(21, 30, 3), seed=seed) for seed in range(2)]
    tolerance = {"atol": 1e-5 if dtype == "float32" else 1e-2}
    sizes = []
    for number, setup in enumerate(("lora", "mixed", None)):
        model.active_adapters = setup
        if setup is None:
            model.merge_adapter("lora")
        folder = tf_clip.export.saved_model(model, tiny_processor, tmp_path / str(number), dtype=dtype)
        served = signatures_of(folder)
        pixels = tiny_processor(images=[np.zeros((20, 20, 3), "uint8")])["pixel_values"]
        text = tiny_processor.tokenizer(["an owl"])["input_ids"]
        expected = np.asarray(model.get_text_features(text))
        found = served["encode_text"](text=[b"an owl"])["text_embeds"]
        np.testing.assert_allclose(found, expected / np.linalg.norm(expected, axis=-1, keepdims=True), **tolerance)
        assert served["encode_image"](image_bytes=files)["status"].tolist() == [b"ok"] * 2 and pixels.shape[0] == 1
        sizes.append(sum(path.stat().st_size for path in folder.rglob("variables.data*")))
    assert sizes[2] < sizes[0] and sizes[2] < sizes[1]


def test_rows_that_choose_are_refused(tiny_config, tiny_processor, tmp_path):
    model = tf_clip.CLIPModel(tiny_config)
    for name in ("a", "b"):
        model.add_adapter(name, "lora")
    model.active_adapters = Switch("a", "b")
    with pytest.raises(ValueError, match="must do the same with every row"):
        tf_clip.export.saved_model(model, tiny_processor, tmp_path)
