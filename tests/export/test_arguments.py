"""Which arguments `saved_model` and `tf-clip export` refuse, and what they leave behind."""

import functools
import json
import sys

import keras
import pytest

import tf_clip
from tf_clip import CLIPFeatureExtractorTF, CLIPProcessor, CLIPTokenizer
from tf_clip.cli.main import main
from tf_clip.export.kit import write as kit
from tf_clip.export.savedmodel.folders import new_version


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"labels": ["a", "a"]}, ValueError, "`labels` must all differ. Received twice: a"),
        ({"labels": ["a", " "]}, ValueError, "`labels` must not be empty texts"),
        ({"labels": []}, ValueError, "`labels` must name at least one class"),
        ({"labels": "cat"}, TypeError, "`labels` and `templates` must be sequences of strings"),
        ({"labels": [1, 2]}, TypeError, "`labels` must be strings"),
        ({"labels": ["a"], "templates": "a {}"}, TypeError, "`labels` and `templates` must be sequences of strings"),
        ({"labels": ["a"], "templates": ["a photo"]}, ValueError, "`templates` must be prompts with {}"),
        ({"templates": ["a {}"]}, ValueError, "`templates` must come with `labels`"),
        ({"labels": ["a"], "top_k": 0}, ValueError, "`top_k` must be a whole number above 0"),
        ({"version": 0}, ValueError, "`version` must be a whole number above 0"),
        ({"version": "1"}, ValueError, "`version` must be a whole number above 0"),
        ({"dtype": "int8"}, ValueError, "`dtype` must be one of"),
        ({"on_bad_row": "skip"}, ValueError, "`on_bad_row` must be one of"),
        ({"max_pixels": 10**9}, ValueError, "`max_pixels` must be from 1 to 89478485"),
        ({"max_text_bytes": 0}, ValueError, "`max_text_bytes` must be from 1 to"),
        ({"model": "pictogram-clip"}, TypeError, "`model` must be a TwoTowerModel. Received: str"),
        ({"processor": None}, TypeError, "`processor` must be a Processor. Received: NoneType"),
    ],
)
def test_what_is_refused(small, tmp_path, arguments, error, message):
    model, processor = arguments.pop("model", small[0]), arguments.pop("processor", small[1])
    with pytest.raises(error, match=message):
        tf_clip.export.saved_model(model, processor, tmp_path, **arguments)
    assert list(tmp_path.iterdir()) == []


def tokenizer_like(tokenizer, vocabulary=None, **options):
    vocabulary = dict(tokenizer._vocabulary.symbols) if vocabulary is None else vocabulary
    return CLIPTokenizer(vocabulary, [], model_max_length=16, **options)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda images, text: (CLIPFeatureExtractorTF(size=24, crop_size=24), text), "20 x 20 pixels"),
        (lambda images, text: (CLIPFeatureExtractorTF(size=20, do_center_crop=False), text), "20 x 20 pixels"),
        (lambda images, text: (images, tokenizer_like(text, padding_side="left")), "pad on the right"),
        (lambda images, text: (images, tokenizer_like(text, clean="openai")), "run inside a graph"),
        (lambda images, text: (images, tokenizer_like(text, eos_token="!")), "end texts as the model reads them"),
        (
            lambda images, text: (images, tokenizer_like(text, {**text._vocabulary.symbols, "more": 514})),
            "use no ids that the model lacks",
        ),
    ],
)
def test_a_processor_of_another_model_is_refused(small, tmp_path, change, message):
    model, processor = small
    processor = CLIPProcessor(*change(processor.image_processor, processor.tokenizer))
    with pytest.raises(ValueError, match=f"`processor` must .*{message}"):
        tf_clip.export.saved_model(model, processor, tmp_path)


def test_weights_that_half_precision_cannot_hold_are_refused(tiny_model, tiny_processor, tmp_path):
    kernel = tiny_model.text_encoder.projection.kernel
    kernel.assign(kernel + 1e6)
    with pytest.raises(ValueError, match=r"`dtype` must .*float16.*text_projection/kernel has values that are not"):
        tf_clip.export.saved_model(tiny_model, tiny_processor, tmp_path, dtype="float16")
    assert list(tmp_path.iterdir()) == []


def test_another_backend_is_refused(small, tmp_path, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ValueError, match="Keras's backend must be tensorflow to write a SavedModel. Received: 'jax'"):
        tf_clip.export.saved_model(*small, tmp_path)


