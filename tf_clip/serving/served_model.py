"""The model as kserve knows it: a request in, the current version's answer out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import kserve

from tf_clip.serving import json_tensors
from tf_clip.serving.batching import Batcher
from tf_clip.serving.errors import RequestError
from tf_clip.serving.loaded_version import Arrays, LoadedVersion, Signature
from tf_clip.serving.versions import Versions


@dataclass(frozen=True)
class Call:
    """A REST request on its way through kserve's three steps.

    Args:
        body: its bytes, then its parts.
        version: the number asked for, as written in the address, or None.
    """

    body: Any
    version: str | None


class ServedModel(kserve.Model):
    """Answers for whatever version is current.

    Args:
        name: what clients call the model.
        versions: where the current one comes from.
        batcher: what runs it.
        max_rows: the most rows of one request.
    """

    def __init__(self, name: str, versions: Versions, batcher: Batcher, max_rows: int) -> None:
        super().__init__(name)
        self.versions = versions
        self._batcher = batcher
        self._max_rows = max_rows
        self.ready = True

    # kserve times these three and offers the times at /metrics.

    async def preprocess(self, payload: Call, headers: Any = None) -> Call:
        """Reads the JSON."""
        return Call(json_tensors.read_body(payload.body), payload.version)

    async def predict(self, payload: Call, headers: Any = None) -> tuple[Arrays, bool]:
        """Runs the model."""
        body: json_tensors.Body = payload.body
        with self.versions.use(payload.version) as version:
            signature = version.signature(body.signature_name)
            return await self._run(signature, json_tensors.to_arrays(body, signature)), body.in_rows

    async def postprocess(self, result: tuple[Arrays, bool], headers: Any = None) -> bytes:
        """Writes the JSON."""
        return json_tensors.to_json(*result)

    async def run(self, version: LoadedVersion, signature_name: str, inputs: Arrays) -> Arrays:
        """Runs a signature on arrays.

        Args:
            version: one that `versions.use` gave.
            signature_name: which of its functions.
            inputs: an array for each input.

        Returns:
            An array for each output.

        Raises:
            RequestError: when the request is not one that the signature takes.
        """
        return await self._run(version.signature(signature_name), inputs)

    async def _run(self, signature: Signature, inputs: Arrays) -> Arrays:
        self._check(signature, inputs)
        return await self._batcher.run(signature, inputs)

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
                # Its last words are TensorFlow Serving's, which clients know.
                raise RequestError(
                    400, f"`{name}` has {len(array)} rows, larger than maximum input batch size {self._max_rows}"
                )
        if signature.batchable and len({len(array) for array in inputs.values()}) > 1:
            lengths = ", ".join(f"{name} {len(array)}" for name, array in inputs.items())
            raise RequestError(400, f"all inputs must have the same number of rows, received {lengths}")
