"""What tests of training share: random pairs, batches of them, and a small checkpoint."""

import numpy as np
import pytest

from helpers.batches import FixedBatches


@pytest.fixture(scope="session")
def random_pairs():
    """24 random images, each with its own random caption."""
    generator = np.random.default_rng(1)
    input_ids = generator.integers(0, 512, (24, 6)).astype("int32")
    input_ids[:, 0], input_ids[:, -1] = 512, 513
    return {"input_ids": input_ids, "pixel_values": generator.normal(size=(24, 20, 20, 3)).astype("float32")}


@pytest.fixture
def batches(random_pairs):
    return FixedBatches(random_pairs, batch_size=4)


@pytest.fixture(scope="session")
def small_config(tiny_config):
    """One layer a tower, since making a graph is what takes the time."""
    from tf_clip import CLIPConfig

    fields = tiny_config.to_dict()
    for tower in ("text_config", "vision_config"):
        fields[tower] = {**fields[tower], "num_hidden_layers": 1}
    return CLIPConfig.from_dict(fields)


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory, small_config, tiny_processor):
    """A folder in Hugging Face layout."""
    from tf_clip import CLIPModel

    folder = tmp_path_factory.mktemp("small")
    CLIPModel(small_config).save_pretrained(folder)
    tiny_processor.save_pretrained(folder)
    return folder
