"""`tf-clip train`: trains a model further on images and captions; its arguments, also from TOML files."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tf_clip.cli.arguments import add_model, runs
from tf_clip.cli.train_options import RUN_FILE, words_of

if TYPE_CHECKING:
    from tf_clip.cli.arguments import Commands

RECIPES = ("full", "lit", "layerwise", "lora", "probe")


def add(commands: Commands) -> None:
    """Adds the command's arguments."""
    parser = commands.add_parser(
        "train",
        help="train a model further on images and captions",
        description="Any option can also be in a TOML file, under its name without the dashes before it.",
        allow_abbrev=False,
    )
    _add_places(parser)
    _add_data(parser)
    _add_recipe(parser)
    runs(parser, run)


def with_files(arguments: Sequence[str]) -> list[str]:
    """Puts the options of `--config` and of the run of `--resume` before the typed ones, which win.

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
        words += words_of(path, "--resume", _option_names())
    if known.config is not None:
        words += words_of(known.config, "--config", _option_names())
    return [*words, *arguments]


def run(options: argparse.Namespace) -> int:
    """Trains as the options say."""
    from tf_clip.cli import train_run

    return train_run.run(options)


def _add_places(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("places")
    group.add_argument("--data", help="CSV, TSV, JSONL, Parquet, TFRecord, tar shards, or a folder of class folders")
    group.add_argument("--output", type=Path, metavar="DIR", help="folder of the model, its log and what resumes it")
    add_model(group)
    group.add_argument("--config", type=Path, metavar="FILE.toml", help="a file of options, by the names used here")
    group.add_argument("--resume", action="store_true", help="continue the run in DIR; no other option is needed")
    group.add_argument("--overwrite", action="store_true", help="start a new run in a DIR that is not empty")


def _add_data(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("data")
    group.add_argument("--image-column", help="a table's column of images (default: image)")
    group.add_argument(
        "--caption-column", action="append", help="a table's column of captions; may be given several times"
    )
    group.add_argument("--group-column", help="a table's column; rows with the same value stay on one side of a split")
    group.add_argument("--image-folder", help="the folder of a table's relative paths (default: the table's)")
    group.add_argument("--template", action="append", help="for folders of classes: a caption with {} for the class")
    group.add_argument("--format", help="the format of --data, if its name does not show it")
    group.add_argument("--validation-data", help="pairs to evaluate on after each epoch")
    group.add_argument(
        "--validation-share",
        type=float,
        help="share of --data kept for evaluation where --validation-data is not given (default: 0.1; 0: none)",
    )
    group.add_argument("--batch-size", type=int, default=64, help="pairs in one batch (default: 64)")
    group.add_argument(
        "--augment", choices=("none", "crop", "strong"), help="augmentation of images (default: crop, as CLIP's paper)"
    )
    group.add_argument("--flip", action="store_true", default=None, help="mirror images with probability 0.5")
    group.add_argument("--max-length", type=int, help="tokens of a caption; longer captions are cut")
    group.add_argument(
        "--max-skipped-share",
        type=float,
        help="share of rows that may be unreadable before training stops (default: 0.1)",
    )
    group.add_argument(
        "--seed", type=int, default=0, help="seed of the order, the augmentation and the split (default: 0)"
    )


def _add_recipe(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("recipe")
    group.add_argument(
        "--recipe",
        choices=RECIPES,
        default="full",
        help="what is trained (default: full); probe takes captions as labels",
    )
    group.add_argument(
        "--adapter", metavar="CONFIG", help="the adapter of the recipe lora, such as lora[r=16], dora, vera, ia3"
    )
    group.add_argument("--epochs", type=int, help="passes over the data (default: 10)")
    group.add_argument("--learning-rate", type=float, help="the highest learning rate (default: by recipe)")
    group.add_argument("--weight-decay", type=float, help="weight decay of AdamW (default: 0.1)")
    group.add_argument("--warmup-steps", type=int, help="steps of warm-up (default: a tenth of all, at most 500)")
    group.add_argument(
        "--layer-decay", type=float, help="factor of the learning rate from block to block (default: by recipe)"
    )
    group.add_argument("--clip-norm", type=float, help="the highest norm of all gradients (default: 1; 0: no limit)")
    group.add_argument("--accumulate", type=int, help="batches whose gradients make one step (default: 1)")
    group.add_argument("--ema", type=float, help="momentum of an average of the weights (default: no average)")
    group.add_argument("--wise-ft", type=float, metavar="SHARE", help="share of the trained weights in the result")
    group.add_argument("--loss", choices=("softmax", "sigmoid"), help="(default: softmax, as CLIP)")
    group.add_argument("--label-smoothing", type=float, help="(default: 0)")
    group.add_argument("--encode-chunk-size", type=int, help="pairs encoded at once: less memory, the same result")
    group.add_argument("--dtype", choices=("float32", "mixed_bfloat16", "mixed_float16"), help="(default: float32)")
    group.add_argument("--gradient-checkpointing", action="store_true", default=None, help="less memory, more time")
    group.add_argument("--save-every", type=int, help="batches between two saves (default: 500)")
    group.add_argument("--tensorboard", metavar="DIR", help="write curves, and the best and worst validation pairs")


def _option_names() -> list[str]:
    parser = argparse.ArgumentParser()
    add(parser.add_subparsers())
    actions = parser.parse_args(["train"]).parser._actions
    names = {action.option_strings[0].removeprefix("--") for action in actions}
    return sorted(names - {"-h", "config", "resume", "overwrite"})
