"""What one request, and all requests together, may take: bytes, time, and a place among those being answered."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prometheus_client import Counter, Gauge

from tf_clip.serving.errors import RequestError, error_response

# A sender that takes longer for its request is not waited for.
SECONDS_FOR_A_BODY = 60.0

IN_FLIGHT = Gauge("tf_clip_requests_in_flight", "requests begun and not yet answered")
REFUSED = Counter("tf_clip_requests_refused", "requests turned away because too many were in flight")


class Places:
    """A bounded number of requests at a time, over REST and gRPC together.

    Args:
        count: how many.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._taken = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """Holds a place.

        Raises:
            RequestError: 503, when all are taken.
        """
        if self._taken >= self._count:
            REFUSED.inc()
            raise RequestError(503, f"{self._count} requests are being answered already, try again")
        self._taken += 1
        IN_FLIGHT.inc()
        try:
            yield
        finally:
            self._taken -= 1
            IN_FLIGHT.dec()


class RequestLimits:
    """ASGI middleware that turns requests away before they cost anything.

    A body that says it is too long is refused before it is read, one in chunks as soon as it has become too long.

    Args:
        app: what the others reach.
        places: for requests with a body; looking at a page or a status takes none.
        max_body: the most bytes of a body.
    """

    def __init__(self, app: Any, places: Places, max_body: int) -> None:
        self._app = app
        self._places = places
        self._max_body = max_body

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answers a request, or passes it on."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        try:
            self._check_size(int(dict(scope["headers"]).get(b"content-length", 0)))
            with self._places.one():
                await self._app(scope, self._limited(receive), send)
        except RequestError as error:
            await error_response(error)(scope, receive, send)

    def _limited(self, receive: Any) -> Any:
        size = 0
        deadline = asyncio.get_running_loop().time() + SECONDS_FOR_A_BODY

        async def limited() -> Any:
            nonlocal size
            remaining = deadline - asyncio.get_running_loop().time()
            try:
                message = await asyncio.wait_for(receive(), max(0.0, remaining))
            except asyncio.TimeoutError as error:
                sentence = f"the body must arrive within {SECONDS_FOR_A_BODY:.0f} seconds"
                raise RequestError(408, sentence) from error
            size += len(message.get("body", b""))
            self._check_size(size)
            return message

        return limited

    def _check_size(self, size: int) -> None:
        if size > self._max_body:
            megabytes = self._max_body / 2**20
            raise RequestError(413, f"the body must have at most {megabytes:.3g} MB, received {size} bytes or more")
