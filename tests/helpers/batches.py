"""Batches of pairs that are the same whenever they are asked for."""

from __future__ import annotations

from typing import Any

import numpy as np


class FixedBatches:
    """Pairs in an order of their own each epoch, as `TrainingData` gives them."""

    def __init__(self, pairs: Any, batch_size: Any, seed: int = 0) -> None:
        self.pairs, self.batch_size, self.seed = pairs, batch_size, seed
        self.steps_per_epoch = len(pairs["input_ids"]) // batch_size
        self.settings = {"seed": seed, "batch_size": batch_size}
        self.asked: list[tuple[int, int]] = []

    def dataset(self, epoch: Any = 0, start: Any = 0) -> Any:
        import tensorflow as tf

        self.asked.append((epoch, start))
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.pairs["input_ids"]))
        order = order[start * self.batch_size : self.steps_per_epoch * self.batch_size]
        rows = tf.data.Dataset.from_tensor_slices({name: values[order] for name, values in self.pairs.items()})
        return rows.batch(self.batch_size)
