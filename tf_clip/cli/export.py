"""`tf-clip export`: a model for other programs to run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from tf_clip.cli.arguments import add_labels, add_weights_dtype, model_and_json, positive, runs

if TYPE_CHECKING:
    from tf_clip.cli.arguments import Commands


def add(commands: Commands) -> None:
    """Adds the command's formats and their arguments."""
    parser = commands.add_parser("export", help="write a model for other programs to run")
    formats = parser.add_subparsers(dest="format", required=True, metavar="FORMAT")
    shared = [model_and_json()]
    _add_saved_model(
        formats.add_parser(
            "saved-model", parents=shared, help="a TensorFlow SavedModel that takes image files' bytes and strings"
        )
    )
    _add_litert(formats.add_parser("litert", parents=shared, help=".tflite files for phones and browsers"))


def _add_saved_model(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", type=Path, metavar="OUT", help="the model's folder; the version is a folder in it")
    add_labels(parser, required=False)
    parser.add_argument("--version", type=positive, default=1, help="servers take the highest (default: 1)")
    _add_name(parser)
    add_weights_dtype(parser)
    parser.add_argument(
        "--on-bad-row",
        default="status",
        choices=("status", "error"),
        help="report an unreadable row in its status, or fail the request (default: status)",
    )
    parser.add_argument("--top-k", type=positive, default=5, help="labels that classify ranks (default: 5)")
    parser.add_argument("--overwrite", action="store_true", help="replace the version if it exists")
    parser.add_argument(
        "--no-kit",
        action="store_true",
        help="leave out what TensorFlow Serving needs beside it: warm-up, measured batching, configuration, README",
    )
    runs(parser, _run_saved_model)


def _add_litert(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder to write into")
    parser.add_argument(
        "--parts",
        help="some of image, text, text_from_utf8, classify, separated by commas (default: all; classify needs labels)",
    )
    parser.add_argument(
        "--quantization",
        default="float32",
        help="float32, float16, dynamic_int8, int4 or int8 (default: float32; int8 must be calibrated)",
    )
    add_labels(parser, required=False)
    parser.add_argument(
        "--text-lengths", help="lengths in tokens that texts are padded to (default: 16,32 and the longest)"
    )
    parser.add_argument("--calibration-images", nargs="+", type=Path, default=[], metavar="IMAGE", help="for int8")
    parser.add_argument("--calibration-texts-file", type=Path, help="for int8: a file with one text per line")
    _add_name(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    parser.add_argument(
        "--report",
        nargs="+",
        type=Path,
        metavar="IMAGE",
        help="measure every recipe on these images and the labels; with the labels as file names, recall too",
    )
    runs(parser, _run_litert)


def _add_name(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--name", default="clip", help="the model's name (default: clip)")


def _run_saved_model(options: argparse.Namespace) -> int:
    from tf_clip.cli import export_saved_model

    return export_saved_model.run(options)


def _run_litert(options: argparse.Namespace) -> int:
    from tf_clip.cli import export_litert

    return export_litert.run(options)
