"""The model in a process with nothing but TensorFlow: what it loads, which operations it has, and what it answers."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from helpers.served_models import encoded

pytestmark = pytest.mark.process

TEXTS = ["an owl", "a bus, the 2nd one!", "", "été 🚀"]
FILES = [encoded("JPEG", (90, 60, 3)), b"no image", encoded("PNG", (57, 80, 3)), encoded("GIF"), encoded("WebP")]
# Reads a folder with a model, files and texts; writes what a session makes of them, as a server has one.
CODE = """
import json, sys, threading
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.framework import op_def_registry

folder, count, texts = sys.argv[1], int(sys.argv[2]), json.loads(sys.argv[3])
with open(folder + "/saved_model.pb", "rb") as file:
    graph = saved_model_pb2.SavedModel.FromString(file.read()).meta_graphs[0].graph_def
functions = graph.library.function
nodes = [node for part in (graph.node, *(f.node_def for f in functions)) for node in part]
used = {node.op for node in nodes} - {f.signature.name for f in functions}
compiled = [f.signature.name for f in functions if any(f.attr[name].b for name in f.attr if "Xla" in name)]
compiled += [node.name for node in nodes if any(node.attr[name].b for name in node.attr if "Xla" in name)]
unknown = sorted(name for name in used if op_def_registry.get(name) is None)

files = [open(f"{sys.argv[4]}/{index}", "rb").read() for index in range(count)]
inputs = {
    "classify": {"image_bytes": files}, "encode_image": {"image_bytes": files}, "encode_text": {"text": texts},
    "similarity": {"image_bytes": files, "text": texts},
}
found, hung = {}, []
tf.compat.v1.disable_eager_execution()
# As few threads as there can be: nothing may wait for one that it holds itself.
config = tf.compat.v1.ConfigProto(inter_op_parallelism_threads=1, intra_op_parallelism_threads=1)
with tf.compat.v1.Session(config=config) as session:
    signatures = tf.compat.v1.saved_model.load(session, ["serve"], folder).signature_def
    for name, values in inputs.items():
        feeds = {signatures[name].inputs[key].name: value for key, value in values.items()}
        fetches = {key: tensor.name for key, tensor in signatures[name].outputs.items()}
        outputs = session.run(fetches, feeds)
        found[name] = {key: value.astype("U" if value.dtype == object else "f4") for key, value in outputs.items()}
        found[name] = {key: value.tolist() for key, value in found[name].items()}
        threads = [threading.Thread(target=session.run, args=(fetches, feeds), daemon=True) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        hung += [name for thread in threads if thread.is_alive()]
modules = [name for name in sys.modules if name.split(".")[0] in ("tensorflow_text", "tf_clip")]
print(json.dumps({"used": sorted(used), "unknown": unknown, "compiled": compiled, "found": found, "hung": hung,
    "modules": modules}))
"""


@pytest.fixture(scope="module")
def bare(pictogram_folder, tmp_path_factory):
    place = tmp_path_factory.mktemp("elsewhere")
    for index, data in enumerate(FILES):
        (place / str(index)).write_bytes(data)
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    arguments = [str(pictogram_folder), str(len(FILES)), json.dumps(TEXTS), str(place)]
    command = [sys.executable, "-W", "ignore", "-c", CODE, *arguments]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_it_needs_nothing_but_tensorflow(bare):
    assert bare["modules"] == []


def test_every_operation_is_one_of_tensorflow(bare):
    assert {"DecodeJpeg", "LookupTableFindV2", "MatMul", "IgnoreErrorsDataset"} <= set(bare["used"])
    assert bare["unknown"] == []


def test_no_operation_runs_python(bare):
    assert [name for name in bare["used"] if "PyFunc" in name or "Generator" in name] == []


def test_nothing_asks_for_xla_which_servers_turn_off(bare):
    assert bare["compiled"] == []


def test_requests_at_once_do_not_wait_for_one_another_for_ever(bare):
    assert bare["hung"] == []


@pytest.mark.parametrize("name", ["classify", "encode_image", "encode_text", "similarity"])
def test_it_answers_the_same(bare, served, name):
    inputs = {"image_bytes": FILES, "text": TEXTS}
    used = {"encode_text": ["text"], "similarity": ["image_bytes", "text"]}.get(name, ["image_bytes"])
    expected = served[name](**{key: inputs[key] for key in used})
    assert set(bare["found"][name]) == set(expected)
    for key, value in expected.items():
        if value.dtype == object:
            assert bare["found"][name][key] == value.astype(str).tolist()
        else:
            np.testing.assert_allclose(
                bare["found"][name][key], value, rtol=0, atol=1e-5 * (30 if "logits" in key else 1)
            )


def test_no_path_of_this_machine_is_in_it(pictogram_folder):
    data = (pictogram_folder / "saved_model.pb").read_bytes()
    assert str(Path(__file__).resolve().parents[2]).encode() not in data
    assert b"site-packages" not in data
