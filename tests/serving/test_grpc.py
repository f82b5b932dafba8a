"""TensorFlow Serving's gRPC protocol as the local server speaks it."""

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow_serving.apis import (
    classification_pb2,
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from helpers.serving.plain_model import PlainModel

pytestmark = pytest.mark.process

PNG = b"\x89PNG and more"


@pytest.fixture(scope="module")
def channel(server):
    with grpc.insecure_channel(server.target) as channel:
        yield channel


def request_of(signature="encode_text", name="clip", version=None, **inputs):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = name
    request.model_spec.signature_name = signature
    if version is not None:
        request.model_spec.version.value = version
    for key, value in inputs.items():
        request.inputs[key].CopyFrom(value if isinstance(value, TensorProto) else tf.make_tensor_proto(value))
    return request


def predict(channel, request):
    return prediction_service_pb2_grpc.PredictionServiceStub(channel).Predict(request, timeout=30)


def test_predict(channel):
    response = predict(channel, request_of("similarity", version=1, image_bytes=[PNG], text=["a", "b"]))
    model = PlainModel(shift=1.0)
    wanted = model.similarity([PNG], ["a", "b"])
    assert response.outputs.keys() == wanted.keys()
    for name, tensor in response.outputs.items():
        found = tf.make_ndarray(tensor)
        if found.dtype == object:
            assert found.tolist() == wanted[name].numpy().tolist()
        else:
            np.testing.assert_allclose(found, wanted[name], atol=1e-6)
    assert (response.model_spec.name, response.model_spec.version.value) == ("clip", 1)


def test_the_default_signature_and_a_choice_of_outputs(channel):
    request = request_of("", image_bytes=[PNG])
    request.output_filter.append("status")
    response = predict(channel, request)
    assert response.outputs.keys() == {"status"}
    assert response.model_spec.signature_name == "serving_default"


def test_metadata_and_status(channel):
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "clip"
    metadata = prediction_service_pb2_grpc.PredictionServiceStub(channel).GetModelMetadata(request, timeout=30)
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert metadata.metadata["signature_def"].Unpack(signatures)
    assert signatures.signature_def["encode_text"].inputs["text"].dtype == tf.string.as_datatype_enum
    status_request = get_model_status_pb2.GetModelStatusRequest()
    status_request.model_spec.name = "clip"
    status = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(status_request, timeout=30)
    (state,) = status.model_version_status
    assert (state.version, state.state) == (1, get_model_status_pb2.ModelVersionStatus.AVAILABLE)


def huge():
    """Some bytes that stand for gigabytes."""
    tensor = tf.make_tensor_proto([1], tf.int32, shape=[1])
    tensor.tensor_shape.dim[0].size = 2**33
    return tensor


def cut():
    tensor = tf.make_tensor_proto(np.ones([2, 3], np.int32))
    tensor.tensor_content = tensor.tensor_content[:-2]
    return tensor


def negative():
    tensor = tf.make_tensor_proto(np.ones([2, 3], np.int32))
    tensor.tensor_shape.dim[0].size = -2
    return tensor


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (lambda: request_of(name="clop", text=["a"]), grpc.StatusCode.NOT_FOUND),
        (lambda: request_of(version=7, text=["a"]), grpc.StatusCode.NOT_FOUND),
        (lambda: request_of("encode", text=["a"]), grpc.StatusCode.INVALID_ARGUMENT),
        (lambda: request_of(texts=["a"]), grpc.StatusCode.INVALID_ARGUMENT),
        (lambda: request_of(), grpc.StatusCode.INVALID_ARGUMENT),
        (lambda: request_of(text=[1]), grpc.StatusCode.INVALID_ARGUMENT),
        (lambda: request_of(text=["a"] * 129), grpc.StatusCode.INVALID_ARGUMENT),
        (lambda: request_of("encode_tokens", input_ids=huge()), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (lambda: request_of("encode_tokens", input_ids=cut()), grpc.StatusCode.INVALID_ARGUMENT),
        (lambda: request_of("encode_tokens", input_ids=negative()), grpc.StatusCode.INVALID_ARGUMENT),
        (lambda: request_of(text=[b"a" * 2**26]), grpc.StatusCode.RESOURCE_EXHAUSTED),
    ],
)
def test_bad_requests(server, channel, request_, code):
    with pytest.raises(grpc.RpcError) as error:
        predict(channel, request_())
    assert error.value.code() == code
    assert "Traceback" not in error.value.details()
    assert server.is_well()


def test_methods_that_are_not_there_say_so(channel):
    with pytest.raises(grpc.RpcError) as error:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        stub.Classify(classification_pb2.ClassificationRequest(), timeout=30)
    assert error.value.code() == grpc.StatusCode.UNIMPLEMENTED
