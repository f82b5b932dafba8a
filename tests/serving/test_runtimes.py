"""The same calls on every runtime: an exported model answers as the Python model does, wherever it runs."""

from __future__ import annotations

import gc
import json
import shutil

import numpy as np
import pytest
import tensorflow as tf
from answering import (
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
from calls import LABELS, TEMPLATES, TOP_K, PythonModel, calls
from models import pictogram_clip, vit_b_32
from running import LocalServer

from tf_clip.client import GrpcClient, RestClient

# Of an embedding at unit length, in the dtype that the weights are stored in.
TOLERANCE = {"float32": 1e-5, "float16": 1e-3}
# What tf_clip.client offers; the others are for programs of other kinds.
OF_THE_CLIENT = {"encode_image", "encode_text", "classify", "similarity", "similarity_pairs"}
CALLS = [
    "every format", "one picture", "bad pictures among good", "bad pictures alone", "a cut JPEG among 64", "pixels",
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


@pytest.fixture(scope="session", params=["pictogram-clip", "pictogram-clip-float16", "random-vit-b-32"])
def exported(request, tmp_path_factory, c_program):
    folder = tmp_path_factory.mktemp("exported") / request.param
    model, processor = vit_b_32() if "vit" in request.param else pictogram_clip()
    made = Exported(folder, model, processor, "float16" if "float16" in request.param else "float32", c_program)
    del model, processor
    gc.collect()
    yield made
    shutil.rmtree(folder)  # pytest would keep hundreds of megabytes


@pytest.fixture(scope="session")
def c_program(tmp_path_factory):
    return compile_c(tmp_path_factory.mktemp("c") / "tensorflow_c")


@pytest.fixture(scope="session")
def local_server(exported):
    with LocalServer(exported.model_dir) as server:
        yield server


@pytest.fixture(scope="session")
def tensorflow_serving(exported):
    if not SERVING_BINARY:
        pytest.skip("tensorflow_model_server is not on PATH and TF_SERVING_BINARY is not set: not tested with it")
    from tf_clip.export import serving_kit

    serving_kit(exported.model_dir)
    server = TensorFlowServing(exported.model_dir)
    yield server
    server.close()


# What each needs, and how it is asked.
RUNTIMES = {
    "bare-tensorflow": ("exported", lambda exported: bare_tensorflow(exported.version_dir)),
    "c-library": ("exported", lambda exported: CLibrary(exported.version_dir, exported.c_program)),
    "c-library-without-xla": (
        "exported",
        lambda exported: CLibrary(exported.version_dir, exported.c_program, "without-xla"),
    ),
    "tensorflow-js": ("exported", lambda exported: tensorflow_js(exported.version_dir)),
    "local-server-rest": ("local_server", lambda server: Rest(server.url)),
    "local-server-rest-rows": ("local_server", lambda server: Rest(server.url, in_rows=True)),
    "local-server-grpc": ("local_server", lambda server: Grpc(server.target)),
    "local-server-rest-client": ("local_server", lambda server: OurClient(RestClient(server.url, retries=0))),
    "local-server-grpc-client": ("local_server", lambda server: OurClient(GrpcClient(server.target, retries=0))),
    "tensorflow-serving-rest": ("tensorflow_serving", lambda server: Rest(server.url)),
    "tensorflow-serving-grpc": ("tensorflow_serving", lambda server: Grpc(server.target)),
}


@pytest.fixture(scope="session", params=RUNTIMES)
def runtime(request, exported):
    needed, ask = RUNTIMES[request.param]
    runtime = ask(request.getfixturevalue(needed))
    runtime.name = request.param
    runtime.signatures = described(exported.version_dir)
    yield runtime
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
def test_the_answer_is_the_python_models(exported, runtime, name):
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


def test_the_statuses_are_the_promised_ones(exported):
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
