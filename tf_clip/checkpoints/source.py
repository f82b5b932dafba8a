"""Opens a checkpoint of any format and shows it in one: Hugging Face's configuration, names and layout."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tf_clip.checkpoints import channels_last, files
from tf_clip.checkpoints.errors import CheckpointError
from tf_clip.checkpoints.readers.hdf5 import read_hdf5_file
from tf_clip.checkpoints.readers.msgpack import read_msgpack_file
from tf_clip.checkpoints.readers.safetensors import read_safetensors_file
from tf_clip.checkpoints.readers.stored import StoredTensor
from tf_clip.checkpoints.readers.torch import read_torch_file
from tf_clip.families.clip import keras_hub, openai, openclip
from tf_clip.families.clip.tensor_names import with_prefixes, without_ignored

_TORCH_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt")


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint holds, whatever its format.

    Args:
        path: the file of weights, or its index.
        layout: the format, in words.
        config: Hugging Face's `config.json`, parsed.
        tensors: by Hugging Face's names and in its layout, still in their files.
        notes: what is odd about the files, for people.
    """

    path: Path
    layout: str
    config: Mapping[str, Any]
    tensors: Mapping[str, StoredTensor]
    notes: tuple[str, ...] = ()


def read_checkpoint(path: str | Path, config: Mapping[str, Any] | None = None) -> Checkpoint:
    """Opens a folder or a file; no tensor is read yet.

    Args:
        path: a folder in Hugging Face's, OpenCLIP's or KerasHub's layout, or one file of weights.
        config: the configuration; None reads the checkpoint's own.

    Raises:
        FileNotFoundError: the configuration, or the weights, or one of their parts is missing.
        ValueError: the configuration describes something that is not CLIP.
        CheckpointError: a file is broken, not allowed, or holds something that is not CLIP.
    """
    path = Path(path)
    if path.is_file():
        return _read_single_file(path, config)
    described = files.read_json(path / files.CONFIG) if (path / files.CONFIG).is_file() else {}
    if keras_hub.is_preset(described):
        own, tensors = keras_hub.read_preset(path)
        return Checkpoint(path / files.KERAS_HUB_WEIGHTS[0], "KerasHub preset", config or own, tensors)
    weights = files.best_weights({file.name for file in path.iterdir()}, described)
    if (path / files.OPENCLIP_CONFIG).is_file() and weights not in files.HUGGING_FACE_WEIGHTS:
        return _read_openclip(path, config)
    if not described and config is None:
        raise FileNotFoundError(
            f"`folder` must hold a config.json. Received: folder={str(path)!r}. Pass the folder of a checkpoint, a "
            "file of weights, or config=CLIPConfig(...) for a folder without one."
        )
    if weights is None:
        raise FileNotFoundError(
            f"`folder` must hold one of {', '.join(files.HUGGING_FACE_WEIGHTS)} or its index. "
            f"Received: folder={str(path)!r}. Download the weights, too."
        )
    tensors, layout = _read_weights(path, weights)
    return _finished(_file_of(path, weights), layout, config or described, tensors)


def _read_single_file(path: Path, config: Mapping[str, Any] | None) -> Checkpoint:
    beside = path.parent
    if config is None and (beside / files.OPENCLIP_CONFIG).is_file():
        return _read_openclip(beside, None, path)
    if config is None and (beside / files.CONFIG).is_file():
        config = files.read_json(beside / files.CONFIG)
        if keras_hub.is_preset(config) and path.name in files.KERAS_HUB_WEIGHTS:
            return read_checkpoint(beside)
    tensors, layout = _read_file(path)
    return _finished(path, layout, config, tensors)


def _read_openclip(folder: Path, config: Mapping[str, Any] | None, weights: Path | None = None) -> Checkpoint:
    described = files.read_json(folder / files.OPENCLIP_CONFIG)
    source = str(folder / files.OPENCLIP_CONFIG)
    # First the description: for another architecture its error says more than the tensors' would.
    _openclip_config(described, source)
    if weights is None:
        name = files.best_weights({file.name for file in folder.iterdir()}, {})
        if name is None:
            raise FileNotFoundError(
                f"`folder` must hold one of {', '.join(files.OPENCLIP_WEIGHTS)}. "
                f"Received: folder={str(folder)!r}. Download the weights, too."
            )
        tensors, layout = _read_weights(folder, name)
        weights = _file_of(folder, name)
    else:
        tensors, layout = _read_file(weights)
    own = _openclip_config(described, source, has_logit_bias="logit_bias" in tensors)
    return _finished(weights, f"OpenCLIP, {layout}", config or own, tensors)


