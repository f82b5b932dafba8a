"""The one error of a checkpoint that does not fit its model."""

from __future__ import annotations


class CheckpointError(ValueError):
    """A checkpoint's tensors and a model's variables do not correspond; the message lists every failure."""
