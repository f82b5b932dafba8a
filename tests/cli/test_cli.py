"""The commands on images and checkpoints, run whole: what they print, what they write, and how they fail."""

import json
import os
import re
import subprocess
import sys
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image

from tf_clip.cli.main import main

pytestmark = [pytest.mark.command, pytest.mark.usefixtures("wide_terminal")]


@pytest.fixture
def wide_terminal(monkeypatch):
    monkeypatch.setattr("tf_clip.cli.tables._output.width", 200, raising=False)


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for name in ("a.png", "b.jpg"):
        Image.fromarray(generator.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(folder / name)
    (folder / "notes.txt").write_text("not looked at")
    return folder


@pytest.fixture
def run(tiny_checkpoint, capsys):
    """Runs a command on the tiny checkpoint; returns exit status, output, errors."""

    def call(command, *arguments, model=tiny_checkpoint):
        status = main([command, *map(str, arguments), "--model", str(model)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return call


def test_classify_as_json(run, images):
    status, out, err = run("classify", images, "--labels", "a cat, a dog,a tree", "--top", 2, "--json")
    result = json.loads(out)
    assert status == 0
    assert [row["image"] for row in result["images"]] == [str(images / "a.png"), str(images / "b.jpg")]
    assert result["skipped"] == []
    for row in result["images"]:
        (first, high), (second, low) = row["scores"]
        assert {first, second} < {"a cat", "a dog", "a tree"}
        assert 1.0 > high >= low > 0.0


def test_classify_agrees_with_the_model(run, images, tiny_checkpoint):
    import tensorflow as tf

    from tf_clip import CLIPModel, CLIPProcessor

    labels = ["a cat", "a dog"]
    _, out, _ = run("classify", images / "a.png", "--labels", ",".join(labels), "--template", "a photo of {}", "--json")
    model, processor = CLIPModel.from_pretrained(tiny_checkpoint), CLIPProcessor.from_pretrained(tiny_checkpoint)
    inputs = processor(text=[f"a photo of {label}" for label in labels], images=images / "a.png")
    expected = tf.nn.softmax(model(**inputs).logits_per_image, axis=1)[0]
    scores = dict(json.loads(out)["images"][0]["scores"])
    np.testing.assert_allclose([scores[label] for label in labels], expected, atol=1e-5)


def test_classify_as_a_table_and_a_page(run, images, tmp_path):
    labels = tmp_path / "labels.txt"
    labels.write_text("cat\n\n<script>alert(1)</script>\n[red]dog[/red]\n")
    page = tmp_path / "page.html"
    status, out, _ = run("classify", images, "--labels-file", labels, "--html", page)
    assert status == 0
    assert "a.png" in out
    assert "[red]dog[/red]" in out
    assert re.search(r"0\.\d{3}  [█▏▎▍▌▋▊▉]+", out)
    assert str(page) in out.replace("\n", "")
    html = page.read_text()
    assert html.count("<img ") == 2
    assert html.count("data:image/png;base64,") == 2
    assert "<script>" not in html
    assert "&lt;script&gt;" in html


@pytest.mark.parametrize("count", [2, 70])
def test_a_checkpoint_is_resolved_and_opened_once(run, images, monkeypatch, count):
    from tf_clip.checkpoints import hub, source

    resolve = Mock(wraps=hub.resolve)
    read = Mock(wraps=source.read_safetensors_file)
    monkeypatch.setattr(hub, "resolve", resolve)
    monkeypatch.setattr(source, "read_safetensors_file", read)
    labels = ",".join(f"label {index}" for index in range(count))
    assert run("classify", images, "--labels", labels)[0] == 0
    assert (resolve.call_count, read.call_count) == (1, 1)


def test_similarity_ranks_images(run, images):
    status, out, _ = run("similarity", images, "--text", "a cat", "--text", "a dog", "--json")
    rows = json.loads(out)["texts"]
    assert status == 0
    assert [row["text"] for row in rows] == ["a cat", "a dog"]
    for row in rows:
        scores = [score for _, score in row["scores"]]
        assert scores == sorted(scores, reverse=True)
        assert all(-1.0 <= score <= 1.0 for score in scores)


def test_many_texts_are_embedded_by_a_compiled_model(run, tmp_path, tiny_checkpoint, monkeypatch):
    from tf_clip import CLIPModel, CLIPProcessor, embed_texts, inference

    compiled = []

    def noted(*arguments, **options):
        compiled.append(options["engine"])
        return compile_for_inference(*arguments, **options)

    compile_for_inference = inference.compile_for_inference
    monkeypatch.setattr(inference, "compile_for_inference", noted)
    texts = [f"text {index}" for index in range(70)]
    (tmp_path / "texts.txt").write_text("\n".join(texts))
    assert run("embed", "--texts-file", tmp_path / "texts.txt", "--out", tmp_path / "many.npz")[0] == 0
    assert run("embed", "--text", "one", "--out", tmp_path / "one.npz")[0] == 0
    assert compiled == ["tensorflow"]
    model, processor = CLIPModel.from_pretrained(tiny_checkpoint), CLIPProcessor.from_pretrained(tiny_checkpoint)
    expected = embed_texts(model, processor, texts)
    np.testing.assert_allclose(np.load(tmp_path / "many.npz")["text_embeds"], expected, atol=1e-5)


def test_embed_writes_both_kinds(run, images, tmp_path):
    out_file = tmp_path / "embeds.npz"
    status, out, _ = run("embed", images, "--text", "a cat", "--out", out_file)
    arrays = np.load(out_file)
    assert status == 0
    assert str(out_file) in out.replace("\n", "")
    assert arrays["image_embeds"].shape == (2, 28)
    assert arrays["text_embeds"].shape == (1, 28)
    assert arrays["texts"].tolist() == ["a cat"]
    np.testing.assert_allclose(np.linalg.norm(arrays["image_embeds"], axis=1), 1.0, atol=1e-5)


def test_info_says_what_it_is(run):
    _, out, _ = run("info", "--json")
    facts = json.loads(out)
    assert facts["embedding width"] == 28
    assert "3 layers of 32, quick_gelu, 20 px in patches of 5" in facts["image encoder"]
    assert facts["format"] == "safetensors"
    assert facts["odd"] == []
    assert facts["GFLOPs per text of 16"] == 0.0003208
    assert facts["temperature"] == "logits are cosine similarities x 14.28"


def test_info_says_what_is_odd(run, tiny_checkpoint, tiny_model):
    tiny_model.save_pretrained(tiny_checkpoint, dtype="float16")
    config = json.loads((tiny_checkpoint / "config.json").read_text())
    config["text_config"]["eos_token_id"] = 2
    config["text_config"]["num_hidden_layers"] = 1
    (tiny_checkpoint / "config.json").write_text(json.dumps(config))
    odd = json.loads(run("info", "--json")[1])["odd"]
    assert odd[0] == "weights are stored as float16"
    assert odd[1].startswith("eos_token_id is 2")
    assert odd[2].startswith("the files hold") and odd[2].endswith("it will not load")
    assert "weights are stored as float16; eos_token_id is 2" in run("info")[1]


@pytest.mark.parametrize("form", ["hf", "openclip"])
def test_convert_and_use(run, capsys, tiny_checkpoint, tmp_path, form):
    assert main(["convert", str(tiny_checkpoint), str(tmp_path / "there"), "--to", form]) == 0
    capsys.readouterr()
    facts = json.loads(run("info", "--json", model=tmp_path / "there")[1])
    assert facts["parameters"] == json.loads(run("info", "--json")[1])["parameters"]
    assert facts["preprocessing"].startswith("to 20x20 px")
    from tf_clip import CLIPModel

    ours, theirs = (CLIPModel.from_pretrained(tmp_path / name) for name in ("there", tiny_checkpoint.name))
    for mine, other in zip(ours.get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, other)
    capsys.readouterr()
    assert main(["convert", str(tiny_checkpoint), str(tmp_path / "there"), "--to", form]) == 2
    assert "`DST` must be new or an empty folder" in capsys.readouterr().err


def test_convert_to_keras_and_from_a_tower(capsys, tiny_checkpoint, tiny_model, tmp_path):
    import keras

    assert main(["convert", str(tiny_checkpoint), str(tmp_path / "x.keras"), "--to", "keras"]) == 0
    assert keras.saving.load_model(tmp_path / "x.keras").count_params() == tiny_model.count_params()
    assert main(["convert", str(tiny_checkpoint), str(tmp_path / "y"), "--to", "keras"]) == 2
    tiny_model.text_encoder.save_pretrained(tmp_path / "tower")
    assert main(["convert", str(tmp_path / "tower"), str(tmp_path / "half"), "--to", "hf", "--dtype", "float16"]) == 0
    errors = capsys.readouterr().err
    assert "no preprocessor_config.json was written" in errors and "no tokenizer was written" in errors
    assert main(["convert", str(tmp_path / "tower"), str(tmp_path / "other"), "--to", "openclip"]) == 2
    assert "must be a whole CLIP model" in capsys.readouterr().err


def test_bad_images_are_reported_and_the_rest_is_done(run, images):
    (images / "empty.png").write_bytes(b"")
    (images / "text.jpg").write_text("not an image")
    (images / "cut.jpg").write_bytes((images / "b.jpg").read_bytes()[:300])
    status, out, err = run("classify", images, images / "missing.png", "--labels", "a,b", "--json")
    result = json.loads(out)
    assert status == 1
    assert [row["image"] for row in result["images"]] == [str(images / "a.png"), str(images / "b.jpg")]
    skipped = {row["image"].rpartition("/")[2]: row["reason"] for row in result["skipped"]}
    assert set(skipped) == {"empty.png", "text.jpg", "cut.jpg", "missing.png"}
    assert "an empty file" in skipped["empty.png"]
    assert "not an image" in skipped["text.jpg"]
    assert "cut short" in skipped["cut.jpg"]
    assert "existing files" in skipped["missing.png"]
    assert err.count("skipped ") == 4


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_file_name_that_is_no_text_is_reported(run, images, options):
    (images / os.fsdecode(b"caf\xe9.png")).write_bytes(b"")
    status, out, err = run("classify", images, "--labels", "a,b", *options)
    assert status == 1
    assert "caf\\udce9.png" in err
    if options:
        assert json.loads(out)["skipped"][0]["image"].endswith("caf\udce9.png")


def test_nothing_readable_is_still_a_result(run, images):
    (images / "empty.png").write_bytes(b"")
    status, out, _ = run("classify", images / "empty.png", "--labels", "a,b", "--json")
    assert (status, json.loads(out)["images"]) == (1, [])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--labels", "cat,cat"], "`--labels` must all differ. Received twice: cat"),
        (["--labels", "cat,,dog"], "`--labels` must not be empty"),
        (["--labels", " "], "`--labels` must name at least one class"),
        (["--labels-file", "no/such/file"], "`--labels-file` must be an existing file"),
        (["--labels", "cat", "--template", "a photo"], "`--template` must be prompts with {}"),
    ],
)
def test_bad_arguments_are_named(run, images, arguments, message):
    status, out, err = run("classify", images, *arguments)
    assert (status, out) == (2, "")
    assert message in err
    assert "Traceback" not in err


def test_a_folder_without_images_is_named(run, tmp_path):
    (tmp_path / "empty").mkdir()
    status, _, err = run("classify", tmp_path / "empty", "--labels", "a")
    assert status == 2
    assert "a folder without any" in err


@pytest.mark.parametrize("model", ["/no/such/model", "bad//id"])
def test_a_missing_model_is_named(run, images, model):
    status, _, err = run("classify", images, "--labels", "a", model=model)
    assert status == 2
    assert "`--model` must be a shipped name (pictogram-clip), an existing folder or file, or a Hub id" in err


def test_a_broken_model_lists_what_is_wrong(run, images, tiny_checkpoint):
    config = json.loads((tiny_checkpoint / "config.json").read_text())
    config["vision_config"]["hidden_size"] = 64
    (tiny_checkpoint / "config.json").write_text(json.dumps(config))
    status, _, err = run("classify", images, "--labels", "a")
    assert status == 2
    assert "shape: vision_model.embeddings.class_embedding is [32], the model needs [64]" in err


def test_nothing_to_embed_is_an_error(run, tmp_path):
    status, _, err = run("embed", "--out", tmp_path / "x.npz")
    assert status == 2
    assert "`IMAGE`, `--text` or `--texts-file` must be given" in err


@pytest.mark.process
def test_as_a_module_its_output_is_only_the_answer(tiny_checkpoint, images):
    command = [sys.executable, "-m", "tf_clip", "classify", str(images / "a.png"), "--labels", "a,b", "--json"]
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    result = subprocess.run(
        [*command, "--model", str(tiny_checkpoint)], capture_output=True, text=True, env=environment, timeout=120
    )
    assert json.loads(result.stdout)["images"]
    assert result.stderr == ""
