"""Two devices and two processes train as one with the whole batch does: same loss, same accuracy, same weights."""

import json
import socket
import subprocess
import sys

import numpy as np
import pytest

from helpers import environment
from tf_clip import CLIPModel

pytestmark = pytest.mark.process

PREFIXES = "prefix_tuning[prefix_length=2,bottleneck_size=4]"
CASES = {
    "two devices": ("mirrored", {}),
    "two devices, clipping, several positives, chunks": (
        "mirrored",
        {
            "optimizer": {"global_clipnorm": 0.5},
            "several_positives": True,
            "loss": "ContrastiveLoss",
            "loss_options": {"chunk_size": 2, "label_smoothing": 0.1},
            "encode_chunk_size": 2,
        },
    ),
    # What its prefixes are made from is shared by both towers.
    "two devices, an adapter": ("mirrored", {"adapter": PREFIXES, "encode_chunk_size": 2}),
    "two processes": ("workers", {"optimizer": {"momentum": 0.9, "weight_decay": 0.1}}),
    "two devices of JAX": ("data_parallel", {"encode_chunk_size": 4, "several_positives": True}),
    "two devices of JAX, an adapter": ("data_parallel", {"adapter": PREFIXES}),
}


def make(folder, config, **settings):
    """Writes what the workers read: 12 pairs, and the weights to begin with."""
    generator = np.random.default_rng(3)
    input_ids = generator.integers(0, 512, (12, 6)).astype("int32")
    input_ids[:, 0], input_ids[:, -1] = 512, 513
    pairs = {"input_ids": input_ids, "pixel_values": generator.normal(size=(12, 20, 20, 3)).astype("float32")}
    if settings.pop("several_positives", False):
        pairs["pair_ids"] = np.array([0, 1, 1, 2, 3, 3, 4, 5, 5, 6, 7, 0], "int32")
    np.savez(folder / "pairs.npz", **pairs)
    np.savez(folder / "weights.npz", *CLIPModel(config).get_weights())
    (folder / "settings.json").write_text(json.dumps({"config": config.to_dict(), "batch_size": 6, **settings}))


def start(runs, **variables):
    command = [sys.executable, "-m", "helpers.distributed_worker", *(f"{how}={folder}" for how, folder in runs)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment(**variables)
    )


def cluster():
    """Returns what tells each of two processes about both, on two free ports of this machine."""
    sockets = [socket.socket() for _ in range(2)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    for one in sockets:
        one.close()
    return [
        json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}) for index in (0, 1)
    ]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, tiny_config):
    """Runs all cases, each on one device, too, in six processes; returns their folders."""
    folders = {}
    # Of MirroredStrategy one a process: the collective operations of a second have the numbers of the first's.
    runs = {"mirrored": [], "workers": [], "data_parallel": [[]]}
    for name, (how, settings) in CASES.items():
        folders[name] = tmp_path_factory.mktemp(how)
        make(folders[name], tiny_config, **settings)
        if how == "mirrored":
            runs[how].append([("one", folders[name]), (how, folders[name])])
        elif how == "workers":
            runs["mirrored"][0].insert(0, ("one", folders[name]))
            runs[how].append([(how, folders[name])])
        else:
            runs[how][0] += [("one", folders[name]), (how, folders[name])]
    (of_workers,), (of_jax,) = runs["workers"], runs["data_parallel"]
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    processes = [
        *(start(of_one, KERAS_BACKEND="tensorflow") for of_one in runs["mirrored"]),
        *(start(of_workers, KERAS_BACKEND="tensorflow", TF_CONFIG=config) for config in cluster()),
        start(of_jax, KERAS_BACKEND="jax", **flags),
    ]
    try:
        # Only what hangs takes so long; a machine with other work to do takes minutes.
        outputs = [process.communicate(timeout=900)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output[-6000:]
    return folders


@pytest.mark.parametrize("case", CASES)
def test_two_train_as_one(trained, case):
    folder = trained[case]
    with np.load(folder / "one.npz") as file:
        expected = dict(file)
    how, _ = CASES[case]
    for name in ("workers0", "workers1") if how == "workers" else (how,):
        with np.load(folder / f"{name}.npz") as file:
            found = dict(file)
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            # Sums of half a batch each round otherwise than the sum of the whole: some units of the last place.
            np.testing.assert_allclose(found[key], value, rtol=1e-5, atol=1e-6, err_msg=f"{name}, {key}")
    weights = {key: value for key, value in expected.items() if key.startswith("weight")}
    steps = [np.abs(value - expected[key.replace("weight", "start")]).max() for key, value in weights.items()]
    assert max(steps) > 1e-3
