"""The process: loads the model, listens, watches for newer versions, and ends when all requests are answered."""

from __future__ import annotations

import asyncio
import logging
import logging.config
import re
import signal
import socket
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from tf_clip.machine import usable_cores
from tf_clip.serving.batching import Batcher
from tf_clip.serving.grpc_service import grpc_server
from tf_clip.serving.limits import ConcurrencyLimit
from tf_clip.serving.rest import application
from tf_clip.serving.served_model import ServedModel
from tf_clip.serving.versions import Versions

GRACE_SECONDS = 30  # for requests in flight when the process ends
KEEP_ALIVE_SECONDS = 65  # of an idle connection
# One run uses all cores where it multiplies, and one where it decodes images; several runs fill the gaps.
THREADS = min(4, usable_cores())


@dataclass(frozen=True)
class ServerOptions:
    """Addresses and limits of the local server.

    Args:
        name: the model's name in requests.
        host: the address to listen at; 127.0.0.1 is reached from this machine only.
        port: for REST and the page; 0 takes a free one.
        grpc_port: for gRPC; None is no gRPC, 0 takes a free one.
        max_batch_size: the most rows of one request, and of one batch.
        batch_timeout_ms: milliseconds that a request waits for others of its batch.
        max_body_mb: the most megabytes of one request.
        max_concurrency: the most requests at a time; others are refused with 503.
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


def serve(model_dir: Path, options: ServerOptions, announce: Callable[[str], None]) -> None:
    """Serves a model until the process gets SIGTERM or SIGINT.

    Args:
        model_dir: a folder of versions, as `tf_clip.export.saved_model` writes it.
        options: addresses and limits.
        announce: called with one line that has the addresses, once requests are accepted.

    Raises:
        FileNotFoundError: when there is no version in the folder.
        ValueError: when a version cannot be loaded, or an address is in use.
    """
    _configure_logging(options.log_level)
    if not model_dir.is_dir():
        raise FileNotFoundError(f"`MODEL_DIR` must be a folder. Received: {model_dir}. Check the path.")
    with _listener(options) as listener:
        # uvicorn ends gracefully, then raises the signal again; a graceful end is status 0.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, _end)
        asyncio.run(_run(Versions(model_dir), listener, options, announce))


async def _run(
    versions: Versions, listener: socket.socket, options: ServerOptions, announce: Callable[[str], None]
) -> None:
    batcher = Batcher(options.max_batch_size, options.batch_timeout_ms / 1000, THREADS)
    model = ServedModel(options.name, versions, batcher, options.max_batch_size)
    limit = ConcurrencyLimit(options.max_concurrency)
    config = uvicorn.Config(
        application(model, limit, options.max_body),
        log_config=None,
        timeout_graceful_shutdown=GRACE_SECONDS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
    )
    async with AsyncExitStack() as stack:
        stack.callback(batcher.close)
        addresses = [f"http://{_address(options.host, listener.getsockname()[1])}/"]
        if options.grpc_port is not None:
            server = grpc_server(model, limit, options.max_body)
            address = _address(options.host, options.grpc_port)
            try:
                port = server.add_insecure_port(address)
            except RuntimeError as error:
                raise _taken("grpc_port", address) from error
            await server.start()
            stack.push_async_callback(server.stop, GRACE_SECONDS)
            addresses.append(f"grpc {_address(options.host, port)}")
        watch = asyncio.create_task(versions.watch())
        stack.callback(watch.cancel)
        announce(f"Serving {options.name} (version {versions.current.number}) at {' and '.join(addresses)}")
        await uvicorn.Server(config).serve(sockets=[listener])


def _end(*_: object) -> None:
    raise SystemExit(0)


def _listener(options: ServerOptions) -> socket.socket:
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    try:
        listener = socket.create_server((options.host, options.port), family=family, backlog=2048)
    except OSError as error:
        raise _taken("port", f"{_address(options.host, options.port)} ({error.strerror})") from error
    # Accepted connections inherit it. asyncio sets it only on sockets that it makes itself. Without it the body of each
    # answer waits about 40 ms until the client acknowledges the headers.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _taken(argument: str, received: str) -> ValueError:
    option = f"--{argument.replace('_', '-')}"
    return ValueError(
        f"`{argument}` must be free at `host`. Received: {received}. Choose another with {option}, or 0 for any."
    )


def _configure_logging(level: str) -> None:
    level = level.upper()
    # uvicorn's line for each request is for debugging.
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
                    ("uvicorn", of_requests),
                    ("tensorflow", "ERROR"),  # it warns about functions that are used on purpose
                )
            },
        }
    )
