"""`RestClient`: TensorFlow Serving's REST protocol, without TensorFlow."""

from __future__ import annotations

import base64
import dataclasses
import email.utils
import json
import math
import ssl
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from tf_clip.client.errors import ServingError, advice_for
from tf_clip.client.retries import Deadline
from tf_clip.client.serving_client import ServingClient

try:
    import httpx
except ImportError as error:
    raise ImportError("RestClient needs httpx. Install it: pip install 'tf_clip[client]'") from error

RETRYABLE_CODES = (429, 502, 503, 504)

_READY_TIMEOUT = 5.0


@dataclasses.dataclass(eq=False)
class RestClient(ServingClient):
    """Asks a served model over REST.

    A request is sent again when no connection can be made, the connection breaks, no answer comes within `timeout`, or
    the server answers 429, 502, 503 or 504; never after another 4xx.

    Args:
        url: where the server is, such as `"http://localhost:8501"`; a path in front of `/v1` belongs to it.
        tls: how an https server is checked; None takes the usual authorities.
        The others are those of `ServingClient`: model, version, timeout, retries, batch_size, label, deadline,
            backoff, concurrency, on_bad_row and headers.

    Raises:
        ImportError: httpx is missing.
        ValueError: an argument is out of range.

    Example:
        with RestClient("http://localhost:8501") as client:
            result = client.encode_images(["owl.png", "bus.png"])
            print(result.embeds.shape, result.status)

    Source: TensorFlow Serving's RESTful API; the columnar `inputs` form, whose answers are smaller.
    """

    tls: ssl.SSLContext | None = dataclasses.field(default=None, repr=False, kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        address = httpx.URL(self.url)
        if address.scheme not in ("http", "https") or not address.host:
            raise ValueError(
                f"`url` must start with http:// or https://. Received: url={self.url!r}. GrpcClient takes host:port."
            )
        self.url = str(address.copy_with(username=None, password=None)).rstrip("/")
        self._path = f"/v1/models/{quote(self.model, safe='')}"
        if self.version is not None:
            self._path += f"/versions/{self.version}"
        if self.label is not None:
            self._path += f"/labels/{quote(self.label, safe='')}"
        self._http = httpx.Client(
            base_url=address,
            headers=dict(self.headers or {}),
            verify=True if self.tls is None else self.tls,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=max(20, self.concurrency)),
        )

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def metadata(self) -> dict[str, Any]:  # noqa: D102 described in the base class
        deadline = Deadline(self.deadline)
        answer = self._policy.run(
            lambda left: self._ask("GET", f"{self._path}/metadata", None, min(self.timeout, left)), deadline
        )
        try:
            spec = answer["model_spec"]
            found = answer["metadata"]["signature_def"]["signature_def"]
            described = {
                name: {side: _tensors(one.get(side, {})) for side in ("inputs", "outputs")}
                for name, one in sorted(found.items())
                if not name.startswith("__")
            }
            return {"name": str(spec["name"]), "version": int(spec["version"]), "signatures": described}
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise self._unexpected(f"is no model's metadata ({type(error).__name__}: {error})") from error

    def is_ready(self) -> bool:  # noqa: D102 described in the base class
        try:
            answer = self._ask("GET", self._path, None, min(self.timeout, _READY_TIMEOUT))
        except ServingError as error:
            if error.retryable or error.code == 404:
                return False
            raise
        versions = answer.get("model_version_status")
        if not isinstance(versions, list):
            raise self._unexpected("is no model's status")
        return any(isinstance(one, dict) and one.get("state") == "AVAILABLE" for one in versions)

    def _predict(self, signature: str, inputs: Mapping[str, Sequence[bytes]], timeout: float) -> Mapping[str, Any]:
        columns = {
            name: [_text(value) if name == "text" else _base64(value) for value in values]
            for name, values in inputs.items()
        }
        body = json.dumps({"signature_name": signature, "inputs": columns}).encode()
        outputs = self._ask("POST", f"{self._path}:predict", body, timeout).get("outputs")
        if not isinstance(outputs, dict):
            raise self._unexpected("has no named outputs")
        return outputs

    def _ask(self, method: str, path: str, body: bytes | None, timeout: float) -> dict[str, Any]:
        """Sends one request and returns the JSON object of the answer."""
        headers = {"Content-Type": "application/json"} if body is not None else {}
        end = time.monotonic() + timeout
        try:
            with self._http.stream(method, path, content=body, headers=headers, timeout=timeout) as response:
                content = bytearray()
                for block in response.iter_bytes():
                    if time.monotonic() > end:  # httpx bounds the wait for each block, not their sum
                        raise httpx.ReadTimeout("the answer came too slowly")
                    content += block
        except httpx.TimeoutException as error:
            raise ServingError(
                f"{self.url} did not answer within {timeout:.3g} seconds",
                advice="Allow a longer `timeout`, or a smaller `batch_size`.",
                retryable=True,
            ) from error
        except httpx.RequestError as error:
            raise self._lost(error) from error
        return self._read(response.status_code, bytes(content), response.headers)

    def _lost(self, error: httpx.RequestError) -> ServingError:
        reason = str(error) or type(error).__name__
        if "CERTIFICATE_VERIFY_FAILED" in reason:
            return ServingError(f"{self.url} is not trusted: {reason}", advice="Give the authority's context as `tls`.")
        if isinstance(error, (httpx.DecodingError, httpx.LocalProtocolError, httpx.UnsupportedProtocol)):
            return ServingError(f"the exchange with {self.url} failed: {reason}", advice="Check `url` and `headers`.")
        return ServingError(
            f"{self.url} cannot be reached, or broke off: {reason}",
            advice="Check that the server runs and that `url` is right.",
            retryable=True,
        )

    def _read(self, code: int, content: bytes, headers: httpx.Headers) -> dict[str, Any]:
        try:
            answer = json.loads(content)
        except (ValueError, RecursionError):
            answer = None
        if code == 200:
            if not isinstance(answer, dict):
                raise self._unexpected(f"is no JSON object: {_excerpt(content)}")
            return answer
        said = answer.get("error") if isinstance(answer, dict) else None
        message = said if isinstance(said, str) else _excerpt(content)
        raise ServingError(
            message,
            code=code,
            advice=advice_for(code, message),
            retryable=code in RETRYABLE_CODES,
            retry_after=_seconds(headers.get("Retry-After")),
        )

    def _unexpected(self, what: str) -> ServingError:
        return ServingError(
            f"the answer of {self.url} {what}", advice="Check that `url` is the REST address of a model server."
        )


def _base64(value: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(value).decode("ascii")}


def _text(value: bytes) -> str | dict[str, str]:
    # As itself, which is shorter and can be read in a log, unless it is what JSON has no letters for.
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return _base64(value)


def _excerpt(content: bytes) -> str:
    return repr(content[:200].decode("utf-8", "replace")) if content else "an empty answer"


def _seconds(value: str | None) -> float | None:
    """Reads `Retry-After`, which is a number of seconds or a date; what is neither is as if not there."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


_DTYPES = {"DT_STRING": "string", "DT_FLOAT": "float32"}


def _tensors(described: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    tensors = {}
    for name, one in sorted(described.items()):
        sizes = [int(axis["size"]) for axis in one["tensor_shape"].get("dim", [])]
        dtype = _DTYPES.get(one["dtype"], one["dtype"].removeprefix("DT_").lower())
        tensors[name] = {"dtype": dtype, "shape": [None if size < 0 else size for size in sizes]}
    return tensors
