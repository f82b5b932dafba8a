"""`train`: a run that was stopped, killed or interrupted goes on as if it was not; what cannot go on is refused."""

import json
import os
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest

from helpers import environment
from helpers.batches import FixedBatches
from tf_clip import CLIPModel
from tf_clip.training.callbacks import NonFiniteLossError, StopAtNonFiniteLoss, TrainingLog
from tf_clip.training.recipes import full
from tf_clip.training.resume import read_progress
from tf_clip.training.trainer import train

EPOCHS = 3


@pytest.fixture(scope="module")
def make_model(small_config):
    """Makes models with equal weights."""
    first = CLIPModel(small_config)

    def make(epochs=EPOCHS, run_eagerly=True, **changes):
        model = CLIPModel(small_config)
        model.set_weights(first.get_weights())
        recipe = full(**{"learning_rate": 1e-3, "warmup_steps": 2, **changes})
        recipe.compile(model, steps=epochs * 6, run_eagerly=run_eagerly)  # a graph takes longer to make than to use
        return model

    return make


@pytest.fixture(scope="module")
def whole_history(make_model, random_pairs, tmp_path_factory):
    """What a run says that nothing interrupts."""
    return train(
        make_model(), FixedBatches(random_pairs, 4), epochs=EPOCHS, folder=tmp_path_factory.mktemp("w")
    ).history


def losses_of(folder):
    lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [(line.get("step", f"epoch {line['epoch']}"), line["loss"], line["accuracy"]) for line in lines]


@pytest.mark.process
def test_a_killed_run_goes_on_as_if_it_was_not(tiny_checkpoint, random_pairs, tmp_path):
    np.savez(tmp_path / "pairs.npz", **random_pairs)

    def run(folder, kill_after):
        words = [tiny_checkpoint, tmp_path / "pairs.npz", tmp_path / folder, kill_after]
        command = [sys.executable, "-m", "helpers.run_until_killed", *map(str, words)]
        return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=900)

    whole = run("whole", 0)
    assert whole.returncode == 0, whole.stderr
    assert whole.stdout.split() == ["finished", "True", "seeds", "5"]
    assert run("killed", 9).returncode == -signal.SIGKILL
    progress = read_progress(tmp_path / "killed" / "resume.safetensors")
    assert (progress.epoch, progress.batch, progress.step) == (1, 2, 8)
    assert len((tmp_path / "killed" / "log.jsonl").read_text().splitlines()) == 9 + 1
    again = run("killed", 0)
    assert again.returncode == 0, again.stderr

    expected = losses_of(tmp_path / "whole")
    assert [step for step, *_ in expected] == [
        *range(1, 7), "epoch 1", *range(7, 13), "epoch 2", *range(13, 19), "epoch 3"
    ]  # fmt: skip
    assert losses_of(tmp_path / "killed") == expected
    with np.load(tmp_path / "whole" / "weights.npz") as one, np.load(tmp_path / "killed" / "weights.npz") as other:
        assert len(one.files) == len(other.files) > 200
        for name in one.files:
            np.testing.assert_array_equal(one[name], other[name])


def test_it_trains_as_fit_does(make_model, batches, tmp_path):
    model, reference = make_model(run_eagerly=False), make_model(run_eagerly=False)
    run = train(model, batches, epochs=EPOCHS, folder=tmp_path)
    expected = [
        reference.fit(batches.dataset(epoch), initial_epoch=epoch, epochs=epoch + 1, verbose=0).history
        for epoch in range(EPOCHS)
    ]
    assert run.finished
    for row, history in zip(run.history, expected, strict=True):
        assert row["loss"] == pytest.approx(history["loss"][0], rel=1e-5)
        assert row["accuracy"] == pytest.approx(history["accuracy"][0], rel=1e-5)
    for one, other in zip(model.get_weights(), reference.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


class Interrupt(keras.callbacks.Callback):
    def __init__(self, number, step):
        super().__init__()
        self.number, self.step, self.seen = number, step, []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(batch)
        if len(self.seen) == self.step:
            os.kill(os.getpid(), self.number)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "step"), [(signal.SIGINT, 1), (signal.SIGTERM, 6), (signal.SIGINT, 9)])
def test_signals_save_and_end_the_run(make_model, whole_history, batches, tmp_path, number, step):
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    interrupt = Interrupt(number, step)
    run = train(make_model(), batches, epochs=EPOCHS, folder=tmp_path / "run", callbacks=[interrupt])
    assert not run.finished
    assert run.progress.step == step == len(interrupt.seen)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    batches.asked.clear()
    again = train(make_model(), batches, epochs=EPOCHS, folder=tmp_path / "run", resume=True)
    assert batches.asked[0] == divmod(step, 6)
    assert again.finished
    assert again.history == whole_history


def test_a_second_ctrl_c_ends_at_once(make_model, batches, tmp_path):
    class Twice(Interrupt):
        def on_train_batch_end(self, batch, logs=None):
            for _ in range(2):
                os.kill(os.getpid(), self.number)

    with pytest.raises(KeyboardInterrupt):
        train(make_model(), batches, epochs=1, folder=tmp_path, callbacks=[Twice(signal.SIGINT, 1)])


