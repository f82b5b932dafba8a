"""The command line's arguments, and how its errors are shown."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import tf_clip
from tf_clip.cli import train_options
from tf_clip.evaluation.templates import template_sets

if TYPE_CHECKING:
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]

DEFAULT_MODEL = "pictogram-clip"
EXIT_DONE, EXIT_SOME_SKIPPED, EXIT_USAGE, EXIT_INTERRUPTED = 0, 1, 2, 130
_FILE_ERRORS = (FileNotFoundError, IsADirectoryError, PermissionError)
# Where commands are that are not in `commands`.
_MODULE_OF = {
    "bench": "bench_command",
    "info": "checkpoint_commands",
    "models": "checkpoint_commands",
    "convert": "checkpoint_commands",
    "export": "export_commands",
    "evaluate": "evaluate_command",
    "serve": "serve_command",
    "train": "train_command",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `tf-clip`.

    Args:
        arguments: the words after the program's name; None takes the process's.

    Returns:
        The exit status: 0 done, 1 done but for files that were skipped and reported, 2 not done, 130 interrupted.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["train"]:
        try:
            words[1:] = train_options.with_files(words[1:])
        except (OSError, ImportError, ValueError) as error:
            print(f"tf-clip train: {error}", file=sys.stderr)
            return EXIT_USAGE
    options = _parser().parse_args(words)
    module = _MODULE_OF.get(options.command, "commands")
    try:
        with _quiet_start():
            commands = importlib.import_module(f"tf_clip.cli.{module}")
        return int(getattr(commands, options.command)(options))
    except (ArithmeticError, ImportError, TypeError, ValueError, *_FILE_ERRORS) as error:
        print(f"tf-clip {options.command}: {error}", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


@contextmanager
def _quiet_start() -> Iterator[None]:
    """Holds back what TensorFlow's libraries write to standard error as they load, unless loading fails.

    They write through the file descriptor and before any log level is read; nothing else silences them.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with tempfile.TemporaryFile() as held_back:
        sys.stderr.flush()
        shown = os.dup(2)
        os.dup2(held_back.fileno(), 2)
        try:
            yield
        except BaseException:
            held_back.seek(0)
            os.write(shown, held_back.read())
            raise
        finally:
            os.dup2(shown, 2)
            os.close(shown)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tf-clip", description="Classify, search and rank images with plain sentences."
    )
    parser.add_argument("--version", action="version", version=f"tf_clip {tf_clip.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--model", default=DEFAULT_MODEL, help=f"a shipped name, a folder or a Hub id (default: {DEFAULT_MODEL})"
    )
    shared.add_argument("--json", action="store_true", help="print JSON instead of a table")
    _add_classify(commands, shared)
    _add_similarity(commands, shared)
    _add_embed(commands, shared)
    commands.add_parser("info", parents=[shared], help="say what a checkpoint is, costs, and what is odd about it")
    _add_models(commands)
    _add_convert(commands)
    _add_export(commands, shared)
    _add_evaluate(commands, shared)
    _add_serve(commands)
    _add_bench(commands, shared)
    train_options.add_train(commands, DEFAULT_MODEL)
    return parser


def _add_images(parser: argparse.ArgumentParser, nargs: str) -> None:
    parser.add_argument("images", nargs=nargs, type=Path, metavar="IMAGE", help="an image file, or a folder of them")
    parser.add_argument("--batch-size", type=_positive, default=32, help="images at a time (default: 32)")


def _add_classify(commands: Commands, shared: argparse.ArgumentParser) -> None:
    parser = commands.add_parser("classify", parents=[shared], help="choose the best label for each image")
    _add_images(parser, "+")
    _add_labels(parser, required=True)
    parser.add_argument("--top", type=_positive, default=5, help="labels shown an image (default: 5)")
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page with the images and their scores")


def _add_labels(parser: argparse.ArgumentParser, *, required: bool) -> None:
    labels = parser.add_mutually_exclusive_group(required=required)
    labels.add_argument("--labels", help='labels, separated by commas: "a cat,a dog"')
    labels.add_argument("--labels-file", type=Path, help="a file with one label a line")
    parser.add_argument(
        "--template",
        action="append",
        help='a sentence with {} for the label, such as "a photo of {}"; several are averaged (default: "{}")',
    )


