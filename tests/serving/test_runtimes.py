"""The same calls on every runtime: an exported model answers as the Python model does, wherever it runs."""

from __future__ import annotations

import contextlib
import gc
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

from helpers.serving.answering import (
    SERVING_BINARY,
    TFJS_MODULES,
    CLibrary,
    Grpc,
    OurClient,
    Rest,
    TensorFlowServing,
    bare_tensorflow,
    compile_c,
    described,
    tensorflow_js,
)
from helpers.serving.calls import LABELS, TEMPLATES, TOP_K, PythonModel, calls
from helpers.serving.models import pictogram_clip, vit_b_32
from helpers.serving.running import LocalServer
from tf_clip.client import GrpcClient, RestClient

# Of an embedding at unit length, in the dtype that the weights are stored in.
TOLERANCE = {"float32": 1e-5, "float16": 1e-3}
# What tf_clip.client offers; the others are for programs of other kinds.
OF_THE_CLIENT = {"encode_image", "encode_text", "classify", "similarity", "similarity_pairs"}
CALLS = [
    "every format", "one image", "bad images among good", "bad images alone", "a cut JPEG among 64", "pixels",
    "texts", "a text of a megabyte", "token ids", "an unknown token id", "classes", "the default", "all with all",
    "pairs",
]  # fmt: skip


class Exported:
    """A model, exported, and the Python model's answers.

    Args:
        folder: where to export it.
        model: the model.
        processor: its processor.
        dtype: of the stored weights.
        c_program: the C program, compiled.
    """

    def __init__(self, folder, model, processor, dtype, c_program):
        from tf_clip import export

        self.c_program = c_program

        self.model_dir = folder
        options = {"labels": LABELS, "templates": TEMPLATES, "top_k": TOP_K, "dtype": dtype}
        self.version_dir = export.saved_model(model, processor, folder, **options)
        self.tolerance = TOLERANCE[dtype]
        python_model = PythonModel(model, processor)
        self.scale = python_model.scale
        self.calls = calls(processor)
        assert list(self.calls) == CALLS
        self.answers = {name: python_model.answer(call) for name, call in self.calls.items()}


class Exports:
    """The models, exported one at a time: the large one is exported once, and takes its place alone.

    Args:
        make_folder: makes a new folder from a name.
        c_program: the C program, compiled.
    """

    def __init__(self, make_folder, c_program):
        self._make_folder, self._c_program = make_folder, c_program
        self._name, self._stack = "", contextlib.ExitStack()

    def exported(self, name):
        """Returns a model; the one before is removed, with its servers."""
        if name != self._name:
            self.close()
            folder = self._make_folder("exported") / name
            self._stack.callback(shutil.rmtree, folder, ignore_errors=True)  # pytest would keep hundreds of megabytes
            model, processor = vit_b_32() if "vit" in name else pictogram_clip()
            dtype = "float16" if "float16" in name else "float32"
            self._exported = Exported(folder, model, processor, dtype, self._c_program)
            self._name, self._servers = name, {}
            del model, processor
            gc.collect()
        return self._exported

    def server(self, kind):
        """Returns a server of the model, started once."""
        if kind not in self._servers:
            server = kind(self._exported.model_dir)
            self._stack.callback(server.stop)
            self._servers[kind] = server
        return self._servers[kind]

    def close(self):
        self._stack.close()
        self._name = ""


@pytest.fixture(scope="session")
def exports(tmp_path_factory, c_program):
    exports = Exports(tmp_path_factory.mktemp, c_program)
    yield exports
    exports.close()


@pytest.fixture(scope="session")
def c_program(tmp_path_factory):
    return compile_c(tmp_path_factory.mktemp("c") / "tensorflow_c")


def tensorflow_serving(model_dir):
    """Starts the official server, with batching and warm-up."""
    if not SERVING_BINARY:
        pytest.skip("tensorflow_model_server is not on PATH and TF_SERVING_BINARY is not set: not tested with it")
    from tf_clip.export import serving_kit

    serving_kit(model_dir)
    return TensorFlowServing(model_dir)


