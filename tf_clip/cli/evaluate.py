"""`tf-clip evaluate`: measures a model on images of known labels or captions."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from tf_clip.cli.arguments import add_batch_size, add_template, model_and_json, positive, runs
from tf_clip.evaluation.templates import template_sets

if TYPE_CHECKING:
    from tf_clip.cli.arguments import Commands


def add(commands: Commands) -> None:
    """Adds the command's tasks and their arguments."""
    parser = commands.add_parser("evaluate", help="measure a model on images of known labels or captions")
    tasks = parser.add_subparsers(dest="task", required=True, metavar="TASK")
    both = argparse.ArgumentParser(add_help=False)
    both.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="where report.json and report.html are written"
    )
    both.add_argument("--image-column", default="image", help="a table's column of paths (default: image)")
    add_batch_size(both)
    both.add_argument("--worst", type=positive, default=12, help="mistakes shown on the page (default: 12)")
    shared = [model_and_json(), both]
    _add_zero_shot(tasks.add_parser("zero-shot", parents=shared, help="classify images by the names of classes"))
    _add_retrieval(tasks.add_parser("retrieval", parents=shared, help="find captions by images, and the reverse"))


def _add_zero_shot(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("data", metavar="DATA", help="a folder of class folders, or a CSV of images and labels")
    parser.add_argument("--label-column", default="label", help="a table's column of labels (default: label)")
    prompts = parser.add_mutually_exclusive_group()
    prompts.add_argument(
        "--template-set",
        choices=tuple(template_sets()),
        metavar="NAME",
        help="OpenAI's prompts for a public data set: imagenet, imagenet_simple, cifar10, food101, ...",
    )
    add_template(prompts)
    parser.add_argument("--robustness", action="store_true", help="also measure each prompt alone")
    runs(parser, _run_zero_shot)


def _add_retrieval(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "data", metavar="DATA", help="a CSV of images and captions; an image with several captions has several rows"
    )
    parser.add_argument("--caption-column", default="caption", help="its column of captions (default: caption)")
    parser.add_argument(
        "--chunk-size",
        type=positive,
        default=1024,
        help="images and captions compared at once; bounds the memory (default: 1024)",
    )
    runs(parser, _run_retrieval)


def _run_zero_shot(options: argparse.Namespace) -> int:
    from tf_clip.cli import evaluate_zero_shot

    return evaluate_zero_shot.run(options)


def _run_retrieval(options: argparse.Namespace) -> int:
    from tf_clip.cli import evaluate_retrieval

    return evaluate_retrieval.run(options)
