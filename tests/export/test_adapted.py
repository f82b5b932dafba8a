"""Exports of models with adapters: active they are in the graph, merged they cost nothing, switched are refused."""

import numpy as np
import pytest
import tensorflow as tf

import tf_clip
from helpers.adapted import add
from tf_clip.adapters import Switch
from tf_clip.export.savedmodel.graph import EncodingGraph, Limits
from tf_clip.export.weights import StoredWeights
from tf_clip.preprocessing.images.decode import MAX_PIXELS

pytestmark = pytest.mark.slow

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
        graph = EncodingGraph(weights, tiny_processor, Limits("status", MAX_PIXELS, 100))
        found = graph.text(tf.constant(["an owl"]))
        np.testing.assert_allclose(found[0], unit(model.get_text_features(text)), atol=tolerance)
        # A SavedModel holds the stored weights alone: whatever else is read would be missing in it.
        stored = {id(variable) for variable in weights.variables.values()}
        for tower in (graph._text_tower, graph._image_tower):
            assert {id(variable) for variable in tower.get_concrete_function().graph.variables} <= stored
        counts.append(len(weights.variables))
    assert counts[2] < min(counts[:2])


def test_rows_that_choose_are_refused(tiny_config, tiny_processor, tmp_path):
    model = tf_clip.CLIPModel(tiny_config)
    for name in ("a", "b"):
        model.add_adapter(name, "lora")
    model.active_adapters = Switch("a", "b")
    with pytest.raises(ValueError, match="must do the same with every row"):
        tf_clip.export.saved_model(model, tiny_processor, tmp_path)
