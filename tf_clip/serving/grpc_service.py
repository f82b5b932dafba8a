"""TensorFlow Serving's gRPC protocol: PredictionService.Predict, GetModelMetadata and ModelService.GetModelStatus.

kserve's own gRPC speaks another protocol, which no client of TensorFlow Serving understands.
"""

from __future__ import annotations

import math
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message

from tf_clip.serving.errors import RequestError, shown
from tf_clip.serving.json_tensors import DEFAULT_SIGNATURE
from tf_clip.serving.limits import Places
from tf_clip.serving.loaded_version import Arrays
from tf_clip.serving.served_model import ServedModel

_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
}


def grpc_server(
    model: ServedModel, places: Places, host: str, port: int, max_message: int
) -> tuple[grpc.aio.Server, int]:
    """Returns a gRPC server that is yet to be started, and its port.

    Args:
        model: what answers.
        places: shared with REST.
        host: the address to listen at.
        port: 0 takes a free one.
        max_message: the most bytes of one request.

    Raises:
        ImportError: without tensorflow-serving-api.
        ValueError: when the port is taken.
    """
    try:
        from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc
    except ImportError as error:
        raise ImportError(
            f'`--grpc-port` needs tensorflow-serving-api ({error}). Run pip install "tf_clip[serve]".'
        ) from error
    # Without SO_REUSEPORT, two servers at one port are an error and not a game of chance.
    options = [("grpc.max_receive_message_length", max_message), ("grpc.max_send_message_length", -1)]
    server = grpc.aio.server(options=[*options, ("grpc.so_reuseport", 0)])
    service = _Service(model, places, max_message)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(service, server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(service, server)
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        return server, server.add_insecure_port(address)
    except RuntimeError as error:
        raise ValueError(
            f"`grpc_port` must be free at `host`. Received: {address}. Choose another with --grpc-port, or 0 for any."
        ) from error


class _Service:
    """The methods of both services that the model can answer; gRPC calls them by name."""

    def __init__(self, model: ServedModel, places: Places, max_message: int) -> None:
        self._model = model
        self._places = places
        self._max_message = max_message

    async def Predict(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        from tensorflow_serving.apis import predict_pb2

        try:
            with self._places.one(), self._model.versions.use(self._version(request.model_spec)) as version:
                inputs = self._arrays(request.inputs)
                name = request.model_spec.signature_name or DEFAULT_SIGNATURE
                outputs = await self._model.run(version, name, inputs)
                response = predict_pb2.PredictResponse()
                response.model_spec.name = self._model.name
                response.model_spec.version.value = version.number
                response.model_spec.signature_name = name
        except RequestError as error:
            await context.abort(_CODES.get(error.status, grpc.StatusCode.INTERNAL), error.sentence)
        wanted = request.output_filter or outputs
        for name in wanted:
            if name not in outputs:
                sentence = f"`output_filter` must name outputs, received {shown(name)}"
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, sentence)
            response.outputs[name].CopyFrom(tf.make_tensor_proto(outputs[name]))
        return response

    async def GetModelMetadata(self, request: Any, context: grpc.aio.ServicerContext) -> Any:
        from tensorflow_serving.apis import get_model_metadata_pb2

        response = get_model_metadata_pb2.GetModelMetadataResponse()
        try:
            with self._model.versions.use(self._version(request.model_spec)) as version:
                signatures = get_model_metadata_pb2.SignatureDefMap()
                ParseDict({"signature_def": version.signature_defs}, signatures)
                response.model_spec.version.value = version.number
        except RequestError as error:
            await context.abort(_CODES[error.status], error.sentence)
        response.model_spec.name = self._model.name
        response.metadata["signature_def"].Pack(signatures)
        return response

    async def GetModelStatus(self, request: Any, context: grpc.aio.ServicerContext) -> Message:
        from tensorflow_serving.apis import get_model_status_pb2

        try:
            wanted = self._version(request.model_spec)
        except RequestError as error:
            await context.abort(_CODES[error.status], error.sentence)
        states = [state for state in self._model.versions.states() if wanted in (None, state["version"])]
        if not states:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"there is no version {wanted}")
        response = get_model_status_pb2.GetModelStatusResponse()
        return ParseDict({"model_version_status": states}, response)

    async def _refuse(self, request: Any, context: grpc.aio.ServicerContext) -> None:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, "the local server answers Predict, and says what it has")

    Classify = Regress = MultiInference = HandleReloadConfigRequest = _refuse

    def _version(self, spec: Any) -> str | None:
        if spec.name != self._model.name:
            raise RequestError(404, f"the model must be {self._model.name}, received {shown(spec.name)}")
        if spec.version_label:
            raise RequestError(404, f"there are no version labels, received {shown(spec.version_label)}")
        return str(spec.version.value) if spec.HasField("version") else None

    def _arrays(self, tensors: Any) -> Arrays:
        return {name: self._array(name, tensor) for name, tensor in tensors.items()}

    def _array(self, name: str, tensor: Any) -> np.ndarray:
        # One value may stand for many: a few bytes could ask for gigabytes.
        lengths = [dim.size for dim in tensor.tensor_shape.dim]
        if tensor.tensor_shape.unknown_rank or any(length < 0 for length in lengths):
            raise RequestError(400, f"`{name}` must have a known shape, received {lengths}")
        if math.prod(lengths) > self._max_message:
            raise RequestError(413, f"`{name}` must have at most {self._max_message} elements, received {lengths}")
        try:
            array: np.ndarray = tf.make_ndarray(tensor)
            return array
        except (TypeError, ValueError) as error:
            raise RequestError(400, f"`{name}` must be a tensor of its shape and dtype: {error}"[:300]) from error
