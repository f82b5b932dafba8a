"""Fake servers of both protocols on loopback, and the clients that ask them."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import ThreadingHTTPServer

import pytest

from helpers.fake_model_server import SHAPES, FakeServer, Handler, dtype_of


@pytest.fixture
def rest_server():
    fake = FakeServer()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"fake": fake}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    fake.address = f"http://127.0.0.1:{server.server_port}"
    fake.stop = server.server_close
    yield fake
    server.shutdown()
    server.server_close()
    thread.join(5)


@pytest.fixture
def grpc_server():
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import (
        get_model_metadata_pb2,
        get_model_status_pb2,
        model_service_pb2_grpc,
        predict_pb2,
        prediction_service_pb2_grpc,
    )

    fake = FakeServer()

    class Predictions(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request, context):
            inputs = {name: list(tensor.string_val) for name, tensor in request.inputs.items()}
            fake.headers.append({**dict(context.invocation_metadata()), "spec": request.model_spec})
            step = fake.next_step(request.model_spec.signature_name, inputs)
            answer = predict_pb2.PredictResponse()
            if step == "slow":
                time.sleep(0.6)
            elif step == "answer":
                for name, value in fake.answer(request.model_spec.signature_name, inputs).items():
                    answer.outputs[name].CopyFrom(tf.make_tensor_proto(value))
            elif isinstance(step, dict):
                for name, value in step.items():
                    answer.outputs[name].CopyFrom(tf.make_tensor_proto(value))
            else:
                context.abort(*step)
            return answer

        def GetModelMetadata(self, request, context):
            signatures = get_model_metadata_pb2.SignatureDefMap()
            for name, (inputs, outputs) in SHAPES.items():
                one = signatures.signature_def[name]
                for key, (dtype, shape) in inputs.items():
                    fill(one.inputs[key], dtype, shape)
                for key, shape in outputs.items():
                    fill(one.outputs[key], dtype_of(key), shape)
            answer = get_model_metadata_pb2.GetModelMetadataResponse(model_spec=request.model_spec)
            answer.model_spec.version.value = 1
            answer.metadata["signature_def"].Pack(signatures)
            return answer

    def fill(tensor, dtype, shape):
        tensor.dtype = tf.as_dtype(dtype).as_datatype_enum
        for size in shape:
            tensor.tensor_shape.dim.add(size=-1 if size is None else size)

    class Models(model_service_pb2_grpc.ModelServiceServicer):
        def GetModelStatus(self, request, context):
            if request.model_spec.name != "clip":
                context.abort(grpc.StatusCode.NOT_FOUND, "Could not find any versions of model")
            answer = get_model_status_pb2.GetModelStatusResponse()
            states = get_model_status_pb2.ModelVersionStatus
            answer.model_version_status.add(version=1, state=states.State.Value(fake.state))
            return answer

    pool = ThreadPoolExecutor(8)
    server = grpc.server(pool)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Predictions(), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(Models(), server)
    fake.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    fake.stop = lambda: server.stop(0).wait(5)
    server.start()
    yield fake
    server.stop(0).wait(5)
    pool.shutdown()


@pytest.fixture(params=["rest", "grpc"])
def server(request):
    """One fake server after the other."""
    fake = request.getfixturevalue(f"{request.param}_server")
    fake.protocol = request.param
    return fake


@pytest.fixture
def connect(server):
    """Makes clients of the server, with short waits, and closes them."""
    from tf_clip.client import GrpcClient, RestClient

    kind = RestClient if server.protocol == "rest" else GrpcClient
    made = []

    def make(**options):
        made.append(kind(server.address, **{"backoff": 0.01, **options}))
        return made[-1]

    yield make
    for client in made:
        client.close()
