"""Writes a model's variables as Hugging Face's files; and what every writer of checkpoints needs."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from tf_clip.checkpoints import files
from tf_clip.checkpoints.assign import Variable
from tf_clip.checkpoints.readers.stored import Array, numpy_dtype
from tf_clip.families.tensor_names import SourceTensor
from tf_clip.files import replacing_files

WEIGHTS_FILE = files.HUGGING_FACE_WEIGHTS[0]
STORED_DTYPES = ("float32", "float16", "bfloat16")
MAX_SHARD_SIZE = "5GB"


def save_hugging_face(
    variables: Mapping[str, Variable],
    sources: Mapping[str, SourceTensor],
    config: Mapping[str, Any],
    folder: str | Path,
    dtype: str = "float32",
    max_shard_size: int | str = MAX_SHARD_SIZE,
) -> None:
    """Writes `config.json` and `model.safetensors`, cut into shards with an index where it is too large.

    Args:
        variables: from path to variable.
        sources: from path to the variable's tensor.
        config: the parsed `config.json`.
        folder: where to; made when missing. Weights of an earlier checkpoint there are removed.
        dtype: one of `STORED_DTYPES`.
        max_shard_size: the largest file, in bytes or as `"5GB"`.

    Raises:
        ValueError: `dtype` or `max_shard_size` is not of these kinds.
    """
    item = stored_dtype(dtype).itemsize
    paths = {sources[path].name: path for path in variables}
    sizes = {name: int(np.prod(variables[path].shape)) * item for name, path in paths.items()}
    shards = _shards(sizes, max_shard_size)
    with replacing_files(folder) as new:
        write_json(new / files.CONFIG, config)
        for file, names in shards.items():
            part = {paths[name]: variables[paths[name]] for name in names}
            write_tensors(new / file, arrays_of(part, sources, dtype))
        if len(shards) > 1:
            weight_map = {name: file for file, names in shards.items() for name in names}
            index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": weight_map}
            write_json(new / files.index_of(WEIGHTS_FILE), index)
        written = {path.name for path in new.iterdir()}
    _remove_old_weights(Path(folder), written)


def arrays_of(
    variables: Mapping[str, Variable], sources: Mapping[str, SourceTensor], dtype: str = "float32"
) -> dict[str, Array]:
    """Returns the values of variables by their tensors' names, as files hold them.

    Args:
        variables: from path to variable.
        sources: from path to the variable's tensor.
        dtype: one of `STORED_DTYPES`.
    """
    stored = stored_dtype(dtype)
    return {
        # Not ascontiguousarray, which would give the temperature a dimension.
        sources[path].name: np.array(sources[path].to_file_layout(variable.numpy()), dtype=stored, order="C")
        for path, variable in variables.items()
    }


def write_tensors(path: Path, tensors: Mapping[str, Array]) -> None:
    """Writes a safetensors file."""
    # transformers refuses a file that does not say which framework its layout follows.
    save_file(dict(tensors), str(path), metadata={"format": "pt"})


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Writes a JSON file."""
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def stored_dtype(dtype: str) -> np.dtype[Any]:
    """Returns the dtype that weights are stored in.

    Raises:
        ValueError: it is none of `STORED_DTYPES`.
    """
    if dtype not in STORED_DTYPES:
        raise ValueError(
            f"`dtype` must be one of {STORED_DTYPES}. Received: dtype={dtype!r}. Choose float32 if unsure."
        )
    return numpy_dtype(dtype)


def _shards(sizes: Mapping[str, int], limit: int | str) -> dict[str, list[str]]:
    """Puts names into files, each at most as large as the limit unless one tensor alone is larger."""
    from huggingface_hub import split_state_dict_into_shards_factory

    try:
        if not isinstance(limit, str) and not (type(limit) is int and limit > 0):
            raise ValueError("not a number of bytes")
        split = split_state_dict_into_shards_factory(
            dict(sizes),
            get_storage_size=lambda size: size,
            filename_pattern="model{suffix}.safetensors",
            max_shard_size=limit,
        )
    except ValueError as error:
        raise ValueError(
            f"`max_shard_size` must be a number of bytes or a string such as '5GB'. Received: "
            f"max_shard_size={limit!r} ({error}). Use the default if unsure."
        ) from error
    return split.filename_to_tensors


def _remove_old_weights(folder: Path, written: Collection[str]) -> None:
    """Removes shards and index of an earlier save, which would win over or contradict the new file."""
    for pattern in ("model-*-of-*.safetensors", files.index_of(WEIGHTS_FILE), WEIGHTS_FILE):
        for path in folder.glob(pattern):
            if path.name not in written:
                path.unlink()
