"""What `tf-clip serve` does: serve an exported model until it is told to end."""

from __future__ import annotations

import argparse

from tf_clip.cli.main import EXIT_DONE
from tf_clip.serving.server import ServerOptions
from tf_clip.serving.server import serve as serve_model


def serve(options: argparse.Namespace) -> int:
    """Runs the local server."""
    serve_model(
        options.model_dir,
        ServerOptions(
            name=options.name,
            host=options.host,
            port=options.port,
            grpc_port=options.grpc_port,
            max_batch_size=options.max_batch_size,
            batch_timeout_ms=options.batch_timeout_ms,
            max_body_mb=options.max_body_mb,
            max_concurrency=options.max_concurrency,
            log_level=options.log_level,
        ),
        _say,
    )
    return EXIT_DONE


def _say(line: str) -> None:
    print(line, flush=True)  # at once, also into a pipe: who started the server waits for it
