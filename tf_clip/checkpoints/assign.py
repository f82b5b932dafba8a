"""Moves a checkpoint's tensors into a model's variables: strictly, all or nothing.

Nothing here knows a model: it maps *name -> tensor* onto *path -> variable*.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import warnings
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from tf_clip.checkpoints.errors import CheckpointError
from tf_clip.checkpoints.huggingface import SourceTensor, source_tensor
from tf_clip.checkpoints.stored import Array, FileRegion, StoredTensor, StoredTensors, numpy_dtype

_LARGE = 64 * 2**20  # bytes


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
    unreturned = 0
    for path, variable in variables.items():
        tensor = tensors[sources[path].name]
        if not _fill(variable, tensor, sources[path]):
            spoiled.append(sources[path].name)
        unreturned += _size(tensor)
        if unreturned > _LARGE:
            _return_freed_memory()
            unreturned = 0
    if spoiled:
        warnings.warn(
            f"{source} holds NaN or infinite weights, which make every result NaN: {', '.join(spoiled)}. "
            "Take an earlier checkpoint of the training run.",
            stacklevel=3,
        )


def _return_freed_memory() -> None:
    """Gives back what the initial values took up, which glibc would keep beside the new ones."""
    with contextlib.suppress(OSError, AttributeError):  # another C library than glibc
        ctypes.CDLL(None).malloc_trim(0)


def _fill(variable: Variable, tensor: StoredTensor, source: SourceTensor) -> bool:
    """Sets a variable; returns whether all numbers are finite."""
    array = tensor.load()
    if _can_be_taken_over(variable, tensor, source):
        variable.assign(_taken_over(array))
    else:
        variable.assign(source.to_variable_layout(array).reshape(variable.shape))
    return _is_finite(array)


def _can_be_taken_over(variable: Variable, tensor: StoredTensor, source: SourceTensor) -> bool:
    """Says whether a tensor is large, and what the variable wants as it is read: of its dtype and its layout."""
    is_of_tensorflow = type(variable.value).__module__.partition(".")[0] == "tensorflow"
    is_read_as_it_is = isinstance(tensor.load, FileRegion) and source.axes is None
    is_same = tensor.dtype == str(variable.dtype) and tensor.shape == tuple(variable.shape)
    return _size(tensor) > _LARGE and is_of_tensorflow and is_read_as_it_is and is_same


def _taken_over(array: Array) -> Any:
    """Returns an array as a tensor in the same memory; TensorFlow would copy it, and have a large table twice.

    Assigning it in parts would spare that, too, but from then on TensorFlow copies the whole at every reading.
    """
    import tensorflow as tf

    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())


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
