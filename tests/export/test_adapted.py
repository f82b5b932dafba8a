"""Exports of models with adapters: active they are in the graph, merged they cost nothing, switched are refused."""

import numpy as np
import pytest
import tensorflow as tf

import tf_clip
from helpers.adapted import add
from helpers.served_models import encoded, signatures_of
from tf_clip.adapters import Switch
from tf_clip.export.savedmodel.graph import EncodingGraph, Limits
from tf_clip.export.weights import StoredWeights
from tf_clip.preprocessing.images.decode import MAX_PIXELS

MIXED = "seq_bn[reduction_factor=4]|prefix_tuning[prefix_length=2,bottleneck_size=4]"


def unit(rows):
    rows = np.asarray(rows)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float16", 1e-2)])
def test_active_and_merged_adapters_are_in_the_graph(tiny_config, tiny_processor, dtype, tolerance):
    model = tf_clip.CLIPModel(tiny_config)
    add(model, "lora", "lora")
    add(model, "mixed", MIXED)
    text = tiny_processor.tokenizer(["an owl"])["input_ids"]
    counts = []
    for active in ("lora", "mixed", None):
        model.active_adapters = active
        if active is None:
            model.merge_adapter("lora")
        weights = StoredWeights(model, dtype)
        found = EncodingGraph(weights, tiny_processor, Limits("status", MAX_PIXELS, 100)).text(tf.constant(["an owl"]))
        np.testing.assert_allclose(found[0], unit(model.get_text_features(text)), atol=tolerance)
        counts.append(len(weights.variables))
    assert counts[2] < min(counts[:2])


def test_active_adapters_are_saved(tiny_config, tiny_processor, tmp_path):
    model = tf_clip.CLIPModel(tiny_config)
    add(model, "mixed", MIXED)
    model.active_adapters = "mixed"
    served = signatures_of(tf_clip.export.saved_model(model, tiny_processor, tmp_path))
    files = [encoded(shape=(21, 30, 3), seed=seed) for seed in range(2)]
    wanted = unit(model.get_image_features(tiny_processor(images=files)["pixel_values"]))
    np.testing.assert_allclose(served["encode_image"](image_bytes=files)["image_embeds"], wanted, atol=1e-5)


def test_rows_that_choose_are_refused(tiny_config, tiny_processor, tmp_path):
    model = tf_clip.CLIPModel(tiny_config)
    for name in ("a", "b"):
        model.add_adapter(name, "lora")
    model.active_adapters = Switch("a", "b")
    with pytest.raises(ValueError, match="must do the same with every row"):
        tf_clip.export.saved_model(model, tiny_processor, tmp_path)