# How each is asked, of the exported model, or of a server of it.
RUNTIMES = {
    "bare-tensorflow": (None, lambda exported: bare_tensorflow(exported.version_dir)),
    "c-library": (None, lambda exported: CLibrary(exported.version_dir, exported.c_program)),
    "c-library-without-xla": (
        None,
        lambda exported: CLibrary(exported.version_dir, exported.c_program, "without-xla"),
    ),
    "tensorflow-js": (None, lambda exported: tensorflow_js(exported.version_dir)),
    "local-server-rest": (LocalServer, lambda server: Rest(server.url)),
    "local-server-rest-rows": (LocalServer, lambda server: Rest(server.url, in_rows=True)),
    "local-server-grpc": (LocalServer, lambda server: Grpc(server.target)),
    "local-server-rest-client": (LocalServer, lambda server: OurClient(RestClient(server.url, retries=0))),
    "local-server-grpc-client": (LocalServer, lambda server: OurClient(GrpcClient(server.target, retries=0))),
    "tensorflow-serving-rest": (tensorflow_serving, lambda server: Rest(server.url)),
    "tensorflow-serving-grpc": (tensorflow_serving, lambda server: Grpc(server.target)),
}
MODELS = ("pictogram-clip", "pictogram-clip-float16", "random-vit-b-32")
# Model by model, as each is large.
PAIRS = [pytest.param((model, name), id=f"{model}-{name}") for model in MODELS for name in RUNTIMES]


@pytest.fixture(scope="session", params=PAIRS)
def asked(request, exports):
    """An exported model, and a runtime of it."""
    model, name = request.param
    exported = exports.exported(model)
    server, ask = RUNTIMES[name]
    runtime = ask(exports.server(server) if server else exported)
    runtime.name = name
    runtime.signatures = described(exported.version_dir)
    yield exported, runtime
    runtime.close()


def unfit(runtime, call):
    """Says why a runtime is not asked this, or nothing."""
    if runtime.name.endswith("client") and call.signature not in OF_THE_CLIENT:
        return "the client has no such call"
    sides = {len(array) for array in call.inputs.values()}
    if runtime.name.endswith("rows") and len(sides) > 1:
        return "rows are of one length"
    if runtime.name.startswith("tensorflow-serving") and call.signature == "similarity":
        return "a server that batches cannot serve it"
    return ""


@pytest.mark.parametrize("name", CALLS)
def test_the_answer_is_the_python_models(asked, name):
    exported, runtime = asked
    call, wanted = exported.calls[name], exported.answers[name]
    if reason := unfit(runtime, call):
        pytest.skip(reason)
    found = runtime.call(call.signature, call.inputs)
    assert found.keys() == wanted.keys()
    for output, array in found.items():
        if array.dtype == object:
            assert array.tolist() == wanted[output].tolist(), output
        else:
            assert array.dtype == np.float32
            # Logits are cosines times the scale.
            tolerance = exported.tolerance * (exported.scale if output.startswith("logits") else 1)
            np.testing.assert_allclose(array, wanted[output], rtol=0, atol=tolerance, err_msg=output)


def test_the_statuses_are_the_promised_ones(asked):
    exported, _ = asked
    words = {word for answer in exported.answers.values() for word in answer.get("status", [])}
    assert {b"ok", b"not a JPEG, PNG, WebP or GIF file", b"the file is broken or cut short"} <= words


def test_without_xla_a_compiled_function_fails(c_program, tmp_path):
    """What the stock server does to `jit_compile`: without this, the run without XLA would prove nothing."""

    class Compiled(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec([None], tf.float32)], jit_compile=True)
        def double(self, x):
            return {"twice": 2 * x}

    model, folder = Compiled(), tmp_path / "compiled"
    tf.saved_model.save(model, str(folder), signatures={"double": model.double})
    x = {"x": np.array([1, 2], "float32")}
    with_xla = CLibrary(folder, c_program)
    assert with_xla.call("double", x)["twice"].tolist() == [2, 4]
    with_xla.close()
    without = CLibrary(folder, c_program, "without-xla")
    with pytest.raises(RuntimeError, match="XLA compilation disabled"):
        without.call("double", x)
    without.close()


def test_tensorflow_js_is_the_one_that_was_built_here():
    package = json.loads((TFJS_MODULES / "@tensorflow" / "tfjs-node" / "package.json").read_text())
    assert package["version"] == "4.22.0"
