"""What is wrong with a request: a status and one sentence, for REST and gRPC alike."""

from __future__ import annotations

import reprlib

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 80
_short.maxlist = _short.maxdict = 4


class RequestError(Exception):
    """A request that gets a status and a message instead of a result.

    Args:
        status: the HTTP status, 4xx when the client can correct the request.
        message: one sentence: the rule, and what was received.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def shown(value: object) -> str:
    """Returns a received value as an error message repeats it: shortened, since it can be of any size."""
    return _short.repr(value)
