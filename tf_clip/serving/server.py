"""The process: loads the model, listens, watches for newer versions, and ends without losing a request."""

from __future__ import annotations

import asyncio
import logging
import logging.config
import os
import re
import signal
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI
from kserve import ModelRepository
from kserve.protocol.dataplane import DataPlane
from kserve.protocol.model_repository_extension import ModelRepositoryExtension
from kserve.protocol.rest.server import RESTServer

from tf_clip.serving.batching import Batcher
from tf_clip.serving.grpc_service import grpc_server
from tf_clip.serving.limits import Places, RequestLimits
from tf_clip.serving.rest import application
from tf_clip.serving.served_model import ServedModel
from tf_clip.serving.versions import Versions

GRACE_SECONDS = 30
# Each run spreads over the cores by itself; a second one decodes images while the first multiplies.
THREADS = min(4, os.cpu_count() or 1)


@dataclass(frozen=True)
class ServerOptions:
    """How the local server is reached, and what it takes.

    Args:
        name: what clients call the model.
        host: the address to listen at; 127.0.0.1 is reached from this machine only.
        port: for REST and the page; 0 takes a free one.
        grpc_port: for gRPC; None leaves it out, 0 takes a free one.
        max_batch_size: the most rows of one request, and of several run together.
        batch_timeout_ms: how long a request waits for others to be run with.
        max_body_mb: the most megabytes of one request.
        max_concurrency: the most requests at a time; further ones are asked to come again.
        log_level: debug, info, warning or error.

    Raises:
        ValueError: when a value is out of its range.
    """

    name: str = "clip"
    host: str = "127.0.0.1"
    port: int = 8501
    grpc_port: int | None = None
    max_batch_size: int = 128
    batch_timeout_ms: float = 2.0
    max_body_mb: float = 64.0
    max_concurrency: int = 64
    log_level: str = "info"

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", self.name):
            raise ValueError(f"`name` must be letters, digits, _, . and -. Received: name={self.name!r}. Rename it.")
        for name in ("port", "grpc_port"):
            port = getattr(self, name)
            if port is not None and not 0 <= port < 65536:
                raise ValueError(f"`{name}` must be in 0..65535. Received: {name}={port}. 0 takes a free one.")
        for name in ("max_batch_size", "max_body_mb", "max_concurrency"):
            value = getattr(self, name)
            if value <= 0:
                raise ValueError(f"`{name}` must be positive. Received: {name}={value}. Leave it out for the default.")
        if self.batch_timeout_ms < 0:
            raise ValueError(
                f"`batch_timeout_ms` must not be negative. Received: batch_timeout_ms={self.batch_timeout_ms}. "
                "0 lets no request wait."
            )

    @property
    def max_body(self) -> int:
        """The most bytes of one request."""
        return int(self.max_body_mb * 2**20)


class _RestServer(RESTServer):
    """kserve's server with an application of our own, at an address of its user's choice."""

    def __init__(self, app: FastAPI, dataplane: DataPlane, repository: ModelRepositoryExtension) -> None:
        super().__init__(app, dataplane, repository, http_port=0, grace_period=GRACE_SECONDS, event_loop="asyncio")

    async def listen(self, listener: socket.socket) -> None:
        """Serves until the process is asked to end; then finishes what was begun."""
        await self._server.serve(sockets=[listener])


def serve(model_dir: Path, options: ServerOptions, announce: Callable[[str], None]) -> None:
    """Serves a model until the process gets SIGTERM or SIGINT.

    Args:
        model_dir: what `tf_clip.export.saved_model` wrote: a folder of versions.
        options: how.
        announce: called with a line that says where, once requests are accepted.

    Raises:
        FileNotFoundError: when there is no version in the folder.
        ValueError: when an address cannot be listened at.
    """
    _configure_logging(options.log_level)
    if not model_dir.is_dir():
        raise FileNotFoundError(f"`MODEL_DIR` must be a folder. Received: {model_dir}. Check the path.")
    listener = _listener(options)
    with listener:
        # uvicorn ends gracefully, then raises the signal again; to have ended well is no failure.
        signal.signal(signal.SIGTERM, _end)
        versions = Versions(model_dir)
        asyncio.run(_run(versions, listener, options, announce))


async def _run(
    versions: Versions, listener: socket.socket, options: ServerOptions, announce: Callable[[str], None]
) -> None:
    batcher = Batcher(options.max_batch_size, options.batch_timeout_ms / 1000, THREADS)
    model = ServedModel(options.name, versions, batcher, options.max_batch_size)
    places = Places(options.max_concurrency)
    registry = ModelRepository()
    registry.update(model)
    dataplane, repository = DataPlane(registry), ModelRepositoryExtension(registry)
    app = application(dataplane, repository, model)
    app.add_middleware(RequestLimits, places=places, max_body=options.max_body)
    async with AsyncExitStack() as stack:
        stack.callback(batcher.close)
        addresses = [f"http://{_address(options.host, listener.getsockname()[1])}/"]
        if options.grpc_port is not None:
            server, port = grpc_server(model, places, options.host, options.grpc_port, options.max_body)
            await server.start()
            stack.push_async_callback(server.stop, GRACE_SECONDS)
            addresses.append(f"grpc {_address(options.host, port)}")
        watch = asyncio.create_task(versions.watch())
        stack.push_async_callback(_canceled, watch)
        announce(f"Serving {options.name} (version {versions.current.number}) at {' and '.join(addresses)}")
        await _RestServer(app, dataplane, repository).listen(listener)


def _end(*_: object) -> None:
    raise SystemExit(0)


async def _canceled(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


def _listener(options: ServerOptions) -> socket.socket:
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    try:
        listener = socket.create_server((options.host, options.port), family=family, backlog=2048)
    except OSError as error:
        raise ValueError(
            f"`port` must be free at `host`. Received: {_address(options.host, options.port)} ({error.strerror}). "
            "Choose another with --port, or 0 for any."
        ) from error
    # Accepted connections inherit it. asyncio sets it on sockets of its own making alone, and without it the body of
    # each answer waits some 40 ms for the client to acknowledge the headers.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _configure_logging(level: str) -> None:
    level = level.upper()
    # A line for each request, by uvicorn and by kserve, only when all is wanted.
    of_requests = level if level == "DEBUG" else "WARNING"
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(message)s"}},
            "handlers": {"errors": {"class": "logging.StreamHandler", "formatter": "line"}},
            "loggers": {
                name: {"handlers": ["errors"], "level": own_level, "propagate": False}
                for name, own_level in (
                    ("tf_clip.serving", level),
                    ("kserve", of_requests),
                    ("kserve.trace", of_requests),
                    ("uvicorn", of_requests),
                    ("tensorflow", "ERROR"),  # which would advise about its own calls
                )
            },
        }
    )
