"""Limits on requests: the bytes and seconds of one body, and the number of requests at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import Counter, Gauge
from starlette.requests import ClientDisconnect, Request

from tf_clip.serving.errors import RequestError

SECONDS_FOR_A_BODY = 60.0

IN_FLIGHT = Gauge("tf_clip_requests_in_flight", "requests begun and not yet answered")
REFUSED = Counter("tf_clip_requests_refused", "requests turned away because too many were in flight")


class ConcurrencyLimit:
    """A bounded number of requests at a time, over REST and gRPC together.

    Args:
        count: the most requests at a time.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._taken = 0

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Counts a request as in flight.

        Raises:
            RequestError: 503, when the limit is reached.
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


async def read_body(request: Request, max_bytes: int) -> bytearray:
    """Reads the body of a request.

    Args:
        request: whose body has not been read.
        max_bytes: the most bytes of the body.

    Raises:
        RequestError: 413, when the body is too large: at once where `Content-Length` says so, otherwise as soon as
            too much has arrived. 408, when it takes longer than a minute. 400, when the connection is closed first.
    """

    def check(size: int) -> None:
        if size > max_bytes:
            limit = f"{max_bytes / 2**20:.3g} MB"
            raise RequestError(413, f"the body must have at most {limit}, received {size} bytes or more")

    async def read() -> bytearray:
        body = bytearray()
        async for part in request.stream():
            body += part
            check(len(body))
        return body

    check(int(request.headers.get("content-length", 0)))
    try:
        return await asyncio.wait_for(read(), SECONDS_FOR_A_BODY)
    except asyncio.TimeoutError as error:
        raise RequestError(408, f"the body must arrive within {SECONDS_FOR_A_BODY:.0f} seconds") from error
    except ClientDisconnect as error:
        raise RequestError(400, "the body must arrive before the connection is closed") from error
