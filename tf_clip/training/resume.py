"""The state that a stopped run is resumed from, in one file that is whole at any time."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from keras import ops
from safetensors import safe_open
from safetensors.numpy import save_file

from tf_clip.files import replacing_file

STATE_FILE = "resume.safetensors"
_FORMAT = 1


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a run is.

    Args:
        epoch: the epoch that the next batch belongs to, from 0.
        batch: how many batches of it are done.
        step: how many batches are done over all epochs.
        sums: of each metric over the batches done in this epoch.
        history: the metrics of the epochs done.
        settings: what the run was started with; a resumed run must have the same.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    sums: dict[str, float] = dataclasses.field(default_factory=dict)
    history: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)


def save_state(path: str | os.PathLike[str], model: Any, progress: Progress) -> None:
    """Writes weights, the optimizer's state, the state of random numbers and the progress.

    The file is whole at any time, even if the program is killed.

    Args:
        path: the file; its folder is made when missing.
        model: a compiled model whose optimizer is built.
        progress: how far the run is.
    """
    arrays = {name: np.asarray(ops.convert_to_numpy(variable), order="C") for name, variable in _state_of(model)}
    metadata = {"format": str(_FORMAT), "progress": json.dumps(dataclasses.asdict(progress))}
    with replacing_file(path) as file:
        save_file(arrays, file, metadata=metadata)


def read_progress(path: str | os.PathLike[str]) -> Progress:
    """Reads how far the run is that wrote a file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is none of this program's.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"`path` must be a file that a training run wrote. Received: {path}. Start a run there without resuming."
        )
    with _opened(path) as file:
        said = file.metadata() or {}
    if said.get("format") != str(_FORMAT):
        raise ValueError(
            f"`path` must be a file that a training run of this version wrote. Received: {path}, which says "
            f"{said.get('format')!r} in place of {_FORMAT}. Start the run again."
        )
    return Progress(**json.loads(said["progress"]))


def restore_state(path: str | os.PathLike[str], model: Any) -> Progress:
    """Puts a run's state back into a model that was made and compiled in the same way.

    Args:
        path: what `save_state` wrote.
        model: a compiled model.

    Returns:
        How far the run is.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the model or its optimizer has other variables than the file; nothing is changed then.
    """
    progress = read_progress(path)
    _build_optimizer(model)
    with _opened(Path(path)) as file:
        wanted = dict(_state_of(model))
        stored = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
        differing = [
            name for name in sorted(wanted | stored) if name not in wanted or stored.get(name) != wanted[name].shape
        ]
        if differing:
            raise ValueError(
                f"`model` must be what {path} was written for. Received one that differs in {len(differing)} "
                f"variables, such as {', '.join(differing[:3])}. Resume with the first run's model and options."
            )
        for name, variable in wanted.items():
            variable.assign(file.get_tensor(name))
    return progress


def require_same_settings(progress: Progress, settings: Mapping[str, Any]) -> None:
    """Refuses to resume with other settings, since the result would be neither run's.

    Raises:
        ValueError: something differs; all of it is listed.
    """
    now = json.loads(json.dumps(settings))
    names = sorted(now.keys() | progress.settings.keys())
    changed = [name for name in names if now.get(name) != progress.settings.get(name)]
    if changed:
        listed = "; ".join(f"{name} was {progress.settings.get(name)!r}, is {now.get(name)!r}" for name in changed)
        raise ValueError(f"`settings` must be those of the resumed run. Received: {listed}. Set them back.")


def _state_of(model: Any) -> Iterator[tuple[str, Any]]:
    """Yields every variable that a step reads or writes, by a name that is the same in each process.

    Among a model's variables are the seeds of its random numbers; the metrics' are not, the trainer sums them up.
    """
    _build_optimizer(model)
    for owner, variables in (("model", model.variables), ("optimizer", model.optimizer.variables)):
        for index, variable in enumerate(variables):
            # The optimizer's names begin with the model's own, which Keras counts up.
            yield f"{owner}/{index:05}/{variable.name.rpartition('_')[2]}", variable


def _build_optimizer(model: Any) -> None:
    if not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)


def _opened(path: Path) -> Any:
    try:
        return safe_open(path, framework="numpy")
    except Exception as error:  # the library raises a kind of its own for each release
        raise ValueError(
            f"`path` must be a file that a training run wrote. Received: {path} ({error}). Start the run again."
        ) from error
