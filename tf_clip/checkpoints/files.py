"""What the files of a checkpoint are called, in each layout, which of them are needed, and how JSON is read."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from tf_clip.checkpoints.errors import CheckpointError

CONFIG = "config.json"
OPENCLIP_CONFIG = "open_clip_config.json"
# The files that weights may be in, the best first; each may also be cut up, with an index beside it.
HUGGING_FACE_WEIGHTS = ("model.safetensors", "pytorch_model.bin", "tf_model.h5", "flax_model.msgpack")
OPENCLIP_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin", "open_clip_pytorch_model.pt")
KERAS_HUB_WEIGHTS = ("model.weights.h5",)
KERAS_HUB_INDEX = "model.weights.json"
_BESIDE_WEIGHTS = (
    CONFIG,
    OPENCLIP_CONFIG,
    "vocab.json",
    "merges.txt",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "preprocessor_config.json",
    "processor_config.json",
    # KerasHub's
    "metadata.json",
    "preprocessor.json",
    "image_converter.json",
    "assets/tokenizer/vocabulary.json",
    "assets/tokenizer/merges.txt",
)
_GIT_LFS_START = b"version https://git-lfs"


def index_of(weights: str) -> str:
    """Returns the name of the index of a file of weights that is cut up."""
    return KERAS_HUB_INDEX if weights in KERAS_HUB_WEIGHTS else f"{weights}.index.json"


def best_weights(present: Collection[str], config: Mapping[str, Any]) -> str | None:
    """Chooses the weights to read among the files of a folder or a repository.

    Args:
        present: the files' names.
        config: its parsed `config.json`, empty when there is none. Beside OpenCLIP's files may lie timm's, whose
            config.json has no `model_type` and whose model.safetensors is the image tower alone.

    Returns:
        One of the names above, whole or cut up. None when there are none.
    """
    is_openclip = OPENCLIP_CONFIG in present and "model_type" not in config
    names = [*HUGGING_FACE_WEIGHTS, *OPENCLIP_WEIGHTS, *KERAS_HUB_WEIGHTS]
    if is_openclip:
        names = [*OPENCLIP_WEIGHTS, *names]
    return next((name for name in names if name in present or index_of(name) in present), None)


def needed(present: Collection[str], config: Mapping[str, Any]) -> list[str]:
    """Lists what has to be downloaded of a repository: never code, and weights in one format only.

    Args:
        present: the files' names.
        config: its parsed `config.json`, see `best_weights`.
    """
    files = [name for name in _BESIDE_WEIGHTS if name in present]
    weights = best_weights(present, config)
    if weights is None:
        return files
    if weights in present:
        return [*files, weights]
    if weights in KERAS_HUB_WEIGHTS:
        start, end = "model_", ".weights.h5"
    else:
        stem, _, suffix = weights.rpartition(".")
        start, end = f"{stem}-", f".{suffix}"
    parts = [name for name in present if name.startswith(start) and name.endswith(end)]
    return [*files, index_of(weights), *sorted(parts)]


def parts_of(index: Path) -> list[str]:
    """Returns the files that an index names: one for each tensor, or a list for each of a Keras model's layers.

    Args:
        index: the index.

    Raises:
        CheckpointError: it names none, or one that does not lie beside it.
        FileNotFoundError: one is missing.
    """
    weight_map = read_json(index).get("weight_map")
    named = list(weight_map.values()) if isinstance(weight_map, dict) else []
    names = {name for value in named for name in (value if isinstance(value, list) else [value]) if name}
    if not names or not all(isinstance(name, str) for name in names):
        raise CheckpointError(
            f"{index} must have a `weight_map` from tensors to files. Received none. Download it again."
        )
    require_beside(names, index)
    return sorted(names)


def refuse_git_lfs_pointer(path: Path) -> None:
    """Refuses the few lines that Git leaves in place of a large file that it did not download.

    Raises:
        CheckpointError: the file is such a pointer.
    """
    with path.open("rb") as file:
        is_pointer = file.read(len(_GIT_LFS_START)) == _GIT_LFS_START
    if is_pointer:
        raise CheckpointError(
            f"{path} is a Git LFS pointer, not the file itself. Run `git lfs pull` in its repository, or download the "
            "file."
        )


def require_beside(names: Collection[str], index: Path) -> None:
    """Checks that an index names files that lie beside it.

    Args:
        names: the files' names, as the index has them.
        index: the index.

    Raises:
        CheckpointError: a name leads elsewhere.
        FileNotFoundError: a file is missing.
    """
    for name in sorted(names):
        if PurePosixPath(name).name != name or "\\" in name:
            raise CheckpointError(
                f"{index} must name files beside it. Received: {name!r}. Do not trust this checkpoint."
            )
        if not (index.parent / name).is_file():
            raise FileNotFoundError(f"{index} names {name}, which is missing. Download all parts.")


def read_json(path: Path) -> dict[str, Any]:
    """Reads a file that holds one JSON object.

    Raises:
        CheckpointError: it holds something else.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CheckpointError(f"{path} must be valid JSON. Received: {error}. Download the file again.") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} must hold a JSON object. Received: {type(values).__name__}. Download it again.")
    return values