@pytest.mark.slow
def test_callbacks_see_one_fit(make_model, batches, tmp_path):
    class Notes(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.notes = []

        def on_train_begin(self, logs=None):
            self.notes.append("begin")

        def on_train_end(self, logs=None):
            self.notes.append("end")

        def on_epoch_begin(self, epoch, logs=None):
            self.notes.append(epoch)

        def on_epoch_end(self, epoch, logs=None):
            logs["added"] = 7.0

        def on_train_batch_begin(self, batch, logs=None):
            assert batch == self.before

        def on_train_batch_end(self, batch, logs=None):
            self.before = batch + 1

        before = 2

    model = make_model()
    stopped = train(model, batches, epochs=2, folder=tmp_path, callbacks=[Interrupt(signal.SIGINT, 2)])
    assert stopped.progress.batch == 2

    class StartOver(Notes):
        def on_epoch_end(self, epoch, logs=None):
            super().on_epoch_end(epoch, logs)
            self.before = 0

    notes = StartOver()
    run = train(model, batches, epochs=2, folder=tmp_path, resume=True, callbacks=[notes])
    assert notes.notes == ["begin", 0, 1, "end"]
    assert [row["added"] for row in run.history] == [7.0, 7.0]


def test_early_stopping_works(make_model, batches, tmp_path):
    stop = keras.callbacks.EarlyStopping("loss", patience=1, mode="max")  # the loss falls, so that nothing gets better
    run = train(make_model(epochs=50), batches, epochs=50, folder=tmp_path, callbacks=[stop])
    assert not run.finished
    assert len(run.history) < 10


@pytest.mark.slow
def test_another_run_is_neither_overwritten_nor_gone_on_with(make_model, batches, random_pairs, tmp_path):
    train(make_model(), batches, epochs=EPOCHS, folder=tmp_path, callbacks=[Interrupt(signal.SIGINT, 3)])
    with pytest.raises(ValueError, match="`folder` must not have a run in it"):
        train(make_model(), batches, epochs=EPOCHS, folder=tmp_path)
    with pytest.raises(ValueError, match="epochs was 3, is 4"):
        train(make_model(), batches, epochs=4, folder=tmp_path, resume=True)
    with pytest.raises(ValueError, match="data was .*'seed': 0.*, is .*'seed': 1"):
        other = FixedBatches(random_pairs, batch_size=4, seed=1)
        train(make_model(), other, epochs=EPOCHS, folder=tmp_path, resume=True)
    with pytest.raises(ValueError, match=r"optimizer was .*0\.001.*, is .*0\.002"):
        train(make_model(learning_rate=2e-3), batches, epochs=EPOCHS, folder=tmp_path, resume=True)
    with pytest.raises(ValueError, match="`model` must be what .* was written for"):
        train(make_model(ema_momentum=0.9), batches, epochs=EPOCHS, folder=tmp_path, resume=True)


def test_files_that_are_no_run_are_refused(make_model, batches, tmp_path):
    (tmp_path / "resume.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(ValueError, match="must be a file that a training run wrote"):
        train(make_model(), batches, epochs=EPOCHS, folder=tmp_path, resume=True)
    with pytest.raises(FileNotFoundError, match="must be a file that a training run wrote"):
        read_progress(tmp_path / "nothing")


def test_data_that_ends_early_is_an_error(make_model, batches, tmp_path):
    batches.steps_per_epoch += 1
    with pytest.raises(RuntimeError, match="The data ended after batch 6 of epoch 1"):
        train(make_model(), batches, epochs=EPOCHS, folder=tmp_path)


@pytest.mark.parametrize("name", ["epochs", "save_every"])
def test_counts_are_positive(make_model, batches, tmp_path, name):
    with pytest.raises(ValueError, match=f"`{name}` must be a whole number of at least 1"):
        train(make_model(), batches, **{"epochs": 1, "folder": tmp_path, name: 0})


def test_nan_stops_the_run_and_its_batch_is_saved(make_model, random_pairs, tmp_path):
    pairs = {name: values.copy() for name, values in random_pairs.items()}
    pairs["pixel_values"][13, 3, 4, 1] = np.nan
    data = FixedBatches(pairs, batch_size=4)
    stop, log = StopAtNonFiniteLoss(tmp_path, data), TrainingLog(tmp_path / "log.jsonl")
    with pytest.raises(NonFiniteLossError, match=r"epoch 1; the batch, .*, are in .*\.npz") as caught:
        train(make_model(), data, epochs=EPOCHS, folder=tmp_path, save_every=1, callbacks=[log, stop])
    (path,) = tmp_path.glob("*.npz")
    assert str(path) in str(caught.value)
    with np.load(path) as saved:
        assert np.isnan(saved["pixel_values"]).sum() == 1
        assert not np.isnan(saved["previous_pixel_values"]).any()
        assert (saved["input_ids"] == pairs["input_ids"][13]).all(axis=1).any()
    *before, last = losses_of(tmp_path)
    assert np.isnan(last[1])
    assert all(np.isfinite(loss) for _, loss, _ in before)
    # What is there to resume from is sound.
    assert read_progress(tmp_path / "resume.safetensors").step == len(before)
