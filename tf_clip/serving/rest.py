"""The addresses of the local server: TensorFlow Serving's REST API, health, metrics, and the page."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from prometheus_client import REGISTRY
from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from tf_clip.serving.errors import RequestError, shown
from tf_clip.serving.limits import ConcurrencyLimit, read_body
from tf_clip.serving.served_model import ServedModel

_PAGE = Path(__file__).with_name("page.html").read_bytes()


def application(model: ServedModel, limit: ConcurrencyLimit, max_body: int) -> Starlette:
    """Returns the application that uvicorn runs.

    Args:
        model: what answers.
        limit: shared with gRPC; only `:predict` counts, looking at the page or a status does not.
        max_body: the most bytes of one request.

    Returns:
        An application whose errors are all `{"error": message}`.
    """

    async def status(request: Request) -> Response:
        return _json({"model_version_status": model.states(*_asked(request))})

    async def metadata(request: Request) -> Response:
        with model.use(*_asked(request)) as version:
            spec = {"name": model.name, "signature_name": "", "version": str(version.number)}
            return _json({"model_spec": spec, "metadata": {"signature_def": {"signature_def": version.signature_defs}}})

    routes = [
        Route("/", _constant(Response(_PAGE, headers=_page_headers(), media_type="text/html"))),
        Route("/metrics", _metrics),
        Route("/v2/health/live", _constant(_json({"live": True}))),
        Route("/v2/health/ready", _constant(_json({"ready": True}))),
        Route("/v1/models", _constant(_json({"models": [model.name]}))),
    ]
    for base in ("/v1/models/{name}", "/v1/models/{name}/versions/{version}"):
        routes.append(Route(base + ":predict", _Predict(model, limit, max_body), methods=["POST"]))
        routes.append(Route(base, status))
        routes.append(Route(base + "/metadata", metadata))
    handlers = {RequestError: _request_error, HTTPException: _http_error, Exception: _server_error}
    return Starlette(routes=routes, exception_handlers=handlers)


@dataclass(frozen=True)
class _Predict:
    """Answers `:predict`. It is an ASGI application so that its slot is taken until the answer is sent."""

    model: ServedModel
    limit: ConcurrencyLimit
    max_body: int

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        with self.limit.slot():
            body = await read_body(request, self.max_body)
            with self.model.use(*_asked(request)) as version:
                answer = await self.model.predict(version, body)
            await _json(answer)(scope, receive, send)


async def _metrics(request: Request) -> Response:
    encoder, content_type = choose_encoder(request.headers.get("accept", ""))
    return Response(encoder(REGISTRY), media_type=content_type)


def _constant(response: Response) -> Any:
    async def answer(request: Request) -> Response:
        return response

    return answer


def _asked(request: Request) -> tuple[str, str | None]:
    """Returns the model's name and the version in an address."""
    return request.path_params["name"], request.path_params.get("version")


def _json(content: object, status: int = 200, headers: Any = None) -> Response:
    """Returns content as JSON; bytes are JSON already."""
    body = content if isinstance(content, bytes) else orjson.dumps(content)
    return Response(body, status, headers, media_type="application/json")


async def _request_error(request: Request, error: Any) -> Response:
    return _json({"error": error.message}, error.status, {"Retry-After": "1"} if error.status == 503 else None)


async def _http_error(request: Request, error: Any) -> Response:
    """Answers addresses and methods that do not exist."""
    message = f"{request.method} {shown(request.url.path)} is not served here: {error.detail.lower()}"
    return _json({"error": message}, error.status_code, error.headers)


async def _server_error(request: Request, error: Exception) -> Response:
    # uvicorn logs the trace; a client has no use for it.
    return _json({"error": f"the server failed: {type(error).__name__}"}, 500)


def _page_headers() -> dict[str, str]:
    """Returns headers that let the page run its own script and style and nothing else."""

    def hashes(element: str) -> str:
        texts = re.findall(rf"<{element}>(.*?)</{element}>".encode(), _PAGE, re.DOTALL)
        return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(text).digest()).decode()}'" for text in texts)

    policy = (
        f"default-src 'none'; script-src {hashes('script')}; style-src {hashes('style')}; img-src blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return {
        "Content-Security-Policy": policy,
        "Cache-Control": "no-cache",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
    }
