"""Each runtime behind one method: `call(signature, inputs)` returns the outputs as arrays."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from helpers.serving.runtimes import tensor_stream

HERE = Path(__file__).resolve().parent / "runtimes"
TFJS_MODULES = Path(sys.prefix) / "tfjs" / "node_modules"
WHEEL = Path(tf.__file__).parent
SERVING_BINARY = os.environ.get("TF_SERVING_BINARY") or shutil.which("tensorflow_model_server")
PATIENCE = 300  # seconds that an answer may take: the first one of a large model takes long on a busy machine
DTYPES = {"float32": np.float32, "int32": np.int32, "uint8": np.uint8, "string": object}


def described(folder: Path) -> Any:
    """Returns what the exporter wrote about the signatures of a version."""
    return json.loads((folder / "assets.extra" / "tf_clip.json").read_text(encoding="utf-8"))["signatures"]


class Piped:
    """A program that is asked through its standard input.

    Args:
        command: the program and its words.
    """

    signatures: dict[str, Any]

    def __init__(self, command: Any) -> None:
        self.process = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )

    def call(self, signature: str, inputs: Any) -> Any:
        return self.ask(signature, inputs, self.signatures[signature]["outputs"])

    def ask(self, signature: str, inputs: Any, outputs: Any) -> Any:
        # Whoever waits for bytes that do not come would wait for ever.
        watchdog = threading.Timer(PATIENCE, self.process.kill)
        watchdog.start()
        try:
            tensor_stream.write_request(self.process.stdin, signature, inputs, outputs)
            return tensor_stream.read_answer(self.process.stdout)
        except (EOFError, BrokenPipeError) as error:
            self.process.kill()
            assert self.process.stderr is not None
            raise AssertionError(self.process.stderr.read().decode()[-4000:]) from error
        finally:
            watchdog.cancel()

    def close(self) -> None:
        errors = self.process.communicate(timeout=60)[1]  # closes its input, which ends it
        assert self.process.returncode == 0, errors.decode()[-4000:]


def bare_tensorflow(folder: Path) -> Any:
    return Piped([sys.executable, "-E", "-s", HERE / "bare_tensorflow.py", folder])


def tensorflow_js(folder: Path) -> Any:
    return Piped(["node", HERE / "tfjs" / "run.js", folder, TFJS_MODULES])


class CLibrary(Piped):
    """The C program, which knows the graph's names of tensors alone.

    Args:
        folder: the version's.
        program: what was compiled.
        words: further words.
    """

    def __init__(self, folder: Path, program: Any, *words: Any) -> None:
        super().__init__([program, folder, *words])
        saved = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
        self.definitions = saved.meta_graphs[0].signature_def

    def call(self, signature: str, inputs: Any) -> Any:
        definition = self.definitions[signature]
        names = {info.name: name for name, info in definition.outputs.items()}
        placed = {definition.inputs[name].name: array for name, array in inputs.items()}
        return {names[name]: array for name, array in self.ask(signature, placed, names).items()}


def compile_c(target: Path) -> Any:
    """Compiles the C program against the headers and libraries of TensorFlow's wheel."""
    libraries = [WHEEL / "libtensorflow_cc.so.2", WHEEL / "libtensorflow_framework.so.2"]
    strict = ["-std=gnu11", "-O1", "-Wall", "-Wextra", "-Werror"]
    command = ["gcc", *strict, "-isystem", WHEEL / "include", HERE / "tensorflow_c.c", *libraries]
    command += [f"-Wl,-rpath,{WHEEL}", "-o", target]
    result = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    return target


