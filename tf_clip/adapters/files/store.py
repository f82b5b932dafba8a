"""Adapters, fusions and setups in folders that AdapterHub's library also reads; LoRA and DoRA also in PEFT's layout."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from tf_clip.adapters.composition import Block
from tf_clip.adapters.config import AnyConfig, FusionConfig
from tf_clip.adapters.files import hub_layout, peft_layout
from tf_clip.adapters.methods.base import Array
from tf_clip.adapters.named_configs import as_fusion
from tf_clip.adapters.sites import Sites
from tf_clip.checkpoints.errors import CheckpointError
from tf_clip.checkpoints.readers.safetensors import read_safetensors_file
from tf_clip.checkpoints.readers.stored import StoredTensors
from tf_clip.checkpoints.readers.torch import read_torch_file

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


@dataclasses.dataclass(frozen=True)
class Stored:
    """An adapter or a fusion in a folder.

    Args:
        folder: where it is.
        name: its name in the folder's files.
        config: its configuration: an `AnyConfig`, or a `FusionConfig`.
        arrays: its weights, under AdapterHub's names.
        fused: names of the adapters, if it is a fusion.
    """

    folder: Path
    name: str
    config: Any
    arrays: Mapping[str, Array]
    fused: tuple[str, ...] = ()

    def fill(self, sites: Sites, name: str) -> None:
        """Gives its weights to the adapter or the fusion of a name, which has the same configuration.

        Raises:
            CheckpointError: weights are missing, left over or misshapen; nothing is changed then.
        """
        modules = (
            hub_layout.fusion_modules(sites, name) if self.fused else hub_layout.adapter_modules(sites, name, self.name)
        )
        require_equal(hub_layout.to_tensors(modules), self.arrays, self.folder)
        hub_layout.fill(modules, self.arrays)


def write_adapter(
    folder: str | Path, sites: Sites, name: str, config: AnyConfig, layout: str, model: Mapping[str, Any]
) -> None:
    """Writes an adapter's configuration and weights.

    Args:
        folder: where to; made when missing.
        sites: with the adapter.
        name: its name.
        config: its configuration.
        layout: `"adapterhub"` or `"peft"`.
        model: what AdapterHub's configuration says of the model.

    Raises:
        ValueError: the layout is unknown, or cannot hold this adapter.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"`layout` must be one of {', '.join(LAYOUTS)}. Received: layout={layout!r}.")
    if layout == "peft":
        content, tensors = peft_layout.to_file(sites, name, config)
        _write(folder, CONFIG, content, peft_layout.WEIGHTS, tensors)
        return
    content = {
        **_described(model, name),
        "config": hub_layout.config_to_file(config, sites.num_layers),
        hub_layout.OWN_FIELDS: config.to_dict(),
    }
    _write(folder, CONFIG, content, WEIGHTS, hub_layout.to_tensors(hub_layout.adapter_modules(sites, name, name)))


def read_adapter(folder: str | Path, sites: Sites, leave_out: Collection[int]) -> Stored:
    """Reads the adapter in a folder.

    Args:
        folder: with `adapter_config.json` and the weights beside it.
        sites: of the model that it is for.
        leave_out: numbers of more layers to leave out.

    Raises:
        FileNotFoundError: the folder has no adapter.
        ValueError: the configuration has a value that cannot be honored.
        CheckpointError: PEFT's weights are of another model, or a file is broken.
    """
    folder = Path(folder)
    content = _read_json(folder / CONFIG)
    config: AnyConfig
    if "peft_type" in content:
        stored = _stored(folder, peft_layout.WEIGHTS, peft_layout.OLDER_WEIGHTS)
        config, arrays, name = peft_layout.from_file(content, _arrays(stored), sites, folder)
    else:
        config, name = hub_layout.config_from_file(content), str(content.get("name") or folder.name)
        stored = _stored(folder, WEIGHTS, _OLDER[WEIGHTS])
        arrays = _arrays({key: value for key, value in stored.items() if not hub_layout.is_alias(key)})
    if leave_out:
        config = config.map(lambda part: part.replace(leave_out=tuple(sorted({*part.leave_out, *leave_out}))))
        arrays = {key: value for key, value in arrays.items() if hub_layout.layer_of(key, sites) not in leave_out}
    return Stored(folder, name, config, arrays)


def write_fusion(
    folder: str | Path, sites: Sites, name: str, config: FusionConfig, names: Collection[str], model: Mapping[str, Any]
) -> None:
    """Writes a fusion's configuration and weights; see `write_adapter`."""
    content = {**_described(model, name), "adapter_names": list(names), "config": config.to_dict()}
    _write(
        folder, FUSION_CONFIG, content, FUSION_WEIGHTS, hub_layout.to_tensors(hub_layout.fusion_modules(sites, name))
    )


def read_fusion(folder: str | Path) -> Stored:
    """Reads the fusion in a folder.

    Raises:
        FileNotFoundError: the folder has no fusion.
        CheckpointError: a file is broken.
    """
    folder = Path(folder)
    content = _read_json(folder / FUSION_CONFIG)
    names, config = tuple(content["adapter_names"]), as_fusion(content["config"])
    arrays = _arrays(_stored(folder, FUSION_WEIGHTS, _OLDER[FUSION_WEIGHTS]))
    return Stored(folder, str(content.get("name") or ",".join(names)), config, arrays, names)


def write_setup(folder: str | Path, setup: Block) -> None:
    """Writes a composition, without its adapters."""
    content = {"adapter_setup": setup.to_dict(), "head_setup": None, "version": VERSION}
    (Path(folder) / SETUP).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read_setup(folder: str | Path) -> Block:
    """Reads the composition in a folder.

    Raises:
        FileNotFoundError: the folder has none.
    """
    return Block.from_dict(_read_json(Path(folder) / SETUP)["adapter_setup"])


def require_equal(wanted: Mapping[str, Array], found: Mapping[str, Array], source: str | Path) -> None:
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


def _described(model: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {**model, "model_name": "", "name": name, "version": VERSION}


def _write(
    folder: str | Path, config_file: str, content: Mapping[str, Any], file: str, tensors: Mapping[str, Array]
) -> None:
    folder = Path(folder)
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


def _arrays(stored: StoredTensors) -> dict[str, Array]:
    return {key: np.asarray(value.load(), "float32") for key, value in stored.items()}
