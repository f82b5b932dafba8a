"""The arguments of `tf-clip train`, on the command line or in a TOML file, and those that a run was started with."""

from __future__ import annotations

import argparse
import difflib
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

RUN_FILE = "train.toml"
RECIPES = ("full", "lit", "layerwise", "lora", "probe")
# What holds where nothing is said; None is decided by the recipe or means none.
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
    "max_bad_share": 0.1,
    "save_every": 500,
    "tensorboard": None,
}
# What says how to begin, and is not part of what a run is.
_CONTROL = ("config", "output", "resume", "overwrite", "command")


def add_train(commands: Commands, default_model: str) -> None:
    """Adds the command's arguments."""
    parser = commands.add_parser(
        "train",
        help="train a model further on images and captions",
        description="Any option can also be in a TOML file, under its name without the dashes before it.",
        allow_abbrev=False,
    )
    _add_places(parser, default_model)
    _add_data(parser)
    _add_recipe(parser)


def with_files(arguments: Sequence[str]) -> list[str]:
    """Puts what `--config` and `--resume` refer to in front of what was written, which wins.

    Raises:
        FileNotFoundError, ValueError: a file is missing or broken, or has unknown options.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for option in ("--config", "--output"):
        parser.add_argument(option, type=Path)
    parser.add_argument("--resume", action="store_true")
    known, _ = parser.parse_known_args(arguments)
    words: list[str] = []
    if known.resume and known.output is not None:
        path = known.output / RUN_FILE
        if not path.is_file():
            raise FileNotFoundError(
                f"`--output` must be the folder of a run to resume. Received: {known.output}, which has no {RUN_FILE}. "
                "Leave out --resume to start one."
            )
        words += _words_of(path)
    if known.config is not None:
        words += _words_of(known.config)
    return [*words, *arguments]


def run_options(options: argparse.Namespace) -> dict[str, Any]:
    """Returns what a run is, with local paths as they are found from anywhere."""
    chosen = {name: value for name, value in vars(options).items() if name not in _CONTROL and value is not None}
    for name in ("data", "validation_data", "model", "image_folder"):
        if name in chosen and Path(str(chosen[name])).exists():
            chosen[name] = str(Path(str(chosen[name])).resolve())
    return {name: str(value) if isinstance(value, Path) else value for name, value in chosen.items()}


def as_toml(values: Mapping[str, Any]) -> str:
    """Writes options as a TOML file that `--config` takes."""
    # JSON's strings, numbers, booleans and lists are TOML's, too.
    return "".join(f"{name} = {json.dumps(value, ensure_ascii=False)}\n" for name, value in values.items())


def _add_places(parser: argparse.ArgumentParser, default_model: str) -> None:
    group = parser.add_argument_group("places")
    group.add_argument("--data", help="CSV, TSV, JSONL, Parquet, TFRecord, tar shards, or a folder of class folders")
    group.add_argument("--output", type=Path, metavar="DIR", help="where the model, its log and what resumes it go")
    group.add_argument(
        "--model", default=default_model, help=f"a shipped name, a folder or a Hub id (default: {default_model})"
    )
    group.add_argument("--config", type=Path, metavar="FILE.toml", help="options, by the names that they have here")
    group.add_argument("--resume", action="store_true", help="go on with the run in DIR; no other option is needed")
    group.add_argument("--overwrite", action="store_true", help="start anew in a DIR that is not empty")


def _add_data(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("data")
    group.add_argument("--image-column", help="of a table (default: image)")
    group.add_argument("--caption-column", action="append", help="of a table; may be given several times")
    group.add_argument("--group-column", help="of a table: rows equal in it belong together")
    group.add_argument("--image-folder", help="where a table's relative paths begin (default: beside it)")
    group.add_argument("--template", action="append", help="for folders of classes: a sentence with {} for the class")
    group.add_argument("--format", help="of --data, if its name does not say it")
    group.add_argument("--validation-data", help="pairs to evaluate on after each epoch")
    group.add_argument(
        "--validation-share", type=float, help="of --data, kept back without --validation-data (default: 0.1; 0: none)"
    )
    group.add_argument("--batch-size", type=int, default=64, help="pairs a batch (default: 64)")
    group.add_argument("--augment", choices=("none", "crop", "strong"), help="of images (default: crop, as the paper)")
    group.add_argument("--flip", action="store_true", default=None, help="mirror every other image, too")
    group.add_argument("--max-length", type=int, help="of captions, in tokens")
    group.add_argument("--max-bad-share", type=float, help="of rows that may be bad (default: 0.1)")
    group.add_argument("--seed", type=int, default=0, help="of orders, augmentation, split (default: 0)")


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("recipe")
    group.add_argument(
        "--recipe",
        choices=RECIPES,
        default="full",
        help="what is trained (default: full); probe takes captions as labels",
    )
    group.add_argument(
        "--adapter", metavar="CONFIG", help="for lora: another form of it, such as lora[r=16], dora, vera, ia3"
    )
    group.add_argument("--epochs", type=int, help="(default: 10)")
    group.add_argument("--learning-rate", type=float, help="the highest (default: by recipe)")
    group.add_argument("--weight-decay", type=float, help="(default: 0.1)")
    group.add_argument("--warmup-steps", type=int, help="(default: a tenth of all, 500 at most)")
    group.add_argument(
        "--layer-decay", type=float, help="of the learning rate, from block to block (default: by recipe)"
    )
    group.add_argument("--clip-norm", type=float, help="largest length of all gradients (default: 1; 0: no limit)")
    group.add_argument("--accumulate", type=int, help="batches a step (default: 1)")
    group.add_argument("--ema", type=float, help="momentum of an average of the weights (default: none)")
    group.add_argument("--wise-ft", type=float, metavar="SHARE", help="mix the result, so much of it, with the start")
    group.add_argument("--loss", choices=("softmax", "sigmoid"), help="(default: softmax, CLIP's)")
    group.add_argument("--label-smoothing", type=float, help="(default: 0)")
    group.add_argument("--encode-chunk-size", type=int, help="pairs encoded at a time: less memory, the same result")
    group.add_argument("--dtype", choices=("float32", "mixed_bfloat16", "mixed_float16"), help="(default: float32)")
    group.add_argument("--gradient-checkpointing", action="store_true", default=None, help="less memory, more time")
    group.add_argument("--save-every", type=int, help="batches from one save to the next (default: 500)")
    group.add_argument("--tensorboard", metavar="DIR", help="write curves, and the best and worst validation pairs")


def _words_of(path: Path) -> list[str]:
    """Returns a TOML file's options as the words of a command line."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    if not path.is_file():
        raise FileNotFoundError(f"`--config` must be an existing file. Received: {path}. Check the path.")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"`--config` must be a TOML file. Received: {path} ({error}). Correct it.") from error
    names = _option_names()
    words = []
    for key, value in values.items():
        name = key.replace("_", "-")
        if name not in names:
            close = difflib.get_close_matches(name, names, n=3)
            raise ValueError(
                f"`--config` must have options of `tf-clip train`. Received: {key!r} in {path}. "
                + (f"Did you mean {' or '.join(close)}?" if close else "See `tf-clip train --help`.")
            )
        words += _words_for(name, value, path)
    return words


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


def _option_names() -> list[str]:
    parser = argparse.ArgumentParser()
    add_train(parser.add_subparsers(), "")
    known = vars(parser.parse_args(["train"]))
    return sorted(name.replace("_", "-") for name in known if name not in ("config", "resume", "overwrite"))
