"""The addresses of the local server: TensorFlow Serving's REST API, kserve's health and metrics, the page."""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.model_repository_extension import ModelRepositoryExtension
from kserve.protocol.rest.server import metrics_handler
from kserve.protocol.rest.v1_endpoints import V1Endpoints
from kserve.protocol.rest.v2_endpoints import V2Endpoints
from starlette.exceptions import HTTPException
from starlette.responses import Response

from tf_clip.serving.errors import RequestError, error_response, json_response, shown
from tf_clip.serving.served_model import Call, ServedModel

_PAGE = Path(__file__).with_name("page.html")


def application(dataplane: DataPlane, repository: ModelRepositoryExtension, model: ServedModel) -> FastAPI:
    """Returns the application that uvicorn runs.

    Args:
        dataplane: kserve's, with the model in its registry.
        repository: kserve's.
        model: the one model.

    Returns:
        An application whose errors are all `{"error": sentence}`.
    """
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    health, v1, own = V2Endpoints(dataplane, repository), V1Endpoints(dataplane), _Addresses(dataplane, model)
    gets: dict[str, Any] = {
        "/": own.page,
        "/metrics": metrics_handler,
        "/v2/health/live": health.live,
        "/v2/health/ready": health.ready,
        "/v1/models": v1.models,
    }
    for base in ("/v1/models/{name}", "/v1/models/{name}/versions/{version}"):
        gets[base] = own.status
        gets[base + "/metadata"] = own.metadata
        app.add_api_route(base + ":predict", own.predict, methods=["POST"], response_model=None)
    for path, answer in gets.items():
        app.add_api_route(path, answer, methods=["GET"], response_model=None)
    app.add_exception_handler(RequestError, _request_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _server_error)
    return app


class _Addresses:
    def __init__(self, dataplane: DataPlane, model: ServedModel) -> None:
        self._dataplane = dataplane
        self._model = model
        self._page = _PAGE.read_bytes()
        self._page_headers = {
            "Content-Security-Policy": _policy(self._page.decode("utf-8")),
            "Cache-Control": "no-cache",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }

    async def page(self) -> Response:
        return Response(self._page, headers=self._page_headers, media_type="text/html")

    async def predict(self, request: Request) -> Response:
        name, version = self._asked(request)
        call = Call(await request.body(), version)
        # Without the headers: kserve would read some of them as a cloud event's.
        answer, _ = await self._dataplane.infer(name, call, {})
        return json_response(answer)

    async def status(self, request: Request) -> Response:
        _, version = self._asked(request)
        states = self._model.versions.states()
        if version is not None:
            states = [state for state in states if state["version"] == version]
            if not states:
                raise RequestError(404, f"the version must be one that is there, received {shown(version)}")
        return json_response({"model_version_status": states})

    async def metadata(self, request: Request) -> Response:
        name, asked = self._asked(request)
        with self._model.versions.use(asked) as version:
            spec = {"name": name, "signature_name": "", "version": str(version.number)}
            signatures = {"signature_def": {"signature_def": version.signature_defs}}
            return json_response({"model_spec": spec, "metadata": signatures})

    def _asked(self, request: Request) -> tuple[str, str | None]:
        name = request.path_params["name"]
        if name != self._model.name:
            raise RequestError(404, f"the model must be {self._model.name}, received {shown(name)}")
        return name, request.path_params.get("version")


def _policy(page: str) -> str:
    """Returns a content security policy that lets a page run its own script and style and nothing else."""

    def hashes(element: str) -> str:
        texts = re.findall(rf"<{element}>(.*?)</{element}>", page, re.DOTALL)
        digests = [base64.b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii") for text in texts]
        return " ".join(f"'sha256-{digest}'" for digest in digests)

    return (
        f"default-src 'none'; script-src {hashes('script')}; style-src {hashes('style')}; img-src blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


async def _request_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestError):
        raise error
    return error_response(error)


async def _http_error(request: Request, error: Exception) -> Response:
    """Words what the router refuses: addresses and methods that are not there."""
    if not isinstance(error, HTTPException):
        raise error
    sentence = f"{request.method} {shown(request.url.path)} is not served here: {error.detail.lower()}"
    return json_response({"error": sentence}, error.status_code, dict(error.headers or {}))


async def _server_error(request: Request, error: Exception) -> Response:
    # uvicorn logs it with its trace; a client has no use for that.
    return json_response({"error": f"the server failed: {type(error).__name__}"}, 500)
