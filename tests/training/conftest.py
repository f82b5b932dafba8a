"""What tests of training share: random pairs, and batches of them that are the same whenever they are asked for."""

import numpy as np
import pytest


class FixedBatches:
    """Pairs in an order of their own each epoch, as `TrainingData` gives them."""

    def __init__(self, pairs, batch_size, seed=0):
        self.pairs, self.batch_size, self.seed = pairs, batch_size, seed
        self.steps_per_epoch = len(pairs["input_ids"]) // batch_size
        self.settings = {"seed": seed, "batch_size": batch_size}
        self.asked = []

    def dataset(self, epoch=0, start=0):
        import tensorflow as tf

        self.asked.append((epoch, start))
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.pairs["input_ids"]))
        order = order[start * self.batch_size : self.steps_per_epoch * self.batch_size]
        rows = tf.data.Dataset.from_tensor_slices({name: values[order] for name, values in self.pairs.items()})
        return rows.batch(self.batch_size)


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