class Rest:
    """A server asked over REST as TensorFlow Serving is.

    Args:
        url: where it is.
        in_rows: the form of the requests.
    """

    signatures: dict[str, Any]

    def __init__(self, url: str, *, in_rows: Any = False) -> None:
        self.http = httpx.Client(base_url=url, timeout=120, trust_env=False)
        self.in_rows = in_rows

    def call(self, signature: str, inputs: Any) -> Any:
        columns = {name: _as_json(array) for name, array in inputs.items()}
        if self.in_rows:
            names = list(columns)
            rows = [dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)]
            body: dict[str, Any] = {"signature_name": signature, "instances": rows}
        else:
            body = {"signature_name": signature, "inputs": columns}
        response = self.http.post("/v1/models/clip:predict", json=body)
        assert response.status_code == 200, response.text
        outputs = self.signatures[signature]["outputs"]
        answer = response.json()["predictions" if self.in_rows else "outputs"]
        if len(outputs) == 1:
            answer = dict.fromkeys(outputs, answer)
        elif self.in_rows:
            answer = {name: [row[name] for row in answer] for name in outputs}
        return {name: _from_json(answer[name], kind["dtype"]) for name, kind in outputs.items()}

    def close(self) -> None:
        self.http.close()


class Grpc:
    """A server asked over gRPC as TensorFlow Serving is.

    Args:
        target: where it is.
    """

    def __init__(self, target: Path) -> None:
        self.channel = grpc.insecure_channel(target)
        self.stub = prediction_service_pb2_grpc.PredictionServiceStub(self.channel)

    def call(self, signature: str, inputs: Any) -> Any:
        request = predict_pb2.PredictRequest()
        request.model_spec.name = "clip"
        request.model_spec.signature_name = signature
        for name, array in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(array))
        response = self.stub.Predict(request, timeout=120)
        return {name: tf.make_ndarray(tensor) for name, tensor in response.outputs.items()}

    def close(self) -> None:
        self.channel.close()


class OurClient:
    """A server asked through `tf_clip.client`.

    Args:
        client: a RestClient or a GrpcClient.
    """

    def __init__(self, client: Any) -> None:
        self.client = client

    def call(self, signature: str, inputs: Any) -> Any:
        columns = [array.tolist() for array in inputs.values()]
        method = {"encode_image": "encode_images", "encode_text": "encode_texts"}.get(signature, signature)
        result = vars(getattr(self.client, method)(*columns))
        result = {{"embeds": f"{signature[7:]}_embeds"}.get(name, name): value for name, value in result.items()}
        return {name: _encoded(value) for name, value in result.items()}

    def close(self) -> None:
        self.client.close()


class TensorFlowServing:
    """The official server, with batching and warm-up on.

    Args:
        model_dir: a folder of versions, with the serving kit's files.
    """

    def __init__(self, model_dir: Path) -> None:
        self.ports = [_free_port(), _free_port()]
        command = [
            str(SERVING_BINARY),
            f"--port={self.ports[0]}",
            f"--rest_api_port={self.ports[1]}",
            "--model_name=clip",
            f"--model_base_path={model_dir}",
            "--enable_batching",
            "--enable_per_model_batching_parameters",
            "--enable_model_warmup",
        ]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.url = f"http://127.0.0.1:{self.ports[1]}"
        self.target = f"127.0.0.1:{self.ports[0]}"
        for _ in range(300):
            assert self.process.poll() is None, "tensorflow_model_server has ended"
            try:
                state = httpx.get(self.url + "/v1/models/clip", trust_env=False).json()["model_version_status"][0]
                if state["state"] == "AVAILABLE":
                    return
            except (httpx.TransportError, KeyError, ValueError):
                pass
            time.sleep(1)
        self.close()
        raise AssertionError("tensorflow_model_server does not answer")

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(60)


def _free_port() -> Any:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def _as_json(array: Any) -> Any:
    if array.dtype == object:
        return [{"b64": base64.b64encode(element).decode()} for element in array]
    return array.tolist()


def _from_json(value: Any, dtype: Any) -> Any:
    if dtype == "string":
        return np.vectorize(str.encode, otypes=[object])(np.array(value, object))
    return np.array(value, DTYPES[dtype])


def _encoded(value: Any) -> Any:
    array = np.array(value)
    return np.vectorize(str.encode, otypes=[object])(array.astype(object)) if array.dtype.kind in "UO" else array
