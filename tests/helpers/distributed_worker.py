"""Trains a tiny model for two steps, on one device or on several, and saves what came of it.

python -m helpers.distributed_worker HOW=FOLDER ...      HOW: one, mirrored, workers, data_parallel

For each, reads FOLDER/settings.json, pairs.npz and weights.npz; writes FOLDER/HOW.npz with weights, loss and accuracy.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tf_clip import CLIPModel, losses


def prepare(hows: set[str]) -> None:
    """Makes this machine's processor two devices, which must come before anything runs."""
    if "mirrored" in hows:
        import tensorflow as tf

        (cpu,) = tf.config.list_physical_devices("CPU")
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)


def scope(how: str) -> Any:
    """Returns what a model is to be made in."""
    if keras.backend.backend() == "jax":
        import jax

        assert len(jax.devices()) == 2
        devices = keras.distribution.DataParallel(devices=keras.distribution.list_devices())
        keras.distribution.set_distribution(devices if how == "data_parallel" else None)
    if how not in ("mirrored", "workers"):
        return contextlib.nullcontext()
    import tensorflow as tf

    if how == "workers":
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    else:
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    assert strategy.num_replicas_in_sync == 2
    return strategy.scope()


def train(how: str, folder: Path) -> None:
    """Trains as a folder's settings say."""
    settings = json.loads((folder / "settings.json").read_text())
    with np.load(folder / "pairs.npz") as file:
        pairs = dict(file)
    with scope(how):
        model = CLIPModel(settings["config"], dtype=settings.get("dtype"))
        with np.load(folder / "weights.npz") as file:
            model.set_weights([file[name] for name in file])
        if settings.get("adapter"):
            keras.utils.set_random_seed(0)
            model.add_adapter("a", settings["adapter"])
            model.train_adapter("a")
        optimizer = keras.optimizers.SGD(0.1, **settings.get("optimizer", {}))
        loss = settings.get("loss") and getattr(losses, settings["loss"])(**settings.get("loss_options", {}))
        model.compile(optimizer, loss=loss or None, encode_chunk_size=settings.get("encode_chunk_size"))
    before = {f"start {number:03d}": value for number, value in enumerate(model.get_weights())}
    history = model.fit(pairs, batch_size=settings["batch_size"], shuffle=False, verbose=0).history
    found = model.evaluate(pairs, batch_size=settings["batch_size"], verbose=0, return_dict=True)
    name = f"{how}{json.loads(os.environ['TF_CONFIG'])['task']['index']}" if how == "workers" else how
    arrays = {f"weight {number:03d}": value for number, value in enumerate(model.get_weights())}
    arrays |= {f"fit {key}": np.array(values) for key, values in history.items()}
    arrays |= {f"evaluate {key}": np.array(value) for key, value in found.items()}
    np.savez(folder / f"{name}.npz", **arrays, **before)


if __name__ == "__main__":
    runs = [argument.split("=", 1) for argument in sys.argv[1:]]
    prepare({how for how, _ in runs})
    for how, folder in runs:
        train(how, Path(folder))
