"""`train`: Keras's `fit`, epoch by epoch, which resumes after a stop at any batch with the same result."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
import types
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol

import keras

from tf_clip.errors import require
from tf_clip.files import remove_unfinished
from tf_clip.training.resume import STATE_FILE, Progress, require_same_settings, restore_state, save_state


class Batches(Protocol):
    """What `train` asks of its data; `TrainingData` is it."""

    @property
    def steps_per_epoch(self) -> int:
        """How many batches an epoch has."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """What the batches depend on, as values that JSON can hold."""

    def dataset(self, epoch: int = 0, start: int = 0) -> Any:
        """Returns what `fit` takes: the batches of an epoch from `start` on, the same whenever it is asked."""


@dataclasses.dataclass(frozen=True)
class TrainingRun:
    """What `train` did.

    Args:
        finished: whether all epochs are done; False after Ctrl-C, SIGTERM or a callback that stopped it.
        progress: how far it came.
        state: the file that it goes on from.
    """

    finished: bool
    progress: Progress
    state: Path

    @property
    def history(self) -> list[dict[str, Any]]:
        """The metrics of each epoch done."""
        return self.progress.history


def train(
    model: Any,
    data: Batches,
    *,
    epochs: int,
    folder: str | os.PathLike[str],
    save_every: int = 500,
    resume: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    settings: Mapping[str, Any] | None = None,
) -> TrainingRun:
    """Trains with `fit`, saves the state of the run, and resumes a run that was stopped in the same folder.

    The state is the weights, the optimizer's state, random seeds and the position in the data. It is saved every
    `save_every` batches, after each epoch, and at Ctrl-C or SIGTERM. These end the run after the current batch; a
    second Ctrl-C ends it at once. A killed run repeats the batches since its last save, with the same result.

    Callbacks see one call of `fit` over all epochs. The logs of a batch are of that batch alone; those of an epoch are
    the mean over its batches. What callbacks remember themselves, as `EarlyStopping` does, is not saved.

    Args:
        model: a compiled model; `Recipe.compile` compiles one.
        data: the batches: a `TrainingData`.
        epochs: passes over the data, over all runs.
        folder: where `resume.safetensors` is written.
        save_every: batches from one save to the next.
        resume: resume the run in `folder`, or start one if there is none.
        callbacks: callbacks of Keras and of `tf_clip.training.callbacks`, called in this order.
        settings: what else must be the same in a resumed run, as values that JSON can hold; optimizer, epochs and
            the data's settings are always compared.

    Returns:
        How far the run came. Averaged weights are not put into the model: see `averaged_weights`.

    Raises:
        ValueError: an argument is out of range, the folder has a run and `resume` is False, or the run had
            other settings or another model.
        TooManySkipped: more of the data was unreadable than it allows.
        NonFiniteLossError: the loss became NaN or infinite and `StopAtNonFiniteLoss` is among the callbacks.

    Example:
        >>> recipe.compile(model, steps=10 * data.steps_per_epoch)  # doctest: +SKIP
        >>> train(model, data, epochs=10, folder="run", resume=True)  # doctest: +SKIP
    """
    _require_positive("epochs", epochs)
    _require_positive("save_every", save_every)
    _require_positive("data.steps_per_epoch", data.steps_per_epoch)
    state = Path(folder) / STATE_FILE
    settings = {**_settings_of(model, data, epochs), **(settings or {})}
    progress = Progress(settings=settings)
    remove_unfinished(state)
    if state.is_file():
        if not resume:
            raise ValueError(
                f"`folder` must not have a run in it. Received: folder={os.fspath(folder)!r}, which has {STATE_FILE}. "
                "Pass resume=True to go on with it, or another folder."
            )
        progress = restore_state(state, model)
        require_same_settings(progress, settings)
    raising = getattr(data, "raising", nullcontext)
    with _Interruption() as interruption, raising():
        loop = _Loop(model, data.steps_per_epoch, state, progress, save_every, list(callbacks), interruption)
        loop.begin()
        try:
            # One fit an epoch, since the data of each is another and only the first may begin in its middle.
            while loop.epoch < epochs and not loop.stopped:
                batches = data.dataset(epoch=loop.epoch, start=loop.batch)
                epoch = {"initial_epoch": loop.epoch, "epochs": loop.epoch + 1}
                model.fit(batches, **epoch, shuffle=False, callbacks=[loop], verbose=0)  # it is shuffled already
        finally:
            loop.end()
    return TrainingRun(finished=loop.epoch >= epochs, progress=loop.progress(), state=state)


def _settings_of(model: Any, data: Any, epochs: int) -> dict[str, Any]:
    return {
        "epochs": epochs,
        "steps_per_epoch": data.steps_per_epoch,
        "data": dict(data.settings),
        "optimizer": keras.optimizers.serialize(model.optimizer),
    }


class _Loop(keras.callbacks.Callback):
    """Counts and saves; calls the callbacks as if all epochs were one `fit`."""

    def __init__(
        self,
        model: Any,
        steps_per_epoch: int,
        state: Path,
        progress: Progress,
        save_every: int,
        callbacks: list[keras.callbacks.Callback],
        interruption: _Interruption,
    ) -> None:
        super().__init__()
        self.epoch, self.batch, self.step = progress.epoch, progress.batch, progress.step
        self.stopped = False
        self._sums, self._history, self._settings = dict(progress.sums), list(progress.history), progress.settings
        self._trained, self._steps_per_epoch, self._state = model, steps_per_epoch, state
        self._save_every, self._callbacks, self._interruption = save_every, callbacks, interruption

    def progress(self) -> Progress:
        """Says how far it is."""
        return Progress(self.epoch, self.batch, self.step, dict(self._sums), list(self._history), self._settings)

    def begin(self) -> None:
        """Tells the callbacks that training begins, and from where."""
        params = {"epochs": self._settings["epochs"], "steps": self._steps_per_epoch, "verbose": 0}
        for callback in self._callbacks:
            callback.set_model(self._trained)
            callback.set_params({**params, "progress": self.progress()})
            callback.on_train_begin()

    def end(self) -> None:
        """Tells the callbacks that training ends."""
        for callback in self._callbacks:
            callback.on_train_end()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        for callback in self._callbacks:
            callback.on_epoch_begin(epoch, logs)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        for callback in self._callbacks:
            callback.on_train_batch_begin(self.batch, logs)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        logs = dict(logs or {})
        # Keras's metrics are means since the epoch began; here they are of one batch, and summed up without rounding.
        self.model.reset_metrics()
        for name, value in logs.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value)
        for callback in self._callbacks:
            callback.on_train_batch_end(self.batch, logs)
        self.batch += 1
        self.step += 1
        if self.batch == self._steps_per_epoch:
            return  # saved when what follows an epoch is done
        if self._interruption.came or self.model.stop_training:
            self.stopped = self.model.stop_training = True
        if self.stopped or self.step % self._save_every == 0:
            self._save()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self.batch < self._steps_per_epoch:
            if not self.stopped:
                raise RuntimeError(
                    f"The data ended after batch {self.batch} of epoch {epoch + 1}, which should have "
                    f"{self._steps_per_epoch}. Look at what data.dataset({epoch}) gives."
                )
            return
        logs = {name: value / self.batch for name, value in self._sums.items()}
        for callback in self._callbacks:
            callback.on_epoch_end(epoch, logs)
        self._history.append({"epoch": epoch + 1, **{name: float(value) for name, value in logs.items()}})
        self.epoch, self.batch, self._sums = epoch + 1, 0, {}
        self.stopped = bool(self._interruption.came or self.model.stop_training)
        self._save()

    def _save(self) -> None:
        save_state(self._state, self.model, self.progress())


class _Interruption:
    """Notes Ctrl-C and SIGTERM while its block runs; only a second Ctrl-C ends the program."""

    def __init__(self) -> None:
        self.came = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Interruption:
        if threading.current_thread() is threading.main_thread():  # others may not, and get no signals
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: types.FrameType | None) -> None:
        if self.came and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.came = True


def _require_positive(name: str, value: int) -> None:
    require(isinstance(value, int) and value >= 1, name, "a whole number of at least 1", value, "Correct it.")
