"""Progress of `tf-clip train`: a bar, or lines where there is no terminal, and a table with a row for each epoch."""

from __future__ import annotations

import collections
import time
from collections.abc import Mapping
from typing import Any

import keras
from rich.progress import BarColumn, Progress, TextColumn

from tf_clip.cli import tables

_SECONDS_BETWEEN_LINES = 30.0
_STEPS_OF_SPEED = 20
_WIDTH = 9


class TrainingDisplay(keras.callbacks.Callback):  # type: ignore[misc]
    """Shows speed and time left on standard error, and the metrics of each epoch on standard output.

    Args:
        batch_size: pairs a batch.
    """

    def __init__(self, batch_size: int) -> None:
        super().__init__()
        self._batch_size = batch_size
        self._bar: Progress | None = None
        self._times: collections.deque[float] = collections.deque(maxlen=_STEPS_OF_SPEED + 1)
        self._columns: list[str] = []

    def on_train_begin(self, logs: Any = None) -> None:
        """Reads the numbers of epochs and steps."""
        self._epochs, self._steps = self.params["epochs"], self.params["steps"]
        self._done = self.params["progress"].batch
        self._last_line = time.monotonic()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Starts the bar."""
        self._epoch = epoch
        self._times.clear()
        self._times.append(time.monotonic())
        if tables.is_terminal():
            self._bar = Progress(
                TextColumn("epoch {task.description}"),
                BarColumn(),
                TextColumn("{task.completed}/{task.total} {task.fields[said]}"),
                console=tables.messages(),
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(f"{epoch + 1}/{self._epochs}", total=self._steps, said="")

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Advances the bar, or prints a line every half minute."""
        now = time.monotonic()
        self._times.append(now)
        self._done = batch + 1
        loss = float((logs or {})["loss"])
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, said=self._said(loss))
        elif now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            place = f"epoch {self._epoch + 1}/{self._epochs}, batch {self._done}/{self._steps}"
            tables.note(f"{place}, {self._said(loss)}")

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Adds a row to the table."""
        self._stop_bar()
        metrics = sorted((logs or {}).items(), key=lambda metric: metric[0] != "loss")  # the loss comes first
        values = {"epoch": f"{epoch + 1}", **{name: _short(name, value) for name, value in metrics}}
        names = [heading(name) for name in values]
        if names != self._columns:
            self._columns = names
            tables.print_cells(names, _WIDTH)
        tables.print_cells(list(values.values()), _WIDTH)
        self._done = 0

    def on_train_end(self, logs: Any = None) -> None:
        """Ends the bar, also after an interruption."""
        self._stop_bar()

    def _stop_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _said(self, loss: float) -> str:
        seconds = max((self._times[-1] - self._times[0]) / (len(self._times) - 1), 1e-9)
        left = round(seconds * ((self._epochs - self._epoch) * self._steps - self._done))
        clock = f"{left // 3600}:{left // 60 % 60:02}:{left % 60:02}"
        return f"loss {loss:.3f}, {self._batch_size / seconds:,.1f} pairs/s, {clock} left"


def heading(name: str) -> str:
    """Returns the heading of a metric's column."""
    directions = {
        "val_image_to_text_": "i>t ",
        "val_text_to_image_": "t>i ",
        "val_zero_shot_": "0-shot ",
        "val_": "val ",
    }
    for prefix, short in directions.items():
        if name.startswith(prefix):
            return short + name.removeprefix(prefix)
    return name


def _short(name: str, value: float) -> str:
    return f"{float(value):.4f}" if "loss" in name else f"{float(value):.3f}"
