"""Reads `.safetensors` files, one tensor at a time."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open

from tf_clip.checkpoints.errors import CheckpointError
from tf_clip.checkpoints.files import refuse_git_lfs_pointer
from tf_clip.checkpoints.readers.stored import FileRegion, StoredTensor, is_array_shape

_LENGTH_BYTES = 8  # of the header, at the start of the file
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
    path = Path(path)
    refuse_git_lfs_pointer(path)
    try:
        # The library checks that every tensor lies inside the file and none over another.
        with safe_open(str(path), framework="np") as file:
            metadata = dict(file.metadata() or {})
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a whole safetensors file: {error}. Download it again.") from error
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(_LENGTH_BYTES), "little")
        header = json.loads(stream.read(length))
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        if entry["dtype"] not in _DTYPES:
            raise CheckpointError(
                f"{path} must hold numbers of a common dtype. Received: {name} as {entry['dtype']}. "
                "Convert it to float16 or float32 with the tool that wrote it."
            )
        shape, dtype = tuple(entry["shape"]), _DTYPES[entry["dtype"]]
        if not is_array_shape(shape):
            raise CheckpointError(
                f"{path} must hold arrays. Received: {name} of shape {list(shape)}. Do not trust this file."
            )
        start = _LENGTH_BYTES + length + entry["data_offsets"][0]
        tensors[name] = StoredTensor(shape, dtype, FileRegion(path, start, shape, dtype))
    return tensors, metadata
