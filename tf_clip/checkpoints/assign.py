"""Moves a checkpoint's tensors into a model's variables: strictly, all or nothing.

Nothing here knows a model: it maps *name -> tensor* onto *path -> variable*.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from tf_clip.array_memory import DTYPES_OF_TENSORS, as_tensor, copied_to_pages
from tf_clip.checkpoints.errors import CheckpointError
from tf_clip.checkpoints.readers.stored import Array, FileRegion, StoredTensor, StoredTensors, numpy_dtype
from tf_clip.families.tensor_names import SourceTensor
from tf_clip.machine import return_freed_memory

_LARGE = 2**18  # bytes
_MANY = 64 * 2**20  # bytes


class Variable(Protocol):
    """What is asked of a variable: a shape, a dtype, a value to read and a value to set."""

    shape: tuple[int, ...]
    dtype: Any
    value: Any

    def assign(self, value: Any) -> Any:
        """Sets the value."""

    def numpy(self) -> np.ndarray:
        """Returns the value."""


def load_weights(
    variables: Mapping[str, Variable],
    sources: Mapping[str, SourceTensor],
    tensors: StoredTensors,
    *,
    source: str,
    partial: bool = False,
) -> None:
    """Fills every variable, or changes nothing. One tensor at a time is in memory beside the variables.

    Args:
        variables: from path to variable.
        sources: from path to where the variable's value is found.
        tensors: from Hugging Face's names to tensors, in its layout.
        source: where the tensors come from, for messages.
        partial: accept tensors that no variable wants, as one tower of a full checkpoint leaves over.

    Raises:
        CheckpointError: a tensor is missing, left over or of another shape; all failures are listed.
    """
    failures = _misfits(variables, sources, tensors, partial)
    if failures:
        raise CheckpointError(f"{source} does not fit the model; nothing was loaded.\n  " + "\n  ".join(failures))
    spoiled = []
    unreturned = 0
    for path, variable in variables.items():
        tensor = tensors[sources[path].name]
        if not _fill(variable, tensor, sources[path]):
            spoiled.append(sources[path].name)
        unreturned += _size(tensor)
        if unreturned > _MANY:
            return_freed_memory()
            unreturned = 0
    if spoiled:
        warnings.warn(
            f"{source} holds NaN or infinite weights, which make every result NaN: {', '.join(spoiled)}. "
            "Take an earlier checkpoint of the training run.",
            stacklevel=3,
        )


def _fill(variable: Variable, tensor: StoredTensor, source: SourceTensor) -> bool:
    """Sets a variable; returns whether all numbers are finite."""
    array = tensor.load()
    value = source.to_variable_layout(array).reshape(variable.shape)
    # A table that was assigned in parts would take no more memory, but be copied at every reading from then on.
    variable.assign(as_tensor(_in_pages(value, tensor, variable)) if _is_worth_pages(variable) else value)
    return _is_finite(array)


def _is_worth_pages(variable: Variable) -> bool:
    """Says whether a variable is large, and TensorFlow's, which would copy an array into memory that it keeps."""
    is_of_tensorflow = type(variable.value).__module__.partition(".")[0] == "tensorflow"
    dtype = str(variable.dtype)
    size = math.prod(variable.shape) * numpy_dtype(dtype).itemsize
    return is_of_tensorflow and dtype in DTYPES_OF_TENSORS and size >= _LARGE


def _in_pages(value: Array, tensor: StoredTensor, variable: Variable) -> Array:
    """Returns a variable's value in pages of its own: the very ones it was read into, if they are what it wants."""
    dtype = str(variable.dtype)
    if isinstance(tensor.load, FileRegion) and value.dtype == dtype and value.flags.c_contiguous:
        return value
    return copied_to_pages(value, np.dtype(dtype))


def _size(tensor: StoredTensor) -> int:
    return math.prod(tensor.shape) * numpy_dtype(tensor.dtype).itemsize


def _is_finite(array: Array) -> bool:
    """Looks at a million numbers at a time: numpy's answer takes as many bytes as it is asked about."""
    flat = array.reshape(-1)
    return all(np.isfinite(flat[start : start + 1_000_000]).all() for start in range(0, flat.size, 1_000_000))


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