def _add_similarity(commands: Commands, shared: argparse.ArgumentParser) -> None:
    parser = commands.add_parser("similarity", parents=[shared], help="rank images for each sentence")
    _add_images(parser, "+")
    texts = parser.add_mutually_exclusive_group(required=True)
    texts.add_argument("--text", action="append", help="a sentence; may be given several times")
    texts.add_argument("--texts-file", type=Path, help="a file with one sentence a line")
    parser.add_argument("--top", type=_positive, default=5, help="images shown a sentence (default: 5)")


def _add_embed(commands: Commands, shared: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "embed", parents=[shared], help="write embeddings of images or texts to a file, or any number to a folder"
    )
    _add_images(parser, "*")
    parser.add_argument("--text", action="append", help="a text; may be given several times")
    parser.add_argument("--texts-file", type=Path, help="a file with one text a line")
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--out", type=Path, metavar="FILE.npz", help="the file to write")
    target.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="a folder for any number, in bounded memory; a job that was stopped goes on when it is started again",
    )


def _add_models(commands: Commands) -> None:
    parser = commands.add_parser("models", help="list the published checkpoints that can be loaded")
    parser.add_argument("containing", nargs="?", default="", help='a word in their names, such as "laion" or "B/32"')
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def _add_convert(commands: Commands) -> None:
    parser = commands.add_parser("convert", help="write a checkpoint of any format in another")
    parser.add_argument("source", metavar="SRC", help="a shipped name, a folder, a file or a Hub id")
    parser.add_argument("target", metavar="DST", type=Path, help="a new or empty folder; for keras, a .keras file")
    parser.add_argument("--to", choices=("hf", "openclip", "keras"), required=True, help="the format to write")
    parser.add_argument("--dtype", default="float32", choices=("float32", "float16", "bfloat16"), help="of the weights")
    parser.add_argument("--max-shard-size", default="5GB", help="the largest file, for hf (default: 5GB)")


def _add_export(commands: Commands, shared: argparse.ArgumentParser) -> None:
    formats = commands.add_parser("export", help="write a model for other programs to run").add_subparsers(
        dest="format", required=True, metavar="FORMAT"
    )
    parser = formats.add_parser(
        "saved-model", parents=[shared], help="a TensorFlow SavedModel that takes files' bytes and strings as they are"
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="the model's folder; the version is a folder in it")
    _add_labels(parser, required=False)
    parser.add_argument("--version", type=_positive, default=1, help="servers take the highest (default: 1)")
    parser.add_argument("--name", default="clip", help="what the model is called (default: clip)")
    parser.add_argument("--dtype", default="float32", choices=("float32", "float16", "bfloat16"), help="of the weights")
    parser.add_argument(
        "--on-bad-row",
        default="status",
        choices=("status", "error"),
        help="tell a row that cannot be read in its status, or fail the request (default: status)",
    )
    parser.add_argument("--top-k", type=_positive, default=5, help="labels that classify ranks (default: 5)")
    parser.add_argument("--overwrite", action="store_true", help="replace the version if it exists")
    parser.add_argument(
        "--no-kit",
        action="store_true",
        help="leave out what TensorFlow Serving needs beside it: warm-up, measured batching, configuration, README",
    )
    _add_litert(formats, shared)


def _add_litert(formats: Commands, shared: argparse.ArgumentParser) -> None:
    parser = formats.add_parser("litert", parents=[shared], help=".tflite files for phones and browsers")
    parser.add_argument("out", type=Path, metavar="OUT", help="the folder to write into")
    parser.add_argument(
        "--parts", help="image,text,text_from_utf8,classify or some of them (default: all; classify with labels alone)"
    )
    parser.add_argument(
        "--quantization",
        default="float32",
        help="float32, float16, dynamic_int8, int4 or int8 (default: float32; int8 must be calibrated)",
    )
    _add_labels(parser, required=False)
    parser.add_argument("--text-lengths", help="lengths in tokens that texts are computed at (default: 16,32,longest)")
    parser.add_argument("--calibration-images", nargs="+", type=Path, default=[], metavar="IMAGE", help="for int8")
    parser.add_argument("--calibration-texts-file", type=Path, help="for int8: a file with one text a line")
    parser.add_argument("--name", default="clip", help="what the model is called (default: clip)")
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    parser.add_argument(
        "--report",
        nargs="+",
        type=Path,
        metavar="IMAGE",
        help="measure every recipe on these images and the labels; named as their label, they are scored, too",
    )


