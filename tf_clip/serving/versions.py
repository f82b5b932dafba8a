"""The versions of a model in a folder: the one that answers, and the change to a newer one while requests run."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tf_clip.machine import return_freed_memory
from tf_clip.serving.errors import RequestError, shown
from tf_clip.serving.loaded_version import LoadedVersion

POLL_SECONDS = 1.0

log = logging.getLogger("tf_clip.serving")


class Versions:
    """The highest version in a folder, and older ones until their last request is answered.

    All methods belong to one event loop; only loading runs in a thread.

    Args:
        folder: with `1/saved_model.pb`, `2/saved_model.pb`, ...

    Raises:
        FileNotFoundError: when there is no version yet.
        ValueError: when it cannot be loaded.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        number = _highest(folder)
        if number is None:
            raise FileNotFoundError(
                f"`MODEL_DIR` must hold a folder named by a number, with saved_model.pb in it. Received: {folder}. "
                "Write one with tf-clip export saved-model."
            )
        try:
            self.current = _ready(folder / number)
        except Exception as error:  # TensorFlow raises many kinds
            raise ValueError(
                f"`MODEL_DIR` must hold a version that TensorFlow loads. Received: {folder / number} "
                f"({type(error).__name__}: {error}). Export it again."
            ) from error
        self._leaving: list[LoadedVersion] = []
        self._loading: str | None = None
        self._failed: tuple[str, object, str] | None = None

    @contextmanager
    def use(self, number: str | None = None) -> Iterator[LoadedVersion]:
        """Gives the version that answers a request, and keeps it loaded until the request is done.

        Args:
            number: the version asked for; None takes the current one.

        Raises:
            RequestError: 404, when another version than the current one is asked for.
        """
        version = self.current
        if number is not None and number != str(version.number):
            raise RequestError(404, f"the version must be {version.number}, received {shown(number)}")
        version.in_flight += 1
        try:
            yield version
        finally:
            version.in_flight -= 1
            self._drop_idle()

    async def watch(self) -> None:
        """Changes to every newer version that appears; never returns."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                await self.refresh()
            except OSError as error:  # files can be removed while they are read
                log.warning("the folder of versions cannot be read: %s", error)

    async def refresh(self) -> None:
        """Changes to the folder's highest version when that is not the current one.

        The new version is loaded and run once before it gets its first request. Until then, and when it cannot be
        loaded, the current one answers. A version that failed is tried again when its files have changed.
        """
        number = await asyncio.to_thread(_highest, self._folder)
        if number is None or int(number) == self.current.number:
            return
        state = await asyncio.to_thread(_state, self._folder / number)
        if self._failed and self._failed[:2] == (number, state):
            return
        self._loading = number
        try:
            version = await asyncio.to_thread(_ready, self._folder / number)
        except Exception as error:  # whatever it is, the current version goes on
            self._failed = (number, state, f"{type(error).__name__}: {error}"[:300])
            log.warning("version %s cannot be loaded, version %d goes on: %s", number, self.current.number, error)
            return
        finally:
            self._loading = None
        self._failed = None
        self._leaving.append(self.current)
        self.current = version
        log.info("version %d answers from now on", version.number)
        self._drop_idle()

    def states(self) -> list[dict[str, Any]]:
        """Returns the versions and their states in TensorFlow Serving's words, the newest first."""
        states = [_status(str(self.current.number), "AVAILABLE")]
        states += [_status(str(version.number), "UNLOADING") for version in self._leaving]
        if self._loading:
            states.append(_status(self._loading, "LOADING"))
        if self._failed:
            states.append(_status(self._failed[0], "END", "UNKNOWN", self._failed[2]))
        return sorted(states, key=lambda state: -int(state["version"]))

    def _drop_idle(self) -> None:
        idle = [version for version in self._leaving if not version.in_flight]
        self._leaving = [version for version in self._leaving if version.in_flight]
        for version in idle:
            version.close()
            log.info("version %d is unloaded", version.number)
        if idle:
            # Later: its last request may still hold it.
            loop = asyncio.get_running_loop()
            loop.call_later(POLL_SECONDS, loop.run_in_executor, None, _free_memory)


def _ready(folder: Path) -> LoadedVersion:
    version = LoadedVersion(folder)
    version.warm()
    _free_memory()
    return version


def _free_memory() -> None:
    """Returns memory to the system after a version was loaded or closed: about half of what the process holds."""
    gc.collect()  # a graph's objects refer to each other
    return_freed_memory()


def _highest(folder: Path) -> str | None:
    """Returns the name of the folder with the highest number that holds a SavedModel."""
    numbers = [path.parent.name for path in folder.glob("*/saved_model.pb")]
    return max((name for name in numbers if name.isascii() and name.isdigit()), key=int, default=None)


def _state(folder: Path) -> object:
    """Returns the names, sizes and times of all files in a folder."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in found]


def _status(number: str, state: str, code: str = "OK", message: str = "") -> dict[str, Any]:
    return {"version": number, "state": state, "status": {"error_code": code, "error_message": message}}
