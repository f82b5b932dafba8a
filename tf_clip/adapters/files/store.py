"""Saves and loads adapters, fusions and setups in folders that AdapterHub's library reads, too."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors.numpy import save_file

from tf_clip.adapters.composition import Block, as_setup, fusions_in
from tf_clip.adapters.config import AnyConfig, ConfigUnion
from tf_clip.adapters.files import hub_layout, peft_layout
from tf_clip.adapters.methods.base import Array
from tf_clip.adapters.named_configs import as_fusion
from tf_clip.checkpoints.errors import CheckpointError
from tf_clip.checkpoints.readers.safetensors import read_safetensors_file
from tf_clip.checkpoints.readers.stored import StoredTensors
from tf_clip.checkpoints.readers.torch import read_torch_file

if TYPE_CHECKING:
    from tf_clip.adapters.model import AdaptableModel

CONFIG = "adapter_config.json"
WEIGHTS = "adapter.safetensors"
SETUP = "adapter_setup.json"
FUSION_CONFIG = "adapter_fusion_config.json"
FUSION_WEIGHTS = "model_adapter_fusion.safetensors"
# Beside each file the older one, which PyTorch wrote.
_OLDER = {WEIGHTS: "pytorch_adapter.bin", FUSION_WEIGHTS: "pytorch_model_adapter_fusion.bin"}
# AdapterHub wants a version of its own library; this is the layout's.
VERSION = "adapters.1.3.0"
LAYOUTS = ("adapterhub", "peft")
_SHOWN = 8


def save_adapter(model: AdaptableModel, folder: str | Path, name: str, layout: str) -> None:
    """Writes an adapter's configuration and weights.

    Raises:
        ValueError: the layout is unknown, or has no room for this adapter.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"`layout` must be one of {', '.join(LAYOUTS)}. Received: layout={layout!r}.")
    config = model.adapter_state.configs[name]
    folder = Path(folder)
    if layout == "peft":
        content, tensors = peft_layout.to_file(model, name, config)
        _write(folder, CONFIG, content, peft_layout.WEIGHTS, tensors)
        return
    layers = {location.layer for location in model.adapter_locations()} - {None}
    content = {
        **_described(model, name),
        "config": hub_layout.config_to_file(config, len(layers)),
        hub_layout.OWN_FIELDS: config.to_dict(),
    }
    _write(folder, CONFIG, content, WEIGHTS, hub_layout.to_tensors(model, name, name))


def load_adapter(
    model: AdaptableModel,
    folder: str | Path,
    load_as: str | None,
    leave_out: Collection[int],
    overwrite_ok: bool,
) -> str:
    """Adds the adapter that a folder holds; it fits exactly, or nothing is added.

    Returns:
        Its name.

    Raises:
        FileNotFoundError: the folder has no adapter.
        ValueError: the configuration has a value that cannot be honored.
        CheckpointError: weights are missing, left over or misshapen.
    """
    folder = Path(folder)
    content = _read_json(folder / CONFIG)
    config: AnyConfig
    if peft_layout.is_one(content):
        stored = _stored(folder, peft_layout.WEIGHTS, peft_layout.OLDER_WEIGHTS)
        locations = list(model.adapter_locations())
        config, arrays, file_name = peft_layout.from_file(content, _arrays(stored), locations, folder)
    else:
        config, file_name = hub_layout.config_from_file(content), str(content.get("name") or folder.name)
        arrays = _arrays(_stored(folder, WEIGHTS, _OLDER[WEIGHTS]), hub_layout.is_alias)
    name = load_as or file_name
    config = _left_out(config, leave_out)
    locations = list(model.adapter_locations())
    kept = {key: value for key, value in arrays.items() if hub_layout.layer_of(key, locations) not in leave_out}
    if overwrite_ok and name in model.adapter_state.configs:
        # Tried under another name first: what is to be replaced stays if this does not fit.
        trial = next(f"{name}_{n}" for n in itertools.count() if f"{name}_{n}" not in model.adapter_state.configs)
        _put(model, trial, config, file_name, kept, str(folder))
        model.delete_adapter(trial)
        model.delete_adapter(name)
    _put(model, name, config, file_name, kept, str(folder))
    return name


def _put(
    model: AdaptableModel, name: str, config: AnyConfig, file_name: str, arrays: Mapping[str, Array], source: str
) -> None:
    """Adds an adapter with given weights, or nothing."""
    model.add_adapter(name, config)
    try:
        require_equal(hub_layout.to_tensors(model, name, file_name), arrays, source)
        hub_layout.fill(model, name, file_name, arrays)
    except BaseException:
        model.delete_adapter(name)
        raise


def save_fusion(model: AdaptableModel, folder: str | Path, name: str) -> None:
    """Writes a fusion's configuration and weights."""
    config, names = model.adapter_state.fusions[name]
    content = {**_described(model, name), "adapter_names": list(names), "config": config.to_dict()}
    _write(Path(folder), FUSION_CONFIG, content, FUSION_WEIGHTS, _fusion_tensors(model, name))