def _openclip_config(described: Mapping[str, Any], source: str, *, has_logit_bias: bool = False) -> dict[str, Any]:
    try:
        return openclip.to_config(described, source, has_logit_bias=has_logit_bias)
    except (TypeError, AttributeError, ZeroDivisionError) as error:  # a field of another kind than OpenCLIP's
        raise CheckpointError(f"{source} must describe a CLIP model. Received: {error}. Download it again.") from error


def _finished(
    path: Path, layout: str, config: Mapping[str, Any] | None, tensors: dict[str, StoredTensor]
) -> Checkpoint:
    """Turns tensors under any names into Hugging Face's, and finds the configuration if there is none yet."""
    notes = []
    if openai.is_openai(tensors):
        if config is None:
            config = _openai_config(path, tensors)
            notes.append("the configuration was read from the weights' shapes, with heads of 64")
        tensors = openai.to_hugging_face(tensors, str(path))
    elif layout.startswith(("TensorFlow", "Flax")):
        tensors = channels_last.to_hugging_face(tensors, str(path))
    else:
        _refuse_other_models(path, tensors)
        kept = without_ignored(tensors)
        if len(kept) < len(tensors):
            notes.append("position_ids, which hold 0 to n - 1, are left out")
        tensors = with_prefixes(kept)
    if config is None:
        raise CheckpointError(
            f"{path} must have a {files.CONFIG} beside it, which says what its weights cannot. Received: the file "
            "alone. Put it there, or pass config=CLIPConfig(...)."
        )
    dtypes = sorted({tensor.dtype for tensor in tensors.values()})
    if dtypes != ["float32"]:
        notes.append(f"weights are stored as {', '.join(dtypes)}")
    return Checkpoint(path, layout, config, tensors, tuple(notes))


def _openai_config(path: Path, tensors: Mapping[str, StoredTensor]) -> dict[str, Any]:
    # Only OpenAI's own archives carry these; theirs were trained with quick_gelu, others' mostly not.
    if "input_resolution" not in tensors and "context_length" not in tensors:
        raise CheckpointError(
            f"{path} must have an {files.OPENCLIP_CONFIG} beside it: its weights do not tell the activation they "
            "were trained with. Received: the file alone. Put it there, or pass config=CLIPConfig(...)."
        )
    try:
        return openai.config_from_shapes(tensors, "quick_gelu")
    except (LookupError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"{path} must hold all of OpenAI's tensors, in their shapes. Received: {type(error).__name__}: {error}. "
            "Download it again."
        ) from error


# Tensors that only other models have, and what these are.
_WITH_BERT = "Chinese-CLIP, or another model whose text tower is a BERT"
_TELLTALES = {
    "vision_model.head.probe": "SigLIP",
    "text_model.head.weight": "SigLIP",
    "text_model.encoder.layer.0.attention.self.query.weight": _WITH_BERT,
    "text_model.embeddings.word_embeddings.weight": _WITH_BERT,
    "qformer.layernorm.weight": "BLIP-2",
}


def _refuse_other_models(path: Path, tensors: Mapping[str, StoredTensor]) -> None:
    for name, model in _TELLTALES.items():
        if name in tensors:
            raise CheckpointError(
                f"{path} must hold a CLIP model. Received: {model}, by its tensor {name}. tf_clip does not have it."
            )


def _file_of(folder: Path, name: str) -> Path:
    return folder / name if (folder / name).is_file() else folder / files.index_of(name)


def _read_weights(folder: Path, name: str) -> tuple[dict[str, StoredTensor], str]:
    """Reads one file of weights, or all that its index names."""
    if (folder / name).is_file():
        return _read_file(folder / name)
    index = folder / files.index_of(name)
    weight_map = files.read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(
            f"{index} must have a `weight_map` from tensors to files. Received none. Download it again."
        )
    tensors: dict[str, StoredTensor] = {}
    layout = ""
    parts = sorted(set(map(str, weight_map.values())))
    files.require_beside(parts, index)
    for file in parts:
        part, layout = _read_file(folder / file)
        tensors.update(part)
    return tensors, f"{layout} in {len(parts)} parts"


def _read_file(path: Path) -> tuple[dict[str, StoredTensor], str]:
    """Reads one file; its name says which kind it is."""
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        tensors, metadata = read_safetensors_file(path)
        return tensors, "TensorFlow safetensors" if metadata.get("format") == "tf" else "safetensors"
    if suffix in _TORCH_SUFFIXES:
        return read_torch_file(path), "PyTorch"
    if suffix == ".h5":
        return read_hdf5_file(path), "TensorFlow HDF5"
    if suffix == ".msgpack":
        return read_msgpack_file(path), "Flax msgpack"
    raise CheckpointError(
        f"{path} must be a .safetensors, .bin, .pt, .pth, .ckpt, .h5 or .msgpack file. Received: {path.name}. "
        "Pass a file of weights, or the folder that it lies in."
    )
