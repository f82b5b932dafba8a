"""`GrpcClient`: TensorFlow Serving's gRPC protocol."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from tf_clip.client.errors import ServingError, advice_for
from tf_clip.client.retries import Deadline
from tf_clip.client.serving_client import ServingClient

try:
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import (
        get_model_metadata_pb2,
        get_model_status_pb2,
        model_pb2,
        model_service_pb2_grpc,
        predict_pb2,
        prediction_service_pb2_grpc,
    )
except ImportError as error:
    raise ImportError("GrpcClient needs tensorflow-serving-api. Install it: pip install 'tf_clip[serving]'") from error

_READY_TIMEOUT = 5.0

_OPTIONS = (
    # The server limits messages to 2 GB; gRPC's default of 4 MB is less than a batch of photographs.
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # A restarted server is found again after seconds, not minutes.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
)


@dataclasses.dataclass(eq=False)
class GrpcClient(ServingClient):
    """Asks a served model over gRPC: smaller messages than REST, and no base64.

    A request is sent again after UNAVAILABLE, RESOURCE_EXHAUSTED, a broken connection, and when no answer comes within
    `timeout`; never when the server says that the request is wrong.

    It needs tensorflow-serving-api, whose messages contain TensorFlow's own: importing this client imports
    TensorFlow. `RestClient` does not.

    Args:
        url: where the server is, such as `"localhost:8500"`.
        credentials: such as `grpc.ssl_channel_credentials()`; None for a connection without encryption.
        The others are those of `ServingClient`: model, version, timeout, retries, batch_size, label, deadline,
            backoff, concurrency, on_bad_row and headers, which are gRPC metadata here.

    Raises:
        ImportError: tensorflow-serving-api is missing.
        ValueError: an argument is out of range.

    Source: the services PredictionService and ModelService of tensorflow-serving-api.
    """

    credentials: grpc.ChannelCredentials | None = dataclasses.field(default=None, repr=False, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.url or self.url.startswith(("http://", "https://")):
            raise ValueError(f"`url` must be host:port. Received: url={self.url!r}. RestClient takes http addresses.")
        # gRPC takes metadata in lower case only.
        self._metadata = [(name.lower(), value) for name, value in (self.headers or {}).items()]
        self._channel = (
            grpc.insecure_channel(self.url, options=_OPTIONS)
            if self.credentials is None
            else grpc.secure_channel(self.url, self.credentials, options=_OPTIONS)
        )
        self._predictions = prediction_service_pb2_grpc.PredictionServiceStub(self._channel)
        self._models = model_service_pb2_grpc.ModelServiceStub(self._channel)

    def close(self) -> None:
        """Closes the connection."""
        self._channel.close()

    def metadata(self) -> dict[str, Any]:  # noqa: D102 described in the base class
        request = get_model_metadata_pb2.GetModelMetadataRequest(
            model_spec=self._spec(), metadata_field=["signature_def"]
        )
        answer = self._policy.run(
            lambda left: self._ask(self._predictions.GetModelMetadata, request, min(self.timeout, left)),
            Deadline(self.deadline),
        )
        signatures = get_model_metadata_pb2.SignatureDefMap()
        if not answer.metadata["signature_def"].Unpack(signatures):
            raise ServingError(f"the answer of {self.url} is no model's metadata")
        described = {
            name: {"inputs": _tensors(one.inputs), "outputs": _tensors(one.outputs)}
            for name, one in sorted(signatures.signature_def.items())
            if not name.startswith("__")
        }
        return {"name": answer.model_spec.name, "version": answer.model_spec.version.value, "signatures": described}

    def is_ready(self) -> bool:  # noqa: D102 described in the base class
        request = get_model_status_pb2.GetModelStatusRequest(model_spec=self._spec())
        try:
            answer = self._ask(self._models.GetModelStatus, request, min(self.timeout, _READY_TIMEOUT))
        except ServingError as error:
            if error.retryable or error.code == "NOT_FOUND":
                return False
            raise
        available = get_model_status_pb2.ModelVersionStatus.AVAILABLE
        return any(one.state == available for one in answer.model_version_status)

    def _predict(self, signature: str, inputs: Mapping[str, Sequence[bytes]], timeout: float) -> Mapping[str, Any]:
        request = predict_pb2.PredictRequest(model_spec=self._spec())
        request.model_spec.signature_name = signature
        for name, values in inputs.items():
            tensor = request.inputs[name]
            tensor.dtype = tf.string.as_datatype_enum
            tensor.tensor_shape.dim.add(size=len(values))
            tensor.string_val.extend(values)
        answer = self._ask(self._predictions.Predict, request, timeout)
        try:
            return {name: tf.make_ndarray(tensor) for name, tensor in answer.outputs.items()}
        except (TypeError, ValueError) as error:
            raise ServingError(f"the answer of {self.url} holds no tensors ({error})") from error

    def _spec(self) -> model_pb2.ModelSpec:
        spec = model_pb2.ModelSpec(name=self.model)
        if self.version is not None:
            spec.version.value = self.version
        if self.label is not None:
            spec.version_label = self.label
        return spec

    def _ask(self, method: Any, request: Any, timeout: float) -> Any:
        try:
            return method(request, timeout=timeout, metadata=self._metadata)
        except grpc.RpcError as error:
            self._fail(error, timeout)

    def _fail(self, error: Any, timeout: float) -> NoReturn:
        code, message = error.code().name, error.details() or ""
        if code == "DEADLINE_EXCEEDED":
            raise ServingError(
                f"{self.url} did not answer within {timeout:.3g} seconds",
                code=code,
                advice="Allow a longer `timeout`, or a smaller `batch_size`.",
                retryable=True,
            ) from error
        too_large = code == "RESOURCE_EXHAUSTED" and "larger than max" in message  # one message, not the load
        raise ServingError(
            message or code,
            code=code,
            advice="Give the client a smaller `batch_size`." if too_large else advice_for(code, message),
            retryable=not too_large and (code in ("UNAVAILABLE", "RESOURCE_EXHAUSTED") or "RST_STREAM" in message),
        ) from error


def _tensors(described: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    tensors = {}
    for name in sorted(described):
        sizes = [axis.size for axis in described[name].tensor_shape.dim]
        dtype = tf.as_dtype(described[name].dtype).name
        tensors[name] = {"dtype": dtype, "shape": [None if size < 0 else size for size in sizes]}
    return tensors
