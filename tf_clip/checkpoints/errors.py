"""The one error of a checkpoint that does not fit its model."""

from __future__ import annotations

from collections.abc import Sequence

_SHOWN = 8


class CheckpointError(ValueError):
    """A checkpoint's tensors and a model's variables do not correspond; the message lists every failure."""


def refuse_unknown(names: Sequence[str], source: str, wanted: str, otherwise: str) -> None:
    """Raises an error when there are tensors that no model here has.

    Args:
        names: the tensors' names.
        source: where they come from.
        wanted: whose tensors it should hold.
        otherwise: what it is instead, as a sentence.

    Raises:
        CheckpointError: there is one; the first of them are listed.
    """
    if names:
        shown = ", ".join(sorted(names)[:_SHOWN])
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        raise CheckpointError(f"{source} must hold the tensors of {wanted}. Received also: {shown}{more}. {otherwise}")
