"""The form of an error about an argument, the same in the whole package."""

from __future__ import annotations


def require(holds: bool, argument: str, rule: str, received: object, advice: str) -> None:
    """Refuses an argument that breaks its rule.

    Args:
        holds: whether the rule is kept.
        argument: its name, as the user typed it.
        rule: what it must be, such as `"at least 1"`.
        received: its value.
        advice: what to do next, a whole sentence.

    Raises:
        ValueError: it does not hold.

    Example:
        >>> require(batch_size > 0, "batch_size", "at least 1", batch_size, "Take 32.")  # doctest: +SKIP
        ValueError: `batch_size` must be at least 1. Received: batch_size=0. Take 32.
    """
    if not holds:
        raise ValueError(f"`{argument}` must be {rule}. Received: {argument}={received!r}. {advice}")