def test_a_version_is_not_replaced_unless_asked_for(tmp_path):
    (tmp_path / "1").mkdir()
    (tmp_path / "1" / "old").touch()
    with (
        pytest.raises(ValueError, match="`version` must be new. Received: version=1"),
        new_version(tmp_path, 1, overwrite=False),
    ):
        pass
    with new_version(tmp_path, 1, overwrite=True) as folder:
        (folder / "new").touch()
        assert (tmp_path / "1" / "old").exists()
    assert [path.name for path in (tmp_path / "1").iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["1"]


def test_a_server_never_sees_half_a_version(tmp_path):
    with new_version(tmp_path, 3, overwrite=False) as folder:
        (folder / "half").touch()
        assert [path.name[0] for path in tmp_path.iterdir()] == ["."]
    assert [path.name for path in tmp_path.iterdir()] == ["3"]


def test_what_lies_beside_a_version_is_there_before_it(tmp_path):
    with new_version(tmp_path, 3, overwrite=False) as folder:
        (folder.parent / "serving").mkdir()
        (folder.parent / "serving" / "README.md").write_text("new")
        (tmp_path / "serving").mkdir()
        (tmp_path / "serving" / "own.txt").touch()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["3", "serving"]
    assert sorted(path.name for path in (tmp_path / "serving").iterdir()) == ["README.md", "own.txt"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_fails_leaves_things_as_they_were(tmp_path, overwrite):
    if overwrite:
        (tmp_path / "3").mkdir()
        (tmp_path / "3" / "old").touch()
    with pytest.raises(RuntimeError, match="stop"), new_version(tmp_path, 3, overwrite=overwrite) as folder:
        (folder / "half").touch()
        raise RuntimeError("stop")
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] == ["3", "3/old"] * overwrite


@pytest.mark.command
def test_the_command_writes_what_the_function_writes(tiny_checkpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("tf_clip.cli.tables._output.width", 200, raising=False)
    labels = tmp_path / "labels.txt"
    labels.write_text("owl\nbus\n")
    command = ["export", "saved-model", str(tmp_path / "out"), "--model", str(tiny_checkpoint), "--version", "7"]
    options = ["--labels-file", str(labels), "--template", "a {}", "--dtype", "float16", "--name", "birds", "--no-kit"]
    assert main([*command, *options]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    for part in ("classify", "image_bytes string [?]", "probabilities float32 [?, 2]", "float16", "birds"):
        assert part in captured.out
    description = json.loads((tmp_path / "out" / "7" / "assets.extra" / "tf_clip.json").read_text())
    assert (description["labels"], description["templates"]) == (["owl", "bus"], ["a {}"])
    assert (description["dtype"], description["model"]) == ("float16", "birds")
    # Again, it is refused, and the model stays.
    assert main([*command, *options]) == 2
    assert "`--version` must be new" in capsys.readouterr().err
    assert (tmp_path / "out" / "7" / "saved_model.pb").exists()


@pytest.mark.command
def test_the_command_writes_the_serving_kit_with_the_version(tiny_checkpoint, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(kit, "serving_kit", functools.partial(kit.serving_kit, seconds=0.1, max_batch_size=2))
    out = tmp_path / "out"
    assert main(["export", "saved-model", str(out), "--model", str(tiny_checkpoint), "--name", "birds"]) == 0
    assert str(out / "serving" / "README.md").replace("\n", "") in capsys.readouterr().out.replace("\n", "")
    assert "/v1/models/birds" in (out / "serving" / "README.md").read_text()
    assert (out / "1" / "assets.extra" / "tf_serving_warmup_requests").stat().st_size > 0
    assert sorted(path.name for path in out.iterdir()) == ["1", "serving"]


@pytest.mark.command
def test_the_command_says_at_once_what_the_kit_lacks(tmp_path, capsys, monkeypatch):
    monkeypatch.delitem(sys.modules, "tf_clip.export.kit.write", raising=False)
    monkeypatch.delitem(sys.modules, "tf_clip.export.kit.warm_up", raising=False)
    monkeypatch.setitem(sys.modules, "tensorflow_serving", None)
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis", None)
    assert main(["export", "saved-model", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert "tf_clip[serving]" in message and "--no-kit" in message
    assert not (tmp_path / "out").exists()


@pytest.mark.command
def test_the_command_refuses_templates_without_labels(tmp_path, capsys):
    assert main(["export", "saved-model", str(tmp_path), "--template", "a {}"]) == 2
    assert "`--template` must come with `--labels`" in capsys.readouterr().err


def test_the_functions_are_found_by_their_names():
    assert "export" in tf_clip.__all__ and "saved_model" in dir(tf_clip.export)
    with pytest.raises(AttributeError, match="has no attribute 'onnx'"):
        _ = tf_clip.export.onnx
    assert all(callable(getattr(tf_clip.export, name)) for name in tf_clip.export.__all__)
