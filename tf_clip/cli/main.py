"""`tf-clip`: collects the commands, runs the one that was typed, and shows its errors."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import tf_clip
from tf_clip.cli import (
    bench,
    classify,
    convert,
    embed,
    evaluate,
    export,
    info,
    models,
    serve,
    similarity,
    train,
)
from tf_clip.cli.arguments import EXIT_INTERRUPTED, EXIT_USAGE
from tf_clip.cli.quiet_start import import_tensorflow
from tf_clip.cli.typed_names import with_typed_names

COMMANDS = (classify, similarity, embed, info, models, convert, export, evaluate, serve, bench, train)
# Other errors are faults of this program, and are shown with their traceback.
_SHOWN = (ArithmeticError, FileNotFoundError, ImportError, IsADirectoryError, PermissionError, TypeError, ValueError)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs `tf-clip`.

    Args:
        arguments: the words after the program's name; None takes the process's.

    Returns:
        The exit status: 0 done; 1 done, but some files were skipped and reported; 2 not done; 130 interrupted.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = argparse.Namespace(command=words[0] if words else "", parser=None)
    try:
        if options.command == "train":
            words[1:] = train.with_files(words[1:])
        options = _parser().parse_args(words)
        if options.uses_tensorflow:
            import_tensorflow()
        return int(options.run(options))
    except _SHOWN as error:
        print(f"tf-clip {options.command}: {with_typed_names(str(error), options)}", file=sys.stderr)
        return EXIT_USAGE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="tf-clip", description="Classify, search and rank images with plain sentences."
    )
    parser.add_argument("--version", action="version", version=f"tf_clip {tf_clip.__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return parser
