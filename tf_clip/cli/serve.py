"""`tf-clip serve`: an exported model over REST, gRPC and as a page, until it is interrupted."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from tf_clip.cli.arguments import EXIT_DONE, positive, runs

if TYPE_CHECKING:
    from tf_clip.cli.arguments import Commands


def add(commands: Commands) -> None:
    """Adds the command's arguments."""
    parser = commands.add_parser("serve", help="serve an exported model over REST and as a page, on this machine")
    parser.add_argument("model_dir", metavar="MODEL_DIR", type=Path, help="an exported model: a folder of versions")
    parser.add_argument("--name", default="clip", help="the model's name in requests (default: clip)")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen at (default: 127.0.0.1)")
    parser.add_argument(
        "--port", type=int, default=8501, help="for REST and the page; 0 takes a free one (default: 8501)"
    )
    parser.add_argument("--grpc-port", type=int, help="for gRPC; 0 takes a free one (default: no gRPC)")
    parser.add_argument(
        "--max-batch-size",
        type=positive,
        default=128,
        help="rows of one request, or of requests that run together (default: 128)",
    )
    parser.add_argument(
        "--batch-timeout-ms",
        type=float,
        default=2.0,
        help="milliseconds that a request waits for others to run with it (default: 2)",
    )
    parser.add_argument("--max-body-mb", type=float, default=64.0, help="megabytes of a request (default: 64)")
    parser.add_argument("--max-concurrency", type=positive, default=64, help="requests at the same time (default: 64)")
    parser.add_argument(
        "--log-level", default="info", choices=("debug", "info", "warning", "error"), help="(default: info)"
    )
    runs(parser, run)


def run(options: argparse.Namespace) -> int:
    """Runs the local server."""
    from tf_clip.serving.server import ServerOptions, serve

    given = {field.name: getattr(options, field.name) for field in dataclasses.fields(ServerOptions)}
    serve(options.model_dir, ServerOptions(**given), _say)
    return EXIT_DONE


def _say(line: str) -> None:
    print(line, flush=True)  # at once, also into a pipe: the program that started the server waits for it
