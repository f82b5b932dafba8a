"""What `litert` and `tf-clip export litert` refuse, and that nothing is left on disk when they do."""

import importlib.util
import json
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_clip
from helpers.lite_files import LABELS
from tf_clip import CLIPFeatureExtractorTF, CLIPModel, CLIPProcessor
from tf_clip.cli.main import main
from tf_clip.export.tflite import file as litert_file
from tf_clip.export.tflite import runtime as litert_runtime
from tf_clip.export.tflite import write as litert_write
from tf_clip.export.tflite.tower import RuntimeWeights


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"quantization": "int3"}, ValueError, "one of float32, float16, dynamic_int8, int4, int8. Received: .*int3"),
        ({"parts": ["images"]}, ValueError, "`parts` must be some of image, text, text_from_utf8, classify"),
        ({"parts": "image"}, ValueError, "`parts` must be some of"),
        ({"parts": []}, ValueError, "`parts` must be some of"),
        ({"parts": ["classify"]}, ValueError, "`labels` must be given for the part classify"),
        ({"parts": ["image"], "labels": ["a"]}, ValueError, "`labels` must be given for the part classify, and for it"),
        ({"labels": ["a", "a"]}, ValueError, "`labels` must all differ"),
        ({"labels": "cat"}, TypeError, "`labels` and `templates` must be sequences"),
        ({"templates": ["a {}"]}, ValueError, "`templates` must come with `labels`"),
        ({"text_lengths": [17]}, ValueError, "`text_lengths` must be whole numbers from 2 to 16"),
        ({"text_lengths": [1]}, ValueError, "`text_lengths` must be whole numbers from 2 to 16"),
        ({"max_text_bytes": 0, "parts": ["text_from_utf8"]}, ValueError, "`max_text_bytes` must be"),
        ({"max_text_bytes": 1921, "parts": ["text_from_utf8"]}, ValueError, "`max_text_bytes` must be"),
        ({"quantization": "int8", "parts": ["image"]}, ValueError, "`calibration_images` must be given"),
        ({"quantization": "int8", "parts": ["text"]}, ValueError, "`calibration_texts` must be given"),
        ({"model": "pictogram-clip"}, TypeError, "`model` must be a TwoTowerModel. Received: str"),
        ({"processor": None}, TypeError, "`processor` must be a Processor. Received: NoneType"),
    ],
)
def test_what_is_refused(small, tmp_path, arguments, error, message):
    arguments = dict(arguments)
    model, processor = arguments.pop("model", small[0]), arguments.pop("processor", small[1])
    with pytest.raises(error, match=message):
        tf_clip.export.litert(model, processor, tmp_path / "mobile", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_processor_that_does_not_fit_is_refused(small, tmp_path):
    model, processor = small
    for images, message in (
        (CLIPFeatureExtractorTF(size=24, crop_size=24), "20 x 20 pixels"),
        (CLIPFeatureExtractorTF(size=20, crop_size=20, resample=4), r"resize with .*Received: resample=4"),
    ):
        with pytest.raises(ValueError, match=f"`processor` must .*{message}"):
            tf_clip.export.litert(model, CLIPProcessor(images, processor.tokenizer), tmp_path / "mobile")
    assert list(tmp_path.iterdir()) == []


def test_another_backend_is_refused(small, tmp_path, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(ValueError, match=r"must be tensorflow to write .tflite files. Received: 'jax'"):
        tf_clip.export.litert(*small, tmp_path)


@pytest.mark.parametrize(("missing", "quantization"), [("ai_edge_litert", "float32"), ("ai_edge_quantizer", "int4")])
def test_a_missing_library_names_the_extra(small, tmp_path, monkeypatch, missing, quantization):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == missing else find(name))
    name = missing.replace("_", "-")
    with pytest.raises(
        ImportError, match=rf"{name}, which is not installed. Install the extra: pip .*tf_clip\[litert\]"
    ):
        tf_clip.export.litert(*small, tmp_path / "mobile", parts=["text"], quantization=quantization)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_answers_otherwise_is_never_there(small, tiny_config, tmp_path, monkeypatch):
    other = CLIPModel(tiny_config)
    monkeypatch.setattr(litert_write, "RuntimeWeights", lambda model, *rest: RuntimeWeights(other, *rest))
    with pytest.raises(
        ValueError, match="must answer as the model does. Received: text_embeds of the signature encode_"
    ):
        tf_clip.export.litert(*small, tmp_path / "mobile", parts=["text"])
    assert list(tmp_path.iterdir()) == []


def test_operations_that_are_not_built_in_and_lost_weights_are_found():
    for operations, message in ((["ADD", "CUSTOM FlexErf"], "CUSTOM FlexErf"), (["ADD", "VAR_HANDLE"], "VAR_HANDLE")):
        with pytest.raises(ValueError, match=message):
            litert_file.require_built_in(operations)
    litert_file.require_built_in(["ADD"])


def test_what_the_converter_cannot_do_is_told():
    function = tf.function(tf.strings.lower, input_signature=[tf.TensorSpec([1], tf.string, "input")])

    with pytest.raises(ValueError, match=r"`model` must be one that LiteRT's converter takes. Received: lower"):
        litert_file.converted({"lower": function}, SimpleNamespace(variables={}))


def test_files_are_not_replaced_unless_asked_for(small, tmp_path):
    old = tmp_path / "text_encoder.tflite"
    old.write_bytes(b"old")
    with pytest.raises(ValueError, match=r"`out` must hold none of the files to be written. Received: .*text_encoder"):
        tf_clip.export.litert(*small, tmp_path, parts=["text"])
    assert old.read_bytes() == b"old"
    tf_clip.export.litert(*small, tmp_path, parts=["text"], text_lengths=[], overwrite=True)
    assert litert_runtime.description_of(old.read_bytes())["part"] == "text"
    assert [path.name for path in tmp_path.iterdir()] == [old.name]


@pytest.mark.command
def test_the_command_line(tiny_checkpoint, tmp_path, capsys):
    out = tmp_path / "mobile"
    common = ["export", "litert", str(out), "--model", str(tiny_checkpoint), "--parts", "text", "--text-lengths", "8"]
    assert main([*common, "--quantization", "dynamic_int8", "--json"]) == 0
    written = json.loads(capsys.readouterr().out)["files"]["text"]
    assert written["bytes"] == (out / "text_encoder.tflite").stat().st_size
    assert list(written["signatures"]) == ["encode_ids_8", "encode_ids_16"]
    assert main(common) == 2
    assert "`OUT` must hold none of the files" in capsys.readouterr().err
    assert main([*common, "--overwrite", "--text-lengths", "a"]) == 2
    assert "`--text-lengths` must be whole numbers" in capsys.readouterr().err
    assert main([*common, "--overwrite", "--report", "examples/images"]) == 2
    assert "`--report` must come with `--labels`" in capsys.readouterr().err
    assert main([*common, "--overwrite", "--labels", ",".join(LABELS)]) == 2
    assert "`--labels` must be given for the part classify" in capsys.readouterr().err
    assert np.isfinite(written["bytes"])
