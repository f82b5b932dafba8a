"""Tokenizer and extractor inside a saved graph, which plain TensorFlow loads: no TF-Text, no tf_clip."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from tf_clip import CLIPFeatureExtractorTF, CLIPTokenizer

pytestmark = pytest.mark.process

TEXTS = [
    "a photo of a cat",
    "It's THE Dog's 3rd photo!",
    "",
    "e\u0301te\u0301 \u1100\u1161\u11a8 İ ﬁ 日本 👩\u200d🚀",
    "<|startoftext|>a<|endoftext|> <|ENDOFTEXT|>!!",
    "\u3000banana\u2028\tpapaya  ",
]
IMAGES = [("JPEG", (30, 41)), ("PNG", (25, 20)), ("WebP", (60, 21)), ("GIF", (9, 70)), ("JPEG", (24, 24))]
# Reads a saved model's folder and texts; writes what comes out, the modules loaded, and the operations of all graphs.
PLAIN_TENSORFLOW = """
import json, sys
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.framework import op_def_registry

folder, texts = sys.argv[1], json.loads(sys.argv[2])
with open(folder + "/saved_model.pb", "rb") as file:
    graph = saved_model_pb2.SavedModel.FromString(file.read()).meta_graphs[0].graph_def
used = {node.op for nodes in (graph.node, *(f.node_def for f in graph.library.function)) for node in nodes}
functions = {function.signature.name for function in graph.library.function}
unknown = sorted(name for name in used - functions if op_def_registry.get(name) is None)
model = tf.saved_model.load(folder)
found = {name: tensor.numpy().tolist() for name, tensor in model.encode(tf.constant(texts)).items()}
tokens, starts, ends = model.locate(tf.constant(texts))
found |= {"tokens": tokens.to_list(), "starts": starts.to_list(), "ends": ends.to_list()}
found["texts"] = [text.decode() for text in model.decode(tokens).numpy().tolist()]
images = [open(f"{folder}/{index}", "rb").read() for index in range(int(sys.argv[3]))]
found["pixel_values"] = model.prepare(tf.constant(images)).numpy().tolist()
names = [name for name in sys.modules if name.split(".")[0] in ("tensorflow_text", "tf_clip")]
print(json.dumps({"found": found, "modules": names, "used": sorted(used), "unknown": unknown}))
"""


class Exported(tf.Module):
    def __init__(self, tokenizer):
        super().__init__()
        self.tokenizer = tokenizer
        self.extractor = CLIPFeatureExtractorTF(size=24, crop_size=24)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def encode(self, texts):
        return self.tokenizer(texts, padding="max_length", max_length=20)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def locate(self, texts):
        return self.tokenizer.tokenize_with_offsets(texts)

    @tf.function(
        input_signature=[tf.RaggedTensorSpec([None, None], tf.int32, ragged_rank=1, row_splits_dtype=tf.int64)]
    )
    def decode(self, ids):
        return self.tokenizer.detokenize(ids)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def prepare(self, files):
        return self.extractor(files)["pixel_values"]

    @tf.function(input_signature=[tf.TensorSpec([None, None, None, 3], tf.uint8)])
    def prepare_pixels(self, images):
        return self.extractor(images)["pixel_values"]


def images():
    """Returns files of every format and of several sizes."""
    generator, files = np.random.default_rng(0), []
    for kind, (height, width) in IMAGES:
        stream = io.BytesIO()
        Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(stream, kind)
        files.append(stream.getvalue())
    return files


@pytest.fixture(scope="module")
def module(tiny_vocabulary, tiny_merges):
    return Exported(CLIPTokenizer(tiny_vocabulary, tiny_merges))


@pytest.fixture(scope="module")
def loaded(module, tmp_path_factory):
    """What a process with nothing but TensorFlow gets from the saved graph."""
    folder = str(tmp_path_factory.mktemp("exported"))
    tf.saved_model.save(module, folder)
    for index, data in enumerate(images()):
        Path(folder, str(index)).write_bytes(data)
    # Outside of the repository's root, and without what puts it on the path.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", PLAIN_TENSORFLOW, folder, json.dumps(TEXTS), str(len(IMAGES))]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_plain_tensorflow_gives_the_same_ids(module, loaded):
    here = module.tokenizer(TEXTS, padding="max_length", max_length=20, return_tensors=None)
    assert {name: loaded["found"][name] for name in here} == here


def test_plain_tensorflow_gives_the_same_offsets(module, loaded):
    here = [part.to_list() for part in module.tokenizer.tokenize_with_offsets(TEXTS)]
    assert [loaded["found"][name] for name in ("tokens", "starts", "ends")] == here


def test_plain_tensorflow_gives_the_same_strings(module, loaded):
    rows = module.tokenizer.tokenize(TEXTS).to_list()
    assert loaded["found"]["texts"] == module.tokenizer.batch_decode(rows, skip_special_tokens=True)


def test_plain_tensorflow_gives_the_same_pixels(module, loaded):
    np.testing.assert_array_equal(
        np.float32(loaded["found"]["pixel_values"]), module.extractor(images())["pixel_values"]
    )


def test_nothing_but_tensorflow_was_loaded(loaded):
    assert loaded["modules"] == []


def test_every_operation_is_one_of_plain_tensorflow(loaded):
    assert "StatefulPartitionedCall" in loaded["used"] and len(loaded["used"]) > 30
    assert loaded["unknown"] == []


def test_no_operation_runs_python(loaded):
    assert not [name for name in loaded["used"] if "PyFunc" in name]


def test_an_operation_of_tf_text_would_have_been_noticed():
    import tensorflow_text

    graph = tf.function(lambda texts: tensorflow_text.normalize_utf8(texts)).get_concrete_function(
        tf.TensorSpec([None], tf.string)
    )
    used = {node.op for node in graph.graph.as_graph_def().node}
    code = "import sys, tensorflow; from tensorflow.python.framework import op_def_registry as r"
    code += "; print([name for name in sys.argv[1:] if r.get(name) is None])"
    done = subprocess.run([sys.executable, "-c", code, *sorted(used)], capture_output=True, text=True, timeout=300)
    assert "NormalizeUTF8" in done.stdout


def test_batches_of_other_sizes_are_not_traced_again(module):
    module = Exported(module.tokenizer)  # saving has traced the other one
    files = images()
    for count in range(1, 8):
        module.prepare(tf.constant(files[:count]))
        module.prepare_pixels(tf.zeros([count, 20 + count, 30, 3], tf.uint8))
        texts = tf.constant(["a photo of bananas " * count] * count)
        tokens, _, _ = module.locate(texts)
        module.encode(texts)
        module.decode(tokens)
    functions = (module.encode, module.locate, module.decode, module.prepare, module.prepare_pixels)
    assert [function.experimental_get_tracing_count() for function in functions] == [1] * 5
