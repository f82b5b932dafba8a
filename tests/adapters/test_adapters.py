"""Adapters on every backend: one of each family acts, trains, merges, is saved and switched."""

import keras
import numpy as np
import pytest

from helpers.adapted import METHODS, add
from helpers.arrays import array, assert_close, assert_same
from tf_clip.adapters.composition import Average, BatchSplit, Fuse, Parallel, Split, Switch

pytestmark = pytest.mark.backends

FAMILIES = {
    "bottleneck": "seq_bn[reduction_factor=4]",
    "compacter": "compacter[reduction_factor=2]",
    "lora": "lora[r=2]",
    "ia3": "ia3",
    "dora": "dora[r=2]",
    "vera": "vera",
    "prefix": "prefix_tuning[prefix_length=2,bottleneck_size=4]",
    "reft": "loreft[r=2,dropout=0.0]",
    "prompts": "prompt_tuning[prompt_length=2]",
    "invertible": "seq_bn_inv[reduction_factor=4]",
    "union": METHODS["unipelt"],
}


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family(family, tiny_model, tiny_inputs, tmp_path):
    base = array(tiny_model(**tiny_inputs).logits_per_image)
    add(tiny_model, "a", FAMILIES[family])
    assert_same(tiny_model(**tiny_inputs).logits_per_image, base)
    tiny_model.active_adapters = "a"
    active = array(tiny_model(**tiny_inputs).logits_per_image)
    assert np.abs(active - base).max() > 1e-2
    if family in ("lora", "ia3", "dora", "vera"):
        tiny_model.merge_adapter("a")
        assert_close(tiny_model(**tiny_inputs).logits_per_image, active, atol=2e-5)
        tiny_model.reset_adapter()
        assert_same(tiny_model(**tiny_inputs).logits_per_image, base)
    tiny_model.train_adapter("a")
    before = [array(v.value) for v in tiny_model.trainable_variables]
    tiny_model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert_close(again(**tiny_inputs).logits_per_image, active, atol=1e-5)
    # A graph is traced once for all: that takes most of the time.
    tiny_model.compile(keras.optimizers.SGD(0.1), run_eagerly=family != "lora")
    tiny_model.fit({name: value[:2] for name, value in tiny_inputs.items()}, batch_size=2, verbose=0)
    moved = [
        np.abs(array(v.value) - old).max() > 0 for v, old in zip(tiny_model.trainable_variables, before, strict=True)
    ]
    assert any(moved)
    tiny_model.active_adapters = None
    assert_same(tiny_model(**tiny_inputs).logits_per_image, base)


def test_rows_choose_and_are_parted(tiny_model, tiny_inputs):
    texts = {name: tiny_inputs[name] for name in ("input_ids", "attention_mask")}
    for family in ("lora", "bottleneck", "prefix"):
        for seed, name in enumerate(("a", "b")):
            add(tiny_model, f"{family}_{name}", FAMILIES[family], seed)
        names = [f"{family}_a", f"{family}_b"]
        alone = []
        for name in names:
            tiny_model.active_adapters = name
            alone.append(array(tiny_model.get_text_features(**texts)))
        expected = np.concatenate([alone[0][:1], alone[1][1:]])
        tiny_model.active_adapters = Switch(*names)
        ids = np.array([0, 1, 1], "int32")
        assert_close(tiny_model.get_text_features(**texts, adapter_ids=ids), expected, atol=2e-5)
        tiny_model.active_adapters = BatchSplit(*names, batch_sizes=[1, 2])
        assert_close(tiny_model.get_text_features(**texts), expected, atol=2e-5)
        tiny_model.active_adapters = Parallel(*names)
        assert_close(tiny_model.get_text_features(**texts), np.concatenate(alone), atol=2e-5)
        tiny_model.active_adapters = None
    tiny_model.active_adapters = "lora_a"
    alone = array(tiny_model.get_text_features(**texts))
    for same in (Average("lora_a", "lora_a"), Split("lora_a", "lora_a", splits=[3, 4])):
        tiny_model.active_adapters = same
        assert_close(tiny_model.get_text_features(**texts), alone, atol=2e-5)
    tiny_model.adapters.add_adapter_fusion(["bottleneck_a", "bottleneck_b"])
    tiny_model.active_adapters = Fuse("bottleneck_a", "bottleneck_b")
    fused = array(tiny_model.get_text_features(**texts))
    assert np.isfinite(fused).all() and np.abs(fused - alone).max() > 1e-3
