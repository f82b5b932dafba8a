"""What is wrong with a request, in words and as a status."""

from __future__ import annotations

import reprlib

import orjson
from starlette.responses import Response

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 80
_short.maxlist = _short.maxdict = 4


class RequestError(Exception):
    """A request that is answered with a status and one sentence instead of a result.

    Args:
        status: the HTTP status, 4xx when the sender can mend it.
        sentence: what must be so, and what was received.
    """

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence


def shown(value: object) -> str:
    """Returns a value as it is repeated in an error: cut, since it came from outside."""
    return _short.repr(value)


def error_response(error: RequestError) -> Response:
    """Returns what a REST client is told.

    Args:
        error: the status and the sentence.

    Returns:
        `{"error": sentence}` as TensorFlow Serving words it, with Retry-After when trying again can help.
    """
    headers = {"Retry-After": "1"} if error.status == 503 else None
    return json_response({"error": error.sentence}, error.status, headers)


def json_response(content: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Returns content as JSON; bytes are JSON already."""
    body = content if isinstance(content, bytes) else orjson.dumps(content)
    return Response(body, status, headers, media_type="application/json")
