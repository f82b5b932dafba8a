"""The command line's arguments: help without TensorFlow, the names in its errors, and the TOML files of `train`."""

import argparse
import json
import subprocess
import sys

import pytest

from helpers import ROOT
from tf_clip.cli import main as command_line
from tf_clip.cli.inputs import image_paths, labels_of, lines
from tf_clip.cli.train import with_files
from tf_clip.cli.train_options import as_toml, require_same_run, run_options
from tf_clip.cli.typed_names import with_typed_names


def parse(*words):
    return command_line._parser().parse_args([*map(str, words)])


@pytest.mark.process
def test_arguments_are_parsed_without_a_library():
    code = (
        "import json, sys; from tf_clip.cli.main import main, _parser\n"
        "_parser().parse_args(['train', '--data', 'x', '--output', 'y'])\n"
        "try: main(['classify', '--help'])\n"
        "except SystemExit: pass\n"
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "choose" not in done.stderr and "--labels-file" in done.stdout
    assert not {"tensorflow", "keras", "numpy", "rich", "PIL"} & set(json.loads(done.stdout.splitlines()[-1]))


def test_every_command_is_listed_and_has_help(capsys):
    names = [command.__name__.rpartition(".")[2] for command in command_line.COMMANDS]
    with pytest.raises(SystemExit):
        parse("--help")
    listed = capsys.readouterr().out
    for name in names:
        assert f"    {name}" in listed
        with pytest.raises(SystemExit) as stopped:
            parse(name, "--help")
        assert stopped.value.code == 0
        assert f"usage: tf-clip {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["classify", "x.png"], "one of the arguments --labels --labels-file is required"),
        (["classify", "x.png", "--labels", "a", "--top", "0"], "must be a positive whole number, received '0'"),
        (["embed", "x.png"], "one of the arguments --out --output is required"),
        (["bench", "--work", "smell"], "invalid choice: 'smell'"),
        (["train", "--epoch", "3"], "unrecognized arguments: --epoch 3"),
        (["fly"], "invalid choice: 'fly'"),
    ],
)
def test_unusable_arguments_end_with_status_2(words, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        command_line.main(words)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message", "shown"),
    [
        (
            ["train", "--learning-rate", "0"],
            "`learning_rate` must be above 0. Received: learning_rate=0.0. Raise it.",
            "`--learning-rate` must be above 0. Received: --learning-rate 0.0. Raise it.",
        ),
        (
            ["train", "--accumulate", "0"],
            "`gradient_accumulation_steps` must be 1. Received: gradient_accumulation_steps=0.",
            "`--accumulate` must be 1. Received: --accumulate 0.",
        ),
        (["classify", "a.png", "--labels", "a"], "`labels` must differ.", "`--labels` must differ."),
        (["classify", "a.png", "--labels-file", "a"], "`labels` must differ.", "`--labels-file` must differ."),
        (["info", "--model", "x"], "`name_or_path` must be a name.", "`--model` must be a name."),
        (["convert", "x", "y", "--to", "hf"], "`name_or_path` must be a name.", "`SRC` must be a name."),
        (
            ["evaluate", "retrieval", "x", "--output", "y"],
            "`source` must be a table. Received: source='x'.",
            "`DATA` must be a table. Received: 'x'.",
        ),
        (["models"], "`engine` is named images=3 in x.png.", "`engine` is named images=3 in x.png."),
    ],
)
def test_errors_name_what_was_typed(words, message, shown):
    assert with_typed_names(message, parse(*words)) == shown


def test_an_error_before_the_arguments_are_read_stays_as_it_is():
    assert with_typed_names("`images` must exist.", argparse.Namespace(parser=None)) == "`images` must exist."


def test_folders_stand_for_the_images_in_them(tmp_path):
    for name in ("b.JPG", "a.png", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()
    assert image_paths([tmp_path / "x", tmp_path]) == [tmp_path / name for name in ("x", "a.png", "b.JPG")]
    with pytest.raises(ValueError, match="a folder without any"):
        image_paths([tmp_path / "empty"])


def test_lines_of_files(tmp_path):
    path = tmp_path / "labels.txt"
    path.write_bytes("\ufeff a cat \n\n ein Bär\r\n".encode())
    assert lines(path, "--labels-file") == ["a cat", "ein Bär"]
    assert labels_of(parse("classify", "x", "--labels-file", path)) == ["a cat", "ein Bär"]
    assert labels_of(parse("classify", "x", "--labels", "a, b ,")) == ["a", "b", ""]
    path.write_bytes(b"\xff")
    with pytest.raises(ValueError, match="`--labels-file` must be a UTF-8 text file"):
        lines(path, "--labels-file")
    with pytest.raises(FileNotFoundError, match="`--texts-file` must be an existing file"):
        lines(tmp_path / "none", "--texts-file")


def test_a_run_is_resumed_with_the_options_it_was_started_with(tmp_path):
    words = ["--data", "x", "--output", str(tmp_path), "--caption-column", "a", "--caption-column", "b", "--flip"]
    started = run_options(parse("train", *words, "--epochs", "2", "--save-every", "7"))
    (tmp_path / "train.toml").write_text(as_toml(started), encoding="utf-8")
    resumed = run_options(parse("train", *with_files(["--output", str(tmp_path), "--resume"])))
    assert resumed == started
    require_same_run(resumed, tmp_path)
    same = ["--output", str(tmp_path), "--resume", "--loss", "softmax", "--save-every", "9", "--tensorboard", "board"]
    require_same_run(run_options(parse("train", *with_files(same))), tmp_path)
    other = ["--output", str(tmp_path), "--resume", "--epochs", "5", "--ema", "0.9"]
    with pytest.raises(ValueError) as refused:
        require_same_run(run_options(parse("train", *with_files(other))), tmp_path)
    assert "Received: --ema 0.9, where the run has none; --epochs 5, where the run has 2." in str(refused.value)


def test_typed_options_win_over_the_file(tmp_path):
    config = tmp_path / "options.toml"
    config.write_text('batch-size = 8\nepochs = 3\nrecipe = "lit"\ngradient_checkpointing = false\n')
    options = parse("train", *with_files(["--config", str(config), "--epochs", "2"]))
    assert (options.batch_size, options.epochs, options.recipe) == (8, 2, "lit")
    assert options.gradient_checkpointing is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning_rat = 1", "'learning_rat' in .*Did you mean learning-rate"),
        ("epochs = [[1]]", "`epochs` must be text, a number or a list of them"),
        ("epochs = ", "`--config` must be a TOML file"),
        ("resume = true", "'resume' in"),
        ("epochs = false", "`epochs` must be a value"),
    ],
)
def test_files_that_are_no_options_are_refused(tmp_path, text, message):
    (tmp_path / "options.toml").write_text(text)
    with pytest.raises(ValueError, match=message):
        with_files(["--config", str(tmp_path / "options.toml")])
