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


def start(how, folder, **variables):
    command = [sys.executable, "-m", "helpers.distributed_worker", how, str(folder)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment(**variables)
    )


def finish(*processes):
    try:
        # Only what hangs takes so long; a machine with other work to do takes minutes.
        outputs = [process.communicate(timeout=900)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output[-6000:]


def two_processes(folder):
    """Runs MultiWorkerMirroredStrategy on two free ports of this machine."""
    sockets = [socket.socket() for _ in range(2)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    for one in sockets:
        one.close()
    processes = []
    for index in range(2):
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        processes.append(start("workers", folder, KERAS_BACKEND="tensorflow", TF_CONFIG=json.dumps(task)))
    finish(*processes)
    return ["workers0", "workers1"]


def two_devices(folder):
    finish(start("mirrored", folder, KERAS_BACKEND="tensorflow"))
    return ["mirrored"]


def two_devices_of_jax(folder):
    finish(start("data_parallel", folder, KERAS_BACKEND="jax", XLA_FLAGS="--xla_force_host_platform_device_count=2"))
    return ["data_parallel"]


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


PREFIXES = "prefix_tuning[prefix_length=2,bottleneck_size=4]"
CASES = {
    "two devices": (two_devices, {}),
    "two devices, clipping, several positives, chunks": (
        two_devices,
        {
            "optimizer": {"global_clipnorm": 0.5},
            "several_positives": True,
            "loss": "ContrastiveLoss",
            "loss_options": {"chunk_size": 2, "label_smoothing": 0.1},
            "encode_chunk_size": 2,
        },
    ),
    # What its prefixes are made from is shared by both towers.
    "two devices, an adapter": (two_devices, {"adapter": PREFIXES, "encode_chunk_size": 2}),
    "two processes": (two_processes, {"optimizer": {"momentum": 0.9, "weight_decay": 0.1}}),
    "two devices of JAX": (two_devices_of_jax, {"encode_chunk_size": 4, "several_positives": True}),
    "two devices of JAX, an adapter": (two_devices_of_jax, {"adapter": PREFIXES}),
}


@pytest.mark.parametrize(("run", "settings"), CASES.values(), ids=CASES)
def test_two_train_as_one(tmp_path, tiny_config, run, settings):
    make(tmp_path, tiny_config, **settings)
    one = start("one", tmp_path, KERAS_BACKEND="jax" if run is two_devices_of_jax else "tensorflow")
    try:
        names = run(tmp_path)
    except BaseException:
        one.kill()
        raise
    finish(one)
    with np.load(tmp_path / "one.npz") as file:
        expected = dict(file)
    for name in names:
        with np.load(tmp_path / f"{name}.npz") as file:
            found = dict(file)
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            rtol = 0 if key.startswith("weight") else 1e-5
            np.testing.assert_allclose(found[key], value, rtol=rtol, atol=1e-6, err_msg=f"{name}, {key}")
    weights = {key: value for key, value in expected.items() if key.startswith("weight")}
    steps = [np.abs(value - expected[key.replace("weight", "start")]).max() for key, value in weights.items()]
    assert max(steps) > 1e-3
