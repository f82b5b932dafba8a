"""Files of models with adapters: active they are in the graph, merged they cost nothing."""

import numpy as np
import pytest

import tf_clip
from helpers.adapted import add
from helpers.lite_files import unit
from tf_clip.export import LiteRTModel

pytestmark = pytest.mark.slow

CONFIGS = {"lora": "lora", "mixed": "seq_bn[reduction_factor=4]|prefix_tuning_flat[prefix_length=2]"}


def test_active_and_merged_adapters_are_in_the_files(tiny_config, tiny_processor, tmp_path):
    model = tf_clip.CLIPModel(tiny_config)
    sizes = {}
    for name, config in CONFIGS.items():
        add(model, name, config)
    texts = ["an owl", "a red bus"]
    ids = tiny_processor.tokenizer(texts, padding=False, return_tensors=None)["input_ids"]
    for name in ("none", *CONFIGS, "merged"):
        if name == "merged":
            model.merge_adapter("lora")
        else:
            model.active_adapters = None if name == "none" else name
        folder = tmp_path / name
        # One signature: a text at its full length.
        (file,) = tf_clip.export.litert(model, tiny_processor, folder, parts=["text"], text_lengths=[]).values()
        sizes[name] = file.stat().st_size
        wanted = unit(model.get_text_features(**tiny_processor(text=texts)))
        np.testing.assert_allclose(LiteRTModel(folder).encode_ids(ids), wanted, atol=1e-5)
    assert abs(sizes["merged"] - sizes["none"]) < 64, "but for padding"
    assert sizes["none"] + 500 < min(sizes["lora"], sizes["mixed"])
