"""The same calls on every runtime: an exported model answers as the Python model does, wherever it runs."""

from __future__ import annotations

import contextlib
import shutil

import numpy as np
import pytest
import tensorflow as tf

from helpers.serving.answering import (
    SERVING_BINARY,
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
from helpers.serving.calls import LABELS, PythonModel, calls
from helpers.serving.models import pictogram_clip, vit_b_32
from helpers.serving.running import LocalServer
from tf_clip.client import GrpcClient, RestClient
from tf_clip.export import saved_model, serving_kit

pytestmark = pytest.mark.process

# Of an embedding at unit length, in the dtype that the weights are stored in.
TOLERANCE = {"float32": 1e-5, "float16": 1e-3}


class Exported:
    """An exported model and what the Python model answers.

    Args:
        folder: its folder of versions.
        model, processor: what was exported.
        dtype: of the stored weights.
    """

    def __init__(self, folder, model, processor, dtype):
        self.model_dir, self.version_dir = folder, folder / "1"
        self.tolerance = TOLERANCE[dtype]
        python_model = PythonModel(model, processor)
        self.scale = python_model.scale
        self.calls = calls(processor)
        self.answers = {name: python_model.answer(call) for name, call in self.calls.items()}


@pytest.fixture(scope="session")
def float32(pictograms):
    return Exported(pictograms, *pictogram_clip(), "float32")


@pytest.fixture(scope="session")
def float16(tmp_path_factory):
    folder, model = tmp_path_factory.mktemp("float16"), pictogram_clip()
    saved_model(*model, folder / "clip", labels=LABELS, dtype="float16")
    return Exported(folder / "clip", *model, "float16")


@pytest.fixture(scope="session")
def vit(tmp_path_factory):
    folder, model = tmp_path_factory.mktemp("vit"), vit_b_32()
    saved_model(*model, folder / "clip", labels=LABELS)
    yield Exported(folder / "clip", *model, "float32")
    shutil.rmtree(folder)  # pytest would keep hundreds of megabytes


@pytest.fixture(scope="session")
def vit_server(vit):
    with LocalServer(vit.model_dir) as server:
        yield server


@pytest.fixture(scope="session")
def c_program(tmp_path_factory):
    return compile_c(tmp_path_factory.mktemp("c") / "tensorflow_c")


def check(exported, runtime, leave_out=()):
    """Asks a runtime everything that it can be asked; every answer must be the Python model's."""
    runtime.signatures = described(exported.version_dir)
    with contextlib.closing(runtime):
        for name, call in exported.calls.items():
            if call.signature not in leave_out:
                compare(runtime.call(call.signature, call.inputs), exported.answers[name], exported, name)


def compare(found, wanted, exported, name):
    assert found.keys() == wanted.keys(), name
    for output, array in found.items():
        if array.dtype == object:
            assert array.tolist() == wanted[output].tolist(), f"{name}: {output}"
        else:
            assert array.dtype == np.float32, f"{name}: {output}"
            # Logits are cosines times the scale.
            tolerance = exported.tolerance * (exported.scale if output.startswith("logits") else 1)
            np.testing.assert_allclose(array, wanted[output], 0, tolerance, err_msg=f"{name}: {output}")


PROGRAMS = {
    "bare TensorFlow": lambda exported, _: bare_tensorflow(exported.version_dir),
    "C library without XLA": lambda exported, program: CLibrary(exported.version_dir, program, "without-xla"),
    "TensorFlow.js": lambda exported, _: tensorflow_js(exported.version_dir),
}
# TensorFlow takes seconds for the first run of each signature, and all programs run the same kernels. So one is asked
# every signature, and the others those that together take every kind of input.
REPEATED = {"encode_image", "encode_text", "serving_default", "similarity_pairs"}
# Rows are of one length; tf_clip.client has no calls for pixels, token ids or the default.
NOT_IN_ROWS = {"similarity"}
NOT_OF_THE_CLIENT = {"encode_image_pixels", "encode_tokens", "serving_default"}
WAYS = {
    "REST": (lambda server: Rest(server.url), ()),
    "REST in rows": (lambda server: Rest(server.url, in_rows=True), NOT_IN_ROWS),
    "gRPC": (lambda server: Grpc(server.target), ()),
    "RestClient": (lambda server: OurClient(RestClient(server.url, retries=0)), NOT_OF_THE_CLIENT),
    "GrpcClient": (lambda server: OurClient(GrpcClient(server.target, retries=0)), NOT_OF_THE_CLIENT),
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_programs_answer_as_the_python_model_does(float32, program, c_program):
    check(float32, PROGRAMS[program](float32, c_program), () if program == "bare TensorFlow" else REPEATED)


def test_weights_stored_as_float16(float16):
    check(float16, bare_tensorflow(float16.version_dir), REPEATED)


@pytest.mark.real_size
@pytest.mark.parametrize("program", PROGRAMS)
def test_programs_answer_at_real_size(vit, program, c_program):
    check(vit, PROGRAMS[program](vit, c_program))


@pytest.mark.parametrize("way", WAYS)
def test_the_local_server_answers_as_the_python_model_does(float32, pictogram_server, way):
    ask, leave_out = WAYS[way]
    check(float32, ask(pictogram_server), leave_out)


@pytest.mark.real_size
@pytest.mark.parametrize("way", WAYS)
def test_the_local_server_answers_at_real_size(vit, vit_server, way):
    ask, leave_out = WAYS[way]
    check(vit, ask(vit_server), leave_out)


@pytest.mark.skipif(not SERVING_BINARY, reason="tensorflow_model_server is neither on PATH nor in TF_SERVING_BINARY")
@pytest.mark.parametrize("model", ["float32", pytest.param("vit", marks=pytest.mark.real_size)])
def test_tensorflow_serving_answers_as_the_python_model_does(request, model):
    """The official server, with batching, by which `similarity` cannot be served, and warm-up."""
    exported = request.getfixturevalue(model)
    if not (exported.model_dir / "serving").exists():
        serving_kit(exported.model_dir)
    with contextlib.closing(TensorFlowServing(exported.model_dir)) as server:
        for way in ("REST", "REST in rows", "gRPC"):
            check(exported, WAYS[way][0](server), {"similarity"})


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
