"""The model that REST and gRPC serve: a request in, the current version's answer out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prometheus_client import Histogram

from tf_clip.serving import json_tensors
from tf_clip.serving.batching import Batcher
from tf_clip.serving.errors import RequestError, shown
from tf_clip.serving.loaded_version import Arrays, LoadedVersion, Signature
from tf_clip.serving.versions import Versions

PREPROCESS_SECONDS = Histogram("request_preprocess_seconds", "reading the JSON of a request", ["model_name"])
PREDICT_SECONDS = Histogram("request_predict_seconds", "waiting for a batch and running the model", ["model_name"])
POSTPROCESS_SECONDS = Histogram("request_postprocess_seconds", "writing the JSON of an answer", ["model_name"])


class ServedModel:
    """A name, the versions behind it, and the limit on rows.

    Args:
        name: the name in requests.
        versions: the loaded versions.
        batcher: runs their signatures.
        max_rows: the most rows of one request.
    """

    def __init__(self, name: str, versions: Versions, batcher: Batcher, max_rows: int) -> None:
        self.name = name
        self._versions = versions
        self._batcher = batcher
        self._max_rows = max_rows

    @contextmanager
    def use(self, name: str, number: str | None) -> Iterator[LoadedVersion]:
        """Gives the version that answers a request, and keeps it loaded until the request is done.

        Args:
            name: the model asked for.
            number: the version asked for; None takes the current one.

        Raises:
            RequestError: 404, when the model or the version is another.
        """
        self._require_name(name)
        with self._versions.use(number) as version:
            yield version

    def states(self, name: str, number: str | None) -> list[dict[str, Any]]:
        """Returns the states of all versions, or of one, in TensorFlow Serving's words.

        Args:
            name: the model asked for.
            number: the version asked for; None takes all.

        Raises:
            RequestError: 404, when there is no such model or version.
        """
        self._require_name(name)
        states = [state for state in self._versions.states() if number in (None, state["version"])]
        if not states:
            raise RequestError(404, f"the version must be one that is there, received {shown(number)}")
        return states

    async def predict(self, version: LoadedVersion, body: bytes | bytearray) -> bytes:
        """Answers JSON by JSON.

        Args:
            version: one that `use` gave.
            body: a request in row or column form.

        Raises:
            RequestError: when the request does not fit the signature, or the model refuses it.
        """
        with PREPROCESS_SECONDS.labels(self.name).time():
            signature, inputs, in_rows = json_tensors.read_request(body, version.signature)
        with PREDICT_SECONDS.labels(self.name).time():
            outputs = await self.run(signature, inputs)
        with POSTPROCESS_SECONDS.labels(self.name).time():
            return json_tensors.to_json(outputs, in_rows)

    async def run(self, signature: Signature, inputs: Arrays) -> Arrays:
        """Runs a signature on arrays.

        Args:
            signature: of a version that `use` gave.
            inputs: an array for each input.

        Returns:
            An array for each output.

        Raises:
            RequestError: when the inputs do not fit the signature, or the model refuses them.
        """
        self._check(signature, inputs)
        return await self._batcher.run(signature, inputs)

    def _require_name(self, name: str) -> None:
        if name != self.name:
            raise RequestError(404, f"the model must be {self.name}, received {shown(name)}")

    def _check(self, signature: Signature, inputs: Arrays) -> None:
        if inputs.keys() != signature.inputs.keys():
            names = ", ".join(signature.inputs)
            raise RequestError(400, f"the inputs must be {names}, received {', '.join(inputs) or 'none'}"[:300])
        for name, kind in signature.inputs.items():
            array = inputs[name]
            if array.dtype != kind.dtype or not kind.fits(array.shape):
                received = f"{'string' if array.dtype == object else array.dtype.name} {list(array.shape)}"
                raise RequestError(400, f"`{name}` must be {kind}, received {received}")
            if array.ndim and not len(array):
                raise RequestError(400, f"`{name}` must have at least one row, received none")
            if array.ndim and len(array) > self._max_rows:
                # The last words are TensorFlow Serving's: clients recognize them.
                raise RequestError(
                    400, f"`{name}` has {len(array)} rows, larger than maximum input batch size {self._max_rows}"
                )
        if signature.batchable and len({len(array) for array in inputs.values()}) > 1:
            lengths = ", ".join(f"{name} {len(array)}" for name, array in inputs.items())
            raise RequestError(400, f"all inputs must have the same number of rows, received {lengths}")
