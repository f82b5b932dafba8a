"""Moves weights between `model.safetensors` and a model's variables: strictly, all or nothing.

Nothing here knows a model: it maps *name -> array* onto *path -> variable*.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from tf_clip.checkpoints.errors import CheckpointError
from tf_clip.checkpoints.huggingface import is_ignored, source_tensor

WEIGHTS_FILE = "model.safetensors"
STORED_DTYPES = ("float32", "float16")


class Variable(Protocol):
    """What is asked of a variable: a shape, a value to read and a value to set."""

    shape: tuple[int, ...]

    def assign(self, value: Any) -> Any:
        """Sets the value."""

    def numpy(self) -> np.ndarray:
        """Returns the value."""


def load_weights(variables: Mapping[str, Variable], folder: str | Path, *, partial: bool = False) -> None:
    """Fills every variable from a folder's `model.safetensors`, or changes nothing.

    Args:
        variables: from path to variable.
        folder: a folder in Hugging Face layout.
        partial: accept tensors that no variable wants, as one tower of a full checkpoint leaves over.

    Raises:
        FileNotFoundError: the folder has no `model.safetensors`.
        CheckpointError: a tensor is missing, left over or of another shape, or the file is broken;
            all failures are listed.
    """
    path = Path(folder) / WEIGHTS_FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"`folder` must hold {WEIGHTS_FILE}. Received: folder={str(folder)!r}. "
            "Save the checkpoint with safe_serialization=True and in one file."
        )
    try:
        with safe_open(str(path), framework="np") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
            sources = {name: source_tensor(name) for name in variables}
            failures = _misfits(variables, sources, shapes, partial)
            if failures:
                raise CheckpointError(f"{path} does not fit the model; nothing was loaded.\n  " + "\n  ".join(failures))
            for name, variable in variables.items():
                source = sources[name]
                variable.assign(source.to_variable_layout(file.get_tensor(source.name)).reshape(variable.shape))
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a whole safetensors file: {error}. Download it again.") from error


def _misfits(
    variables: Mapping[str, Variable],
    sources: Mapping[str, Any],
    shapes: Mapping[str, tuple[int, ...]],
    partial: bool,
) -> list[str]:
    failures = []
    for name, variable in variables.items():
        source = sources[name]
        if source.name not in shapes:
            failures.append(f"missing: {source.name} (for {name})")
            continue
        wanted = source.to_file_layout(np.empty(tuple(variable.shape), dtype=np.bool_)).shape
        found = shapes[source.name]
        # TensorFlow-era files store the one number of logit_scale with shape (1,).
        if found != wanted and not (wanted == () and found == (1,)):
            failures.append(f"shape: {source.name} is {list(found)}, the model needs {list(wanted)}")
    if not partial:
        used = {source.name for source in sources.values()}
        failures += [f"left over: {name}" for name in sorted(set(shapes) - used) if not is_ignored(name)]
    return failures


def save_weights(variables: Mapping[str, Variable], folder: str | Path, dtype: str = "float32") -> None:
    """Writes every variable into a folder's `model.safetensors`, in Hugging Face's names and layout.

    Args:
        variables: from path to variable.
        folder: an existing folder.
        dtype: `"float32"` or `"float16"`.

    Raises:
        ValueError: `dtype` is neither.
    """
    if dtype not in STORED_DTYPES:
        raise ValueError(
            f"`dtype` must be one of {STORED_DTYPES}. Received: dtype={dtype!r}. Choose float32 if unsure."
        )
    tensors = {}
    for name, variable in variables.items():
        source = source_tensor(name)
        # Not ascontiguousarray, which would give the temperature a dimension.
        tensors[source.name] = np.array(source.to_file_layout(variable.numpy()), dtype=dtype, order="C")
    # transformers refuses a file that does not say which framework its layout follows.
    save_file(tensors, str(Path(folder) / WEIGHTS_FILE), metadata={"format": "pt"})