def load_fusion(model: AdaptableModel, folder: str | Path, overwrite_ok: bool) -> str:
    """Adds the fusion that a folder holds; the adapters must be there.

    Returns:
        Its name.

    Raises:
        FileNotFoundError: the folder has no fusion.
        CheckpointError: weights are missing, left over or misshapen.
    """
    folder = Path(folder)
    content = _read_json(folder / FUSION_CONFIG)
    name = str(content.get("name") or ",".join(content["adapter_names"]))
    arrays = _arrays(_stored(folder, FUSION_WEIGHTS, _OLDER[FUSION_WEIGHTS]))
    model.add_adapter_fusion(content["adapter_names"], as_fusion(content["config"]), name, overwrite_ok)
    try:
        require_equal(_fusion_tensors(model, name), arrays, str(folder))
    except CheckpointError:
        model.delete_adapter_fusion(name)
        raise
    for location in model.adapter_locations():
        if name in location.place.fusions:
            prefix = hub_layout.fusion_prefix(location, name)
            fusion = location.place.fusions[name]
            fusion.from_file({key: arrays[prefix + key] for key in fusion.to_file()})
    return name


def _fusion_tensors(model: AdaptableModel, name: str) -> dict[str, Array]:
    return {
        hub_layout.fusion_prefix(location, name) + key: value
        for location in model.adapter_locations()
        if name in location.place.fusions
        for key, value in location.place.fusions[name].to_file().items()
    }


def save_setup(model: AdaptableModel, folder: str | Path, setup: str | Block) -> None:
    """Writes a composition, and all adapters and fusions in it, each in a folder of its own."""
    block, folder = as_setup(setup), Path(folder)
    if block is None:
        raise ValueError("`setup` must name adapters. Received: None. Make one active, or pass one.")
    model.require_names(block.names())
    for name in block.names():
        save_adapter(model, folder / name, name, "adapterhub")
    for fusion in fusions_in(block):
        save_fusion(model, folder / fusion, fusion)
    content = {"adapter_setup": block.to_dict(), "head_setup": None, "version": VERSION}
    (folder / SETUP).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def load_setup(model: AdaptableModel, folder: str | Path, overwrite_ok: bool) -> Block:
    """Adds the adapters and fusions of a composition that a folder holds.

    Returns:
        The composition.
    """
    folder = Path(folder)
    block = Block.from_dict(_read_json(folder / SETUP)["adapter_setup"])
    for name in block.names():
        load_adapter(model, folder / name, name, (), overwrite_ok)
    for fusion in fusions_in(block):
        load_fusion(model, folder / fusion, overwrite_ok)
    return block


def require_equal(wanted: Mapping[str, Array], found: Mapping[str, Array], source: str) -> None:
    """Compares names and shapes.

    Raises:
        CheckpointError: some differ; the first few are named.
    """
    problems = [f"missing {key}" for key in wanted if key not in found]
    problems += [f"left over {key}" for key in found if key not in wanted]
    problems += [
        f"{key} of shape {found[key].shape}, not {value.shape}"
        for key, value in wanted.items()
        if key in found and found[key].shape != value.shape
    ]
    if not problems:
        return
    rest = f" and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    hint = "Check that it was saved from a model of this size."
    if all(problem.startswith("missing shared_parameters.") for problem in problems):
        hint = "AdapterHub's library does not save what layers share; this adapter cannot be restored by anything."
    raise CheckpointError(f"{source} does not fit: {'; '.join(problems[:_SHOWN])}{rest}. {hint}")


def _left_out(config: AnyConfig, leave_out: Collection[int]) -> AnyConfig:
    if not leave_out:
        return config
    parts = tuple(
        dataclasses.replace(part, leave_out=tuple(sorted({*part.leave_out, *leave_out}))) for part in config.parts()
    )
    return ConfigUnion(parts) if isinstance(config, ConfigUnion) else parts[0]


def _described(model: AdaptableModel, name: str) -> dict[str, Any]:
    config: Any = model.config  # type: ignore[attr-defined]
    return {
        "hidden_size": getattr(config, "hidden_size", None),
        "model_class": type(model).__name__,
        "model_name": "",
        "model_type": config.model_type,
        "name": name,
        "version": VERSION,
    }


def _write(folder: Path, config_file: str, content: Mapping[str, Any], file: str, tensors: Mapping[str, Array]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / config_file).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    arrays = {name: np.array(value, "float32", order="C") for name, value in tensors.items()}
    save_file(arrays, str(folder / file), metadata={"format": "pt"})


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(
            f"`folder` must hold {path.name}. Received: folder={str(path.parent)!r}, without it. Check its spelling."
        )
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} must hold a JSON object. It holds a {type(content).__name__}. Save it again.")
    return content


def _stored(folder: Path, file: str, older: str) -> StoredTensors:
    if (folder / file).is_file():
        tensors: StoredTensors = read_safetensors_file(folder / file)[0]
        return tensors
    if (folder / older).is_file():
        return read_torch_file(folder / older)
    raise FileNotFoundError(
        f"`folder` must hold {file} or {older}. Received: folder={str(folder)!r}, which has neither. Save it again."
    )


def _arrays(stored: StoredTensors, is_left_out: Any = lambda key: False) -> dict[str, Array]:
    return {key: np.asarray(value.load(), "float32") for key, value in stored.items() if not is_left_out(key)}
