"""`tf-clip train`: what it writes and prints, that it goes on after Ctrl-C, and what it refuses."""

import csv
import json
import re
import shlex
import shutil
import signal

import keras
import numpy as np
import pytest
from PIL import Image

from tf_clip import CLIPForImageClassification, CLIPModel, CLIPProcessor
from tf_clip.cli.main import main
from tf_clip.cli.train import RECIPES as OFFERED_RECIPES
from tf_clip.training.callbacks import TrainingLog
from tf_clip.training.recipes import RECIPES
from tf_clip.training.resume import read_progress

pytestmark = pytest.mark.command

COLORS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (20, 40, 230)}


def image(path, color, generator):
    noise = generator.integers(-20, 20, (24, 24, 3))
    Image.fromarray(np.uint8(np.clip(np.array(color) + noise, 0, 255))).save(path)


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """A CSV of 57 readable rows and 3 unreadable: no file, a file cut short, an empty caption."""
    folder = tmp_path_factory.mktemp("table")
    generator = np.random.default_rng(0)
    rows = []
    for index in range(57):
        name = list(COLORS)[index % 3]
        image(folder / f"{index}.png", COLORS[name], generator)
        rows.append((f"{index}.png", f"{name} {index}"))
    image(folder / "whole.jpg", COLORS["red"], generator)
    (folder / "short.jpg").write_bytes((folder / "whole.jpg").read_bytes()[:200])
    rows[5:5] = [("missing.png", "gone"), ("short.jpg", "cut"), ("0.png", "")]
    with (folder / "pairs.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("image", "caption"), *rows])
    return folder / "pairs.csv"


@pytest.fixture(scope="module")
def class_folders(tmp_path_factory):
    """Three classes of eight images that any model can tell apart."""
    folder = tmp_path_factory.mktemp("classes")
    generator = np.random.default_rng(0)
    for name, color in COLORS.items():
        (folder / name).mkdir()
        for index in range(8):
            image(folder / name / f"{index}.png", color, generator)
    return folder


@pytest.fixture
def run(small_checkpoint, capsys):
    """Runs the command; returns exit status, output, errors."""

    def call(*arguments, model=small_checkpoint):
        words = [] if model is None else ["--model", str(model)]
        status = main(["train", *map(str, arguments), *words])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


def log_of(folder):
    lines = map(json.loads, (folder / "log.jsonl").read_text().splitlines())
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


@pytest.mark.command
def test_a_table_with_unreadable_rows_trains_and_lists_them(run, table, small_checkpoint, tmp_path):
    out = tmp_path / "out"
    config = tmp_path / "options.toml"
    config.write_text('batch-size = 8\nepochs = 3\nlearning_rate = 3e-3\nvalidation-share = 0.2\nrecipe = "full"\n')
    status, output, errors = run("--data", table, "--output", out, "--config", config, "--epochs", 2)
    assert status == 1, "done, and rows were left out"
    for line, why in ((7, "does not exist"), (8, "cannot be decoded"), (9, "caption is empty")):
        assert re.search(rf"pairs.csv:{line}: .*{why}", errors), errors
    assert "3 unreadable examples were skipped" in errors
    header, first, second = (line.split("  ") for line in output.splitlines() if re.search(r"loss|^ +\d ", line))
    assert [cell.strip() for cell in header if cell.strip()][:4] == ["epoch", "loss", "accuracy", "val loss"]
    assert "i>t R@10" in " ".join(header)
    assert int(" ".join(first).split()[0]) == 1
    assert int(" ".join(second).split()[0]) == 2

    log = log_of(out)
    steps = [line for line in log if "step" in line]
    assert [line["step"] for line in steps] == list(range(1, len(steps) + 1))
    assert sum(line["epoch"] == 1 for line in steps) == len(steps) / 2
    assert set(steps[0]) == {"epoch", "batch", "step", "loss", "accuracy", "learning_rate", "logit_scale"}
    (row,) = (line for line in log if "step" not in line and line["epoch"] == 2)
    assert {"val_loss", "val_image_to_text_R@5", "val_text_to_image_R@1"} <= set(row)
    start, trained = CLIPModel.from_pretrained(small_checkpoint), CLIPModel.from_pretrained(out)
    assert any(np.any(a != b) for a, b in zip(start.get_weights(), trained.get_weights(), strict=True))
    assert CLIPProcessor.from_pretrained(out).tokenizer.model_max_length == 16

    status, _, errors = run("--data", table, "--output", out)
    assert (status, "--resume goes on with the run in it" in errors) == (2, True)
    status, _, errors = run("--output", out, "--resume", model=None)
    assert status == 1, errors
    assert log_of(out) == log
    status, _, errors = run("--output", out, "--resume", "--seed", 3, model=None)
    assert status == 2
    assert "`--resume` must come with" in errors and "--seed 3, where the run has 0" in errors
    status, _, errors = run(
        *("--data", table, "--output", out, "--overwrite", "--epochs", 1, "--batch-size", 8, "--validation-share", 0),
        *("--weight-decay", 0, "--warmup-steps", 0, "--clip-norm", 0),
    )
    assert status == 1, errors
    optimizer = read_progress(out / "resume.safetensors").settings["optimizer"]["config"]
    assert optimizer["weight_decay"] == 0 and optimizer["global_clipnorm"] is None
    assert optimizer["learning_rate"]["config"]["warmup_steps"] == 0
    assert [line for line in log_of(out) if "step" not in line and "val_loss" in line] == []


def test_every_recipe_is_offered():
    assert set(OFFERED_RECIPES) == {*RECIPES, "probe"}


@pytest.mark.command
def test_ctrl_c_saves_and_the_printed_command_goes_on(run, table, tmp_path, monkeypatch, capsys):
    def words(folder):
        yield from ("--data", table, "--output", tmp_path / folder, "--batch-size", 8, "--epochs", 3)
        yield from ("--recipe", "layerwise", "--ema", 0.9, "--validation-share", 0.2, "--learning-rate", 1e-3)

    status, _, errors = run(*words("whole"))
    assert status == 1, errors
    log_batch = TrainingLog.on_train_batch_end

    def then_ctrl_c(self, batch, logs=None):
        log_batch(self, batch, logs)
        if self._step == 9:
            signal.raise_signal(signal.SIGINT)

    keras.utils.clear_session()  # as in a new process, where Keras numbers names anew
    with monkeypatch.context() as patch:
        patch.setattr(TrainingLog, "on_train_batch_end", then_ctrl_c)
        status, output, errors = run(*words("stopped"))
    assert status == 130, output + errors
    assert "Stopped after batch 4 of epoch 2, and saved" in errors
    assert not (tmp_path / "stopped" / "model.safetensors").exists()
    (command,) = re.findall("^Go on with: tf-clip (.*)$", output, re.MULTILINE)
    assert log_of(tmp_path / "stopped") == log_of(tmp_path / "whole")[:10], "a line a batch, and one of epoch 1"
    keras.utils.clear_session()
    assert main(shlex.split(command)) == 1
    assert "3 unreadable examples" in capsys.readouterr().err
    assert log_of(tmp_path / "stopped") == log_of(tmp_path / "whole")
    models = [CLIPModel.from_pretrained(tmp_path / folder).get_weights() for folder in ("whole", "stopped")]
    for one, other in zip(*models, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.command
def test_folders_of_classes_are_evaluated_by_their_names(run, class_folders, small_checkpoint, tmp_path):
    out = tmp_path / "out"
    status, output, errors = run(
        *("--data", class_folders, "--output", out, "--recipe", "lit", "--epochs", 2, "--batch-size", 8),
        *("--validation-share", 0.25, "--loss", "softmax", "--label-smoothing", 0.1, "--encode-chunk-size", 4),
        *("--dtype", "mixed_bfloat16", "--accumulate", 2, "--clip-norm", 0, "--augment", "strong", "--flip"),
        *("--wise-ft", 0.5, "--tensorboard", tmp_path / "board", "--template", "a {} thing", "--ema", 0.5),
    )
    assert status == 0, errors
    assert "0-shot top1" in output
    assert list((tmp_path / "board").glob("events*"))
    start, mixed = CLIPModel.from_pretrained(small_checkpoint), CLIPModel.from_pretrained(out)
    for one, other in zip(start.image_encoder.get_weights(), mixed.image_encoder.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    pairs = zip(start.text_encoder.get_weights(), mixed.text_encoder.get_weights(), strict=True)
    assert any(np.abs(one - other).max() > 1e-5 for one, other in pairs)


@pytest.mark.command
def test_lora_writes_the_adapter_and_the_model_that_it_makes(run, class_folders, small_checkpoint, tmp_path):
    words = ["--data", class_folders, "--output", tmp_path / "out", "--recipe", "lora", "--adapter", "lora[r=2]"]
    status, _, errors = run(*words, "--epochs", 2, "--batch-size", 6, "--learning-rate", 1e-2)
    assert status == 0, errors
    start, tuned = CLIPModel.from_pretrained(small_checkpoint), CLIPModel.from_pretrained(tmp_path / "out")
    changed = {
        variable.path.split("/", 1)[1]
        for variable, before in zip(tuned.weights, start.get_weights(), strict=True)
        if np.abs(variable.numpy() - before).max() > 1e-6
    }
    assert changed and all(re.search("/(q|v)_proj/kernel$", path) for path in changed), changed
    start.load_adapter(tmp_path / "out" / "adapter", set_active=True)
    pixels = np.random.default_rng(0).normal(size=(2, *2 * [start.config.vision_config.image_size], 3))
    assert run("--output", tmp_path / "out", "--resume", model=None)[0] == 0
    again = CLIPModel.from_pretrained(tmp_path / "out")
    np.testing.assert_array_equal(again.get_image_features(pixels), tuned.get_image_features(pixels))
    np.testing.assert_allclose(start.get_image_features(pixels), tuned.get_image_features(pixels), atol=1e-5)


@pytest.mark.command
def test_nothing_is_not_the_default(run, table, tmp_path):
    """No weight decay and no warm-up were once taken for what the recipe says."""
    words = ["--data", table, "--output", tmp_path / "out", "--epochs", 1, "--batch-size", 8]
    assert run(*words, "--warmup-steps", 0, "--weight-decay", 0, "--learning-rate", 1e-3)[0] == 1
    first = next(line for line in log_of(tmp_path / "out") if "step" in line)
    assert first["learning_rate"] > 9e-4


@pytest.mark.command
def test_a_broken_validation_image_is_listed(run, class_folders, tmp_path):
    shutil.copytree(class_folders, tmp_path / "kept")
    (tmp_path / "kept" / "red" / "broken.png").write_bytes(b"broken")
    status, _, errors = run(
        *("--data", class_folders, "--validation-data", tmp_path / "kept", "--output", tmp_path / "out"),
        *("--epochs", 1, "--batch-size", 12),
    )
    assert status == 1, errors
    assert "1 unreadable examples were skipped" in errors and "broken.png" in errors


@pytest.mark.command
def test_a_probe_is_an_image_classifier(run, class_folders, tmp_path):
    out = tmp_path / "out"
    (class_folders / "red" / "broken.png").write_bytes(b"broken")
    status, output, errors = run(
        "--data", class_folders, "--output", out, "--recipe", "probe", "--validation-share", 0.25
    )
    (class_folders / "red" / "broken.png").unlink()
    assert status == 1
    assert "broken.png" in errors
    assert re.search(r"classes +3", output)
    classifier, processor = CLIPForImageClassification.from_pretrained(out), CLIPProcessor.from_pretrained(out)
    images = [class_folders / name / "3.png" for name in COLORS]
    logits = classifier.predict(processor(images=images, return_tensors="np")["pixel_values"], verbose=0)["logits"]
    assert [classifier.config.id2label[index] for index in logits.argmax(axis=1)] == list(COLORS)


@pytest.mark.command
def test_too_many_unreadable_rows_stop_with_the_list(run, table, tmp_path):
    status, _, errors = run("--data", table, "--output", tmp_path, "--max-skipped-share", 0.01, "--batch-size", 8)
    assert status == 2
    assert "`--max-skipped-share` must be at least" in errors
    assert "caption is empty" in errors


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--output", "{}"], "`--data` must be given"),
        (["--data", "x"], "`--output` must be given"),
        (["--output", "{}", "--resume"], "which has no train.toml"),
        (["--config", "{}/none.toml"], "`--config` must be an existing file"),
        (["--data", "x", "--output", "{}", "--recipe", "probe", "--epochs", "3"], "must not come with --epochs"),
        (["--data", "x", "--output", "{}", "--augment", "none", "--flip"], "`--flip` must not come with"),
        (["--data", "x", "--output", "{}", "--wise-ft", "2"], "`--wise-ft` must be from 0 to 1"),
        (["--data", "x", "--output", "{}", "--adapter", "lora"], "must come with `--recipe lora`"),
        (
            ["--data", "x", "--output", "{}", "--recipe", "lora", "--adapter", "seq_bn"],
            "must be one that can be merged",
        ),
        (["--data", "x.csv", "--output", "{}"], "must name existing files"),
        (["--data", "x", "--output", "{}", "--learning-rate", "0"], "`--learning-rate` must be above 0"),
        (["--data", "x", "--output", "{}", "--accumulate", "0"], "`--accumulate` must be at least 1"),
    ],
)
def test_wrong_calls_are_refused(run, tmp_path, words, message):
    status, _, errors = run(*(word.replace("{}", str(tmp_path)) for word in words))
    assert status == 2
    assert message in errors
