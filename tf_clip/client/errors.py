"""`ServingError`: the server's message, its code, and what to do next."""

from __future__ import annotations

import re

# The messages of TensorFlow Serving and of the local server.
_TOO_MANY_ROWS = re.compile(r"larger than maximum input batch size (\d+)|must have 1 to (\d+) rows")


class ServingError(RuntimeError):
    """Raised when a server cannot be reached, refuses a request, or sends an unexpected answer.

    Args:
        message: the server's own message, or the failure of the connection.
        code: the HTTP status such as 400, gRPC's code such as `"UNAVAILABLE"`, or None when no answer came.
        advice: what to do next.
        retryable: whether the same request may succeed later.
        retry_after: the seconds that the server asked to wait, or None.

    The arguments are attributes; `attempts` is the number of requests sent.
    """

    def __init__(
        self,
        message: str,
        *,
        code: int | str | None = None,
        advice: str = "",
        retryable: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.advice = advice
        self.retryable = retryable
        self.retry_after = retry_after
        self.attempts = 1

    @property
    def most_rows(self) -> int | None:
        """The number of rows that a request may have, if it was refused for having more."""
        found = _TOO_MANY_ROWS.search(self.message)
        return int(found[1] or found[2]) if found else None

    def __str__(self) -> str:
        kind = f"HTTP {self.code}" if isinstance(self.code, int) else self.code
        notes = ", ".join(filter(None, [kind, f"after {self.attempts} attempts" if self.attempts > 1 else None]))
        sentence = self.message.rstrip(".") + (f" ({notes})" if notes else "") + "."
        return f"{sentence} {self.advice}".rstrip()


def advice_for(code: int | str | None, message: str) -> str:
    """Returns what to do about a refusal, from its code and the server's message."""
    if _TOO_MANY_ROWS.search(message):
        return "Give the client a `batch_size` of at most that."
    if "Batching" in message and "0th dimension" in message:
        return (
            "The server batches requests, which `similarity` does not allow: compare the results of `encode_images` "
            "and `encode_texts`, use `similarity_pairs`, or serve the model without batching."
        )
    if "ignature" in message and "not found" in message:
        return "`metadata()` lists the signatures; `classify` is there when the model was exported with labels."
    return _ADVICE.get(code, "See the server's log." if code in (500, "INTERNAL", "UNKNOWN") else "")


_INPUTS = "Compare the inputs with what `metadata()` lists."
_ACCESS = "Check `headers`."
_MODEL = "Check `model`, `version` and `label`: the server does not serve that one, or not yet."
_BUSY = "The server is busy or starting: allow more `retries`, or fewer requests at a time."
_TOO_LARGE = "Give the client a smaller `batch_size`."

_ADVICE: dict[int | str | None, str] = {
    400: _INPUTS,
    401: _ACCESS,
    403: _ACCESS,
    404: _MODEL,
    413: _TOO_LARGE,
    429: _BUSY,
    502: _BUSY,
    503: _BUSY,
    504: _BUSY,
    "INVALID_ARGUMENT": _INPUTS,
    "UNAUTHENTICATED": _ACCESS,
    "PERMISSION_DENIED": _ACCESS,
    "NOT_FOUND": _MODEL,
    "RESOURCE_EXHAUSTED": _BUSY,
    "UNAVAILABLE": "Check that the server runs and that `url` is right.",
}
