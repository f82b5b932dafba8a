"""Writes a model's variables as a checkpoint: Hugging Face's files, or OpenCLIP's."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from tf_clip.checkpoints import files
from tf_clip.checkpoints.assign import Variable
from tf_clip.checkpoints.readers.stored import Array, numpy_dtype
from tf_clip.families.clip import openai, openclip
from tf_clip.families.clip.tensor_names import source_tensor

WEIGHTS_FILE = files.HUGGING_FACE_WEIGHTS[0]
STORED_DTYPES = ("float32", "float16", "bfloat16")
MAX_SHARD_SIZE = "5GB"
_UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


def save_hugging_face(
    variables: Mapping[str, Variable],
    config: Mapping[str, Any],
    folder: str | Path,
    dtype: str = "float32",
    max_shard_size: int | str = MAX_SHARD_SIZE,
) -> None:
    """Writes `config.json` and `model.safetensors`, cut into shards with an index where it is too large.

    Args:
        variables: from path to variable.
        config: the parsed `config.json`.
        folder: where to; made when missing. Weights of an earlier checkpoint there are removed.
        dtype: one of `STORED_DTYPES`.
        max_shard_size: the largest file, in bytes or as `"5GB"`.

    Raises:
        ValueError: `dtype` or `max_shard_size` is not of these kinds.
    """
    limit = _bytes(max_shard_size)
    stored = _stored_dtype(dtype)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _remove_old_weights(folder)
    _write_json(folder / files.CONFIG, config)
    sources = {source_tensor(path).name: path for path in variables}
    sizes = {name: int(np.prod(variables[path].shape)) * stored.itemsize for name, path in sources.items()}
    shards = _shards(sizes, limit)
    weight_map = {}
    for number, names in enumerate(shards, start=1):
        one = len(shards) == 1
        file = WEIGHTS_FILE if one else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        tensors = {}
        for name in names:
            array = source_tensor(sources[name]).to_file_layout(variables[sources[name]].numpy())
            # Not ascontiguousarray, which would give the temperature a dimension.
            tensors[name] = np.array(array, dtype=stored, order="C")
        # transformers refuses a file that does not say which framework its layout follows.
        save_file(tensors, str(folder / file), metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(names, file))
    if len(shards) > 1:
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": weight_map}
        _write_json(folder / files.index_of(WEIGHTS_FILE), index)


def save_openclip(
    variables: Mapping[str, Variable],
    config: Mapping[str, Any],
    preprocessing: Mapping[str, Any] | None,
    folder: str | Path,
    dtype: str = "float32",
) -> None:
    """Writes `open_clip_config.json` and `open_clip_model.safetensors`, which OpenCLIP loads.

    Args:
        variables: from path to variable, of a whole CLIP model.
        config: the parsed `config.json`.
        preprocessing: OpenCLIP's `preprocess_cfg`; None writes OpenAI's mean and standard deviation.
        folder: where to; made when missing.
        dtype: one of `STORED_DTYPES`.

    Raises:
        ValueError: the configuration has a value that OpenCLIP has no field for.
    """
    stored = _stored_dtype(dtype)
    folder = Path(folder)
    described = openclip.from_config(config, preprocessing)
    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, Array] = {}
    for path, variable in variables.items():
        source = source_tensor(path)
        arrays[source.name] = np.array(source.to_file_layout(variable.numpy()), dtype=stored, order="C")
    save_file(openai.from_hugging_face(arrays), str(folder / files.OPENCLIP_WEIGHTS[0]), metadata={"format": "pt"})
    _write_json(folder / files.OPENCLIP_CONFIG, described)


def _stored_dtype(dtype: str) -> np.dtype[Any]:
    if dtype not in STORED_DTYPES:
        raise ValueError(
            f"`dtype` must be one of {STORED_DTYPES}. Received: dtype={dtype!r}. Choose float32 if unsure."
        )
    return numpy_dtype(dtype)


def _bytes(size: int | str) -> int:
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMG]I?B)", str(size).upper())
    count = int(float(match[1]) * _UNITS[match[2]]) if match else size
    if not isinstance(count, int) or count < 1:
        raise ValueError(
            f"`max_shard_size` must be a number of bytes or a string such as '5GB'. Received: "
            f"max_shard_size={size!r}. Use the default if unsure."
        )
    return count


def _shards(sizes: Mapping[str, int], limit: int) -> list[list[str]]:
    """Puts names into files in order, each at most as large as the limit unless one tensor alone is larger."""
    shards: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if shards[-1] and filled + size > limit:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    return shards


def _remove_old_weights(folder: Path) -> None:
    """Removes shards and index of an earlier save, which would win over or contradict the new file."""
    for pattern in ("model-*-of-*.safetensors", files.index_of(WEIGHTS_FILE), WEIGHTS_FILE):
        for path in folder.glob(pattern):
            path.unlink()


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
