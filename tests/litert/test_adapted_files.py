"""Files of models with adapters: active they are in the graph, merged they cost nothing."""

import numpy as np

import tf_clip
from helpers.adapted import add
from helpers.lite_files import noise, unit
from tf_clip.export import LiteRTModel

CONFIGS = {"lora": "lora", "mixed": "seq_bn[reduction_factor=4]|prefix_tuning_flat[prefix_length=2]"}


def test_active_and_merged_adapters_are_in_the_files(tiny_config, tiny_processor, tmp_path):
    model = tf_clip.CLIPModel(tiny_config)
    sizes = {}
    for name, config in CONFIGS.items():
        add(model, name, config)
    images = [noise(20, 20, seed) for seed in range(3)]
    pixel_values = tiny_processor(images=images)["pixel_values"]
    for name in ("none", *CONFIGS, "merged"):
        if name == "merged":
            model.merge_adapter("lora")
        else:
            model.active_adapters = None if name == "none" else name
        folder = tmp_path / name
        written = tf_clip.export.litert(model, tiny_processor, folder, parts=["image", "text"], text_lengths=[5])
        sizes[name] = sum(path.stat().st_size for path in written.values())
        wanted = unit(model.get_image_features(pixel_values))
        np.testing.assert_allclose(LiteRTModel(folder).encode_images(images), wanted, atol=1e-5)
    assert abs(sizes["merged"] - sizes["none"]) < 64, "but for padding"
    assert sizes["none"] + 1000 < min(sizes["lora"], sizes["mixed"])
