"""Moves a checkpoint's tensors into a model's variables: strictly, all or nothing.

Nothing here knows a model: it maps *name -> tensor* onto *path -> variable*.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from tf_clip.checkpoints.errors import CheckpointError
from tf_clip.checkpoints.huggingface import SourceTensor, source_tensor
from tf_clip.checkpoints.stored import StoredTensors


class Variable(Protocol):
    """What is asked of a variable: a shape, a value to read and a value to set."""

    shape: tuple[int, ...]

    def assign(self, value: Any) -> Any:
        """Sets the value."""

    def numpy(self) -> np.ndarray:
        """Returns the value."""


def load_weights(
    variables: Mapping[str, Variable], tensors: StoredTensors, *, source: str, partial: bool = False
) -> None:
    """Fills every variable, or changes nothing. One tensor at a time is in memory beside the variables.

    Args:
        variables: from path to variable.
        tensors: from Hugging Face's names to tensors, in its layout.
        source: where the tensors come from, for messages.
        partial: accept tensors that no variable wants, as one tower of a full checkpoint leaves over.

    Raises:
        CheckpointError: a tensor is missing, left over or of another shape; all failures are listed.
    """
    sources = {path: source_tensor(path) for path in variables}
    failures = _misfits(variables, sources, tensors, partial)
    if failures:
        raise CheckpointError(f"{source} does not fit the model; nothing was loaded.\n  " + "\n  ".join(failures))
    spoiled = []
    for path, variable in variables.items():
        wanted = sources[path]
        array = tensors[wanted.name].load()
        if not np.isfinite(array).all():
            spoiled.append(wanted.name)
        variable.assign(wanted.to_variable_layout(array).reshape(variable.shape))
    if spoiled:
        warnings.warn(
            f"{source} holds NaN or infinite weights, which make every result NaN: {', '.join(spoiled)}. "
            "Take an earlier checkpoint of the training run.",
            stacklevel=3,
        )


def _misfits(
    variables: Mapping[str, Variable], sources: Mapping[str, SourceTensor], tensors: StoredTensors, partial: bool
) -> list[str]:
    failures = []
    for path, variable in variables.items():
        source = sources[path]
        if source.name not in tensors:
            failures.append(f"missing: {source.name} (for {path})")
            continue
        wanted, found = source.file_shape(tuple(variable.shape)), tensors[source.name].shape
        # TensorFlow-era and some OpenCLIP files store the one number of logit_scale with shape (1,).
        if found != wanted and not (wanted == () and found == (1,)):
            failures.append(f"shape: {source.name} is {list(found)}, the model needs {list(wanted)}")
    if not partial:
        used = {source.name for source in sources.values()}
        failures += [f"left over: {name}" for name in sorted(set(tensors) - used)]
    return failures
