"""Reads `.safetensors` files, one tensor at a time."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open

from tf_clip.checkpoints.errors import CheckpointError
from tf_clip.checkpoints.stored import Array, StoredTensor

_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}


def read_safetensors_file(path: str | Path) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """Lists the tensors of a file, and its metadata.

    Raises:
        CheckpointError: the file is cut short or no safetensors file, or a tensor has a dtype that is not supported.
    """
    try:
        with safe_open(str(path), framework="np") as file:
            metadata = dict(file.metadata() or {})
            tensors = {}
            for name in file.keys():
                part = file.get_slice(name)
                if part.get_dtype() not in _DTYPES:
                    raise CheckpointError(
                        f"{path} must hold numbers of a common dtype. Received: {name} as {part.get_dtype()}. "
                        "Convert it to float16 or float32 with the tool that wrote it."
                    )
                tensors[name] = StoredTensor(
                    tuple(part.get_shape()), _DTYPES[part.get_dtype()], _Loader(str(path), name)
                )
    except SafetensorError as error:
        raise _broken(path, error) from error
    return tensors, metadata


class _Loader:
    """Reads one tensor; the file is mapped for that long only, or its pages would count as memory in use.

    Args:
        path: the file.
        name: the tensor.
    """

    def __init__(self, path: str, name: str) -> None:
        self._path, self._name = path, name

    def __call__(self) -> Array:
        try:
            with safe_open(self._path, framework="np") as file:
                array: Array = file.get_tensor(self._name)
        except SafetensorError as error:
            raise _broken(self._path, error) from error
        return array


def _broken(path: str | Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"{path} is not a whole safetensors file: {error}. Download it again.")
