"""When a failed request is sent again, and until when, by both protocols' clients alike.

The libraries do less: httpx retries connections alone, gRPC neither timeouts nor more than four times.
"""

from __future__ import annotations

import dataclasses
import math
import random
import time
from collections.abc import Callable
from typing import TypeVar

from tf_clip.client.errors import ServingError

_Answer = TypeVar("_Answer")

LONGEST_BACKOFF = 20.0
"""Seconds; waits double up to this."""

LONGEST_RETRY_AFTER = 60.0
"""Seconds; a server that asks for more counts as unavailable."""


class Deadline:
    """The end of a call's time.

    Args:
        seconds: from now; None for no end.
    """

    def __init__(self, seconds: float | None) -> None:
        self.seconds = seconds
        self._end = math.inf if seconds is None else time.monotonic() + seconds

    def remaining(self) -> float:
        """Returns the seconds left: infinite without an end, negative after it."""
        return self._end - time.monotonic()


@dataclasses.dataclass(frozen=True)
class RetryPolicy:
    """Sends again what may succeed later. Predictions change nothing, so doing one twice is safe.

    Args:
        retries: how often at most, after the first attempt.
        backoff: seconds before the first retry. Each wait is twice the last, plus a random time of up to its length, so
            that clients which failed together do not come back together. The server may ask for a longer wait.
    """

    retries: int
    backoff: float

    def run(self, attempt: Callable[[float], _Answer], deadline: Deadline) -> _Answer:
        """Calls `attempt` with the seconds it may take until it succeeds.

        Args:
            attempt: sends one request.
            deadline: the end of all attempts and of the waits between them.

        Raises:
            ServingError: the last failure, when it is final, or no retries or no time are left.
        """
        number = 0
        while True:
            number += 1
            left = deadline.remaining()
            if left <= 0:
                raise ServingError(
                    f"the deadline of {deadline.seconds} seconds passed before the request was sent",
                    advice="Allow a longer `deadline`, or send fewer rows in a call.",
                )
            try:
                return attempt(left)
            except ServingError as error:
                error.attempts = number
                if not error.retryable or number > self.retries:
                    raise
                wait = self._wait(number, error.retry_after)
                if wait >= deadline.remaining() or wait > LONGEST_RETRY_AFTER:
                    raise
                time.sleep(wait)

    def _wait(self, number: int, retry_after: float | None) -> float:
        wait = min(self.backoff * 2.0 ** min(number - 1, 32), LONGEST_BACKOFF)
        return max(wait + random.uniform(0, wait), retry_after or 0.0)