def _add_evaluate(commands: Commands, shared: argparse.ArgumentParser) -> None:
    tasks = commands.add_parser(
        "evaluate", help="measure a model on images of known labels or captions"
    ).add_subparsers(dest="task", required=True, metavar="TASK")
    both = argparse.ArgumentParser(add_help=False)
    both.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="where report.json and report.html are written"
    )
    both.add_argument("--image-column", default="image", help="a table's column of paths (default: image)")
    both.add_argument("--batch-size", type=_positive, default=32, help="images at a time (default: 32)")
    both.add_argument("--worst", type=_positive, default=12, help="mistakes that are shown (default: 12)")
    parser = tasks.add_parser("zero-shot", parents=[shared, both], help="name images by their classes' names")
    parser.add_argument("data", metavar="DATA", help="a folder of class folders, or a CSV of images and labels")
    parser.add_argument("--label-column", default="label", help="a table's column of labels (default: label)")
    wording = parser.add_mutually_exclusive_group()
    wording.add_argument(
        "--template-set",
        choices=tuple(template_sets()),
        metavar="NAME",
        help="sentences of OpenAI for a public data set: imagenet, imagenet_simple, cifar10, food101, ...",
    )
    wording.add_argument(
        "--template", action="append", help='a sentence with {} for the label; several are averaged (default: "{}")'
    )
    parser.add_argument("--robustness", action="store_true", help="measure each sentence alone, too")
    parser = tasks.add_parser("retrieval", parents=[shared, both], help="find captions by images, and the reverse")
    parser.add_argument("data", metavar="DATA", help="a CSV of images and captions; several rows an image")
    parser.add_argument("--caption-column", default="caption", help="its column of captions (default: caption)")
    parser.add_argument(
        "--chunk-size", type=_positive, default=1024, help="images and captions compared at a time (default: 1024)"
    )


def _add_serve(commands: Commands) -> None:
    parser = commands.add_parser("serve", help="serve an exported model over REST and as a page, on this machine")
    parser.add_argument("model_dir", metavar="MODEL_DIR", type=Path, help="what was exported: a folder of versions")
    parser.add_argument("--name", default="clip", help="what clients call the model (default: clip)")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen at (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8501, help="for REST and the page; 0 takes any (default: 8501)")
    parser.add_argument("--grpc-port", type=int, help="for gRPC; 0 takes any (default: no gRPC)")
    parser.add_argument(
        "--max-batch-size", type=_positive, default=128, help="rows of a request, or of several together (default: 128)"
    )
    parser.add_argument(
        "--batch-timeout-ms", type=float, default=2.0, help="a request's wait for others to run with (default: 2)"
    )
    parser.add_argument("--max-body-mb", type=float, default=64.0, help="megabytes of a request (default: 64)")
    parser.add_argument("--max-concurrency", type=_positive, default=64, help="requests at a time (default: 64)")
    parser.add_argument(
        "--log-level", default="info", choices=("debug", "info", "warning", "error"), help="(default: info)"
    )


def _add_bench(commands: Commands, shared: argparse.ArgumentParser) -> None:
    parser = commands.add_parser("bench", parents=[shared], help="measure how fast a model is on this machine")
    parser.add_argument(
        "--batch",
        type=_positive,
        nargs="+",
        default=[1, 8],
        metavar="N",
        help="images and texts at once (default: 1 8)",
    )
    parser.add_argument(
        "--engine",
        action="append",
        help="auto, tensorflow, xla or litert; may be given several times (default: tensorflow, xla)",
    )
    parser.add_argument(
        "--work",
        action="append",
        choices=("image", "text", "joint", "end_to_end"),
        help="what is done; may be given several times (default: all)",
    )
    parser.add_argument("--rounds", type=_positive, default=5, help="the median of which is shown (default: 5)")
    parser.add_argument(
        "--profile", type=Path, metavar="DIR", help="write a trace for TensorBoard, and show what takes longest"
    )


def _positive(text: str) -> int:
    value = int(text) if text.isdigit() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be a positive whole number, received {text!r}")
    return value
