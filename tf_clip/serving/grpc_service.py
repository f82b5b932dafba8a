"""TensorFlow Serving's gRPC protocol: PredictionService.Predict, GetModelMetadata and ModelService.GetModelStatus."""

from __future__ import annotations

import functools
import math
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf.json_format import ParseDict
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

from tf_clip.serving.errors import RequestError, shown
from tf_clip.serving.json_tensors import DEFAULT_SIGNATURE
from tf_clip.serving.limits import ConcurrencyLimit
from tf_clip.serving.served_model import ServedModel

_CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    501: grpc.StatusCode.UNIMPLEMENTED,
    503: grpc.StatusCode.UNAVAILABLE,
}


def grpc_server(model: ServedModel, limit: ConcurrencyLimit, max_message: int) -> grpc.aio.Server:
    """Returns a gRPC server that has no port yet and is not started.

    Args:
        model: what answers.
        limit: shared with REST.
        max_message: the most bytes of one request.
    """
    # Without SO_REUSEPORT a second server at the same port is an error; with it either may get a request.
    options = [("grpc.max_receive_message_length", max_message), ("grpc.max_send_message_length", -1)]
    server = grpc.aio.server(options=[*options, ("grpc.so_reuseport", 0)])
    service = _Service(model, limit, max_message)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(service, server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(service, server)
    return server


def _method(answer: Callable[[Any, Any], Awaitable[Any]]) -> Any:
    """Makes a method of a gRPC service of one that raises RequestError."""

    @functools.wraps(answer)
    async def method(self: Any, request: Any, context: grpc.aio.ServicerContext) -> Any:
        try:
            return await answer(self, request)
        except RequestError as error:
            await context.abort(_CODES.get(error.status, grpc.StatusCode.INTERNAL), error.message)

    return method


class _Service:
    """The methods of both services; gRPC calls them by name."""

    def __init__(self, model: ServedModel, limit: ConcurrencyLimit, max_message: int) -> None:
        self._model = model
        self._limit = limit
        self._max_message = max_message

    @_method
    async def Predict(self, request: Any) -> Any:
        name = request.model_spec.signature_name or DEFAULT_SIGNATURE
        with self._limit.slot(), self._model.use(*_asked(request)) as version:
            inputs = {key: self._array(key, tensor) for key, tensor in request.inputs.items()}
            outputs = await self._model.run(version.signature(name), inputs)
        response = predict_pb2.PredictResponse()
        response.model_spec.name = self._model.name
        response.model_spec.version.value = version.number
        response.model_spec.signature_name = name
        for key in request.output_filter or outputs:
            if key not in outputs:
                raise RequestError(400, f"`output_filter` must name outputs, received {shown(key)}")
            response.outputs[key].CopyFrom(tf.make_tensor_proto(outputs[key]))
        return response

    @_method
    async def GetModelMetadata(self, request: Any) -> Any:
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        signatures = get_model_metadata_pb2.SignatureDefMap()
        with self._model.use(*_asked(request)) as version:
            ParseDict({"signature_def": version.signature_defs}, signatures)
            response.model_spec.version.value = version.number
        response.model_spec.name = self._model.name
        response.metadata["signature_def"].Pack(signatures)
        return response

    @_method
    async def GetModelStatus(self, request: Any) -> Any:
        states = self._model.states(*_asked(request))
        return ParseDict({"model_version_status": states}, get_model_status_pb2.GetModelStatusResponse())

    @_method
    async def _refuse(self, request: Any) -> Any:
        raise RequestError(501, "the local server has Predict, GetModelMetadata and GetModelStatus alone")

    Classify = Regress = MultiInference = HandleReloadConfigRequest = _refuse

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


def _asked(request: Any) -> tuple[str, str | None]:
    """Returns the model's name and the version in a request."""
    spec = request.model_spec
    if spec.version_label:
        raise RequestError(404, f"there are no version labels, received {shown(spec.version_label)}")
    return spec.name, str(spec.version.value) if spec.HasField("version") else None
