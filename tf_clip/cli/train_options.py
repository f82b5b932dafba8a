"""The options of a training run: their defaults, and the TOML files that they are in."""

from __future__ import annotations

import argparse
import difflib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tf_clip.cli.inputs import require_file

RUN_FILE = "train.toml"
# The values of options that are not given; None leaves the value to the recipe, or means none.
FIT_DEFAULTS: dict[str, Any] = {
    "epochs": 10,
    "adapter": None,
    "learning_rate": None,
    "weight_decay": None,
    "warmup_steps": None,
    "layer_decay": None,
    "clip_norm": None,
    "accumulate": None,
    "ema": None,
    "wise_ft": None,
    "loss": "softmax",
    "label_smoothing": 0.0,
    "encode_chunk_size": None,
    "dtype": "float32",
    "gradient_checkpointing": False,
    "augment": "crop",
    "flip": False,
    "max_length": None,
    "max_skipped_share": 0.1,
    "save_every": 500,
    "tensorboard": None,
}
# These say how to begin, and are no part of the run. The last four come from the parser.
_CONTROL = ("config", "output", "resume", "overwrite", "command", "run", "parser", "uses_tensorflow")
# These change no result.
_NOT_COMPARED = ("save_every", "tensorboard")


def run_options(options: argparse.Namespace) -> dict[str, Any]:
    """Returns what a run is, with local paths as they are found from anywhere."""
    chosen = {name: value for name, value in vars(options).items() if name not in _CONTROL and value is not None}
    for name in ("data", "validation_data", "model", "image_folder"):
        if name in chosen and Path(str(chosen[name])).exists():
            chosen[name] = str(Path(str(chosen[name])).resolve())
    return {name: str(value) if isinstance(value, Path) else value for name, value in chosen.items()}


def compared_options(run: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options that a resumed run must have in common with the first one, with their defaults."""
    return {name: value for name, value in {**FIT_DEFAULTS, **run}.items() if name not in _NOT_COMPARED}


def require_same_run(run: Mapping[str, Any], folder: Path) -> None:
    """Refuses to resume with options that change the result, which would be neither run's.

    Args:
        run: what `run_options` returned.
        folder: the run's.

    Raises:
        ValueError: options differ from those in the folder's `train.toml`; all of them are listed.
    """
    now, before = compared_options(run), compared_options(read_toml(folder / RUN_FILE, "--resume"))
    changed = [name for name in sorted(now.keys() | before.keys()) if now.get(name) != before.get(name)]
    if changed:
        listed = "; ".join(
            f"--{name.replace('_', '-')} {_said(now.get(name))}, where the run has {_said(before.get(name))}"
            for name in changed
        )
        raise ValueError(
            f"`--resume` must come with the options that the run was started with. Received: {listed}. "
            "Leave them out, or start a new run with --overwrite."
        )


def _said(value: Any) -> str:
    return "none" if value is None else str(value)


def as_toml(values: Mapping[str, Any]) -> str:
    """Writes options as a TOML file that `--config` takes."""
    # JSON's strings, numbers, booleans and lists are TOML's, too.
    return "".join(f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in values.items())


def words_of(path: Path, option: str, known: Sequence[str]) -> list[str]:
    """Returns a TOML file's options as the words of a command line.

    Args:
        path: the file.
        option: the option that named it.
        known: the names that options may have, without the dashes before them.

    Raises:
        FileNotFoundError, ValueError: the file is missing or broken, or has unknown options.
    """
    words = []
    for key, value in read_toml(path, option).items():
        name = key.replace("_", "-")
        if name not in known:
            close = difflib.get_close_matches(name, known, n=3)
            raise ValueError(
                f"`{option}` must have options of `tf-clip train`. Received: {key!r} in {path}. "
                + (f"Did you mean {' or '.join(close)}?" if close else "See `tf-clip train --help`.")
            )
        words += _words_for(name, value, path)
    return words


def read_toml(path: Path, option: str) -> dict[str, Any]:
    """Returns what a TOML file holds.

    Raises:
        FileNotFoundError, ValueError: the file is missing or broken.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    require_file(path, option)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"`{option}` must be a TOML file. Received: {path} ({error}). Correct it.") from error


def _words_for(name: str, value: Any, path: Path) -> list[str]:
    if isinstance(value, bool):
        if not value and name not in ("flip", "gradient-checkpointing"):
            raise ValueError(f"`{name}` must be a value. Received: {name} = false in {path}. Leave it out.")
        return [f"--{name}"] if value else []
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(item, (str, int, float)) and not isinstance(item, bool) for item in values):
        raise ValueError(
            f"`{name}` must be text, a number or a list of them. Received: {value!r} in {path}. Correct it."
        )
    return [f"--{name}={item}" for item in values]
