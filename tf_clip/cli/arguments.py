"""Arguments that several commands have. Nothing here or in a command's file imports TensorFlow before it runs."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

DEFAULT_MODEL = "pictogram-clip"
EXIT_DONE, EXIT_SOME_SKIPPED, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130


def model_and_json() -> argparse.ArgumentParser:
    """Returns a parent parser with `--model` and `--json`."""
    parent = argparse.ArgumentParser(add_help=False)
    add_model(parent)
    add_json(parent)
    return parent


def add_model(parser: argparse._ActionsContainer) -> None:
    """Adds `--model`."""
    parser.add_argument(
        "--model",
        default=DEFAULT_MODEL,
        help=f"a shipped name, a folder, a file or a Hub id (default: {DEFAULT_MODEL})",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Adds `--json`."""
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def add_images(parser: argparse.ArgumentParser, nargs: str) -> None:
    """Adds the images and `--batch-size`."""
    parser.add_argument("images", nargs=nargs, type=Path, metavar="IMAGE", help="an image file, or a folder of images")
    add_batch_size(parser)


def add_batch_size(parser: argparse.ArgumentParser) -> None:
    """Adds `--batch-size`."""
    parser.add_argument("--batch-size", type=positive, default=32, help="images in one batch (default: 32)")


def add_texts(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """Adds `--text` and `--texts-file`, either of which may be required."""
    texts: argparse._ActionsContainer = parser.add_mutually_exclusive_group(required=True) if required else parser
    texts.add_argument("--text", action="append", help="a text; may be given several times")
    texts.add_argument("--texts-file", type=Path, help="a file with one text per line")


def add_labels(parser: argparse.ArgumentParser, *, required: bool) -> None:
    """Adds `--labels`, `--labels-file` and `--template`."""
    labels = parser.add_mutually_exclusive_group(required=required)
    labels.add_argument("--labels", help='labels, separated by commas: "a cat,a dog"')
    labels.add_argument("--labels-file", type=Path, help="a file with one label per line")
    add_template(parser)


def add_template(parser: argparse._ActionsContainer) -> None:
    """Adds `--template`."""
    parser.add_argument(
        "--template",
        action="append",
        help='a prompt with {} for the label, such as "a photo of {}"; the embeddings of several are averaged '
        '(default: "{}")',
    )


def add_top(parser: argparse.ArgumentParser, what: str) -> None:
    """Adds `--top`."""
    parser.add_argument("--top", type=positive, default=5, help=f"{what} (default: 5)")


def add_weights_dtype(parser: argparse.ArgumentParser) -> None:
    """Adds `--dtype` of the weights that are written."""
    parser.add_argument("--dtype", default="float32", choices=("float32", "float16", "bfloat16"), help="of the weights")


def runs(
    parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], int], *, uses_tensorflow: bool = True
) -> None:
    """Says what a command runs: a function from the parsed options to the exit status."""
    parser.set_defaults(run=run, parser=parser, uses_tensorflow=uses_tensorflow)


def positive(text: str) -> int:
    """Reads a positive whole number.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    value = int(text) if text.isdigit() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be a positive whole number, received {text!r}")
    return value
