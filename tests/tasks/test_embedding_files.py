"""Embedding any number to the disk: the same file after a kill, bad images skipped, texts by length."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tf_clip import CLIPModel, CLIPProcessor, embed_images, embed_texts
from tf_clip.cli.main import main
from tf_clip.tasks import embedding_files
from tf_clip.tasks.embedding_files import embed_images_to_file, embed_texts_to_file

WORDS = ["a", "cat", "dog", "on", "the", "tree"]


@pytest.fixture
def loaded(tiny_checkpoint):
    return CLIPModel.from_pretrained(tiny_checkpoint), CLIPProcessor.from_pretrained(tiny_checkpoint)


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for index in range(7):
        Image.fromarray(generator.integers(0, 256, (20, 24, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    (folder / "3.png").write_bytes(b"no image")
    return sorted(folder.iterdir())


@pytest.fixture
def texts(tmp_path):
    generator = np.random.default_rng(0)
    lines = [" ".join(generator.choice(WORDS, size=generator.integers(1, 9))) for _ in range(23)]
    path = tmp_path / "texts.txt"
    path.write_text("\n".join([*lines[:5], "", *lines[5:]]) + "\n", encoding="utf-8")
    return path, lines


def test_images_are_those_of_embed_images(loaded, images, tmp_path):
    model, processor = loaded
    width, done = model.config.projection_dim, []
    job = embed_images_to_file(
        model.get_image_features,
        processor,
        images,
        tmp_path / "out",
        width=width,
        batch_size=3,
        on_progress=done.append,
    )
    assert list(job.skipped) == [3] and job.count == 7 and job.resumed == 0 and sum(done) == 7
    assert 0.0 <= job.waited <= 1.0
    rows = np.load(tmp_path / "out" / "image_embeds.npy")
    wanted = embed_images(model, processor, images, skip_unreadable=True)
    np.testing.assert_allclose(rows[wanted.indices], wanted.embeds, atol=1e-5)
    assert np.isnan(rows[3]).all()
    assert (tmp_path / "out" / "images.txt").read_text().splitlines() == list(map(str, images))


def sizes_of(model):
    return {"width": model.config.projection_dim, "longest": model.config.text_config.max_position_embeddings}


def test_texts_are_those_of_embed_texts_in_their_order(loaded, texts, tmp_path, monkeypatch):
    monkeypatch.setattr(embedding_files, "TEXT_CHUNK", 10)
    model, processor = loaded
    lengths = []

    def encode(input_ids, attention_mask):
        lengths.append(input_ids.shape)
        return model.get_text_features(input_ids, attention_mask)

    job = embed_texts_to_file(encode, processor, texts[0], tmp_path, batch_size=4, **sizes_of(model))
    assert job.count == 23
    wanted = embed_texts(model, processor, texts[1])
    np.testing.assert_allclose(np.load(tmp_path / "text_embeds.npy"), wanted, atol=1e-5)
    assert max(rows for rows, _ in lengths) == 4
    assert len({length for _, length in lengths}) > 1, "short texts are not padded to the longest of all"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["image", "text"])
def test_what_was_interrupted_goes_on(loaded, images, texts, tmp_path, monkeypatch, kind):
    monkeypatch.setattr(embedding_files, "TEXT_CHUNK", 10)
    monkeypatch.setattr(embedding_files, "IMAGE_CHUNK", 2)
    model, processor = loaded
    width = model.config.projection_dim

    def run(folder, calls_left):
        def encode(*args, **kwargs):
            nonlocal calls_left
            calls_left -= 1
            if calls_left < 0:
                raise KeyboardInterrupt
            return (model.get_image_features if kind == "image" else model.get_text_features)(*args, **kwargs)

        if kind == "image":
            return embed_images_to_file(encode, processor, images, folder, width=width, batch_size=2)
        return embed_texts_to_file(encode, processor, texts[0], folder, **sizes_of(model), batch_size=2)

    whole = run(tmp_path / "whole", 1000)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", 7 if kind == "text" else 2)
    again = run(tmp_path / "cut", 1000)
    assert 0 < again.resumed < whole.count
    assert again.skipped == whole.skipped
    name = f"{kind}_embeds.npy"
    assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    nothing = run(tmp_path / "cut", 0)
    assert nothing.resumed == whole.count


@pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux says of a process's memory")
def test_rows_that_are_done_take_no_memory(tmp_path):
    def in_memory():
        found = re.findall(r"image_embeds\.npy\n(?:.*\n)*?Rss: +(\d+) kB", Path("/proc/self/smaps").read_text())
        return 1024 * sum(map(int, found))

    file = embedding_files.EmbeddingFile(tmp_path, "image", (2048, 1024), 1024, "of this test")
    features = np.random.default_rng(0).normal(size=(1024, 1024)).astype(np.float32)
    for start in (0, 1024):
        file.put(range(start, start + 1024), features)
        assert in_memory() >= features.nbytes
        file.finish(start, {})
        assert in_memory() < 2**18
    rows = np.load(tmp_path / "image_embeds.npy")
    np.testing.assert_array_equal(rows[:1024], rows[1024:])
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, rtol=1e-6)


def test_other_inputs_are_refused(loaded, images, tmp_path):
    model, processor = loaded
    options = {"width": model.config.projection_dim, "batch_size": 2}
    embed_images_to_file(model.get_image_features, processor, images[:2], tmp_path, **options)
    for changed in (images[:3], images[1::-1]):
        with pytest.raises(ValueError, match="must be new, or hold a job of the same inputs"):
            embed_images_to_file(model.get_image_features, processor, changed, tmp_path, **options)
    for other in ({"batch_size": 3}, {"model": "another"}):
        with pytest.raises(ValueError, match="must be new"):
            embed_images_to_file(model.get_image_features, processor, images[:2], tmp_path, **{**options, **other})
    # Another image in the place of one.
    images[0].write_bytes(images[2].read_bytes() + b" ")
    with pytest.raises(ValueError, match="must be new"):
        embed_images_to_file(model.get_image_features, processor, images[:2], tmp_path, **options)


def test_texts_are_cut_to_what_the_model_takes(loaded, texts, tmp_path):
    model, processor = loaded
    lengths = []

    def encode(input_ids, attention_mask):
        lengths.append(input_ids.shape[1])
        return model.get_text_features(input_ids, attention_mask)

    embed_texts_to_file(encode, processor, texts[0], tmp_path, width=model.config.projection_dim, longest=5)
    assert max(lengths) == 5


@pytest.mark.command
@pytest.mark.process
def test_killed_and_started_again_it_gives_the_same_file(tiny_checkpoint, texts, images, tmp_path):
    path = tmp_path / "many.txt"
    path.write_text("\n".join(texts[1] * 3000), encoding="utf-8")
    words = ["embed", "--texts-file", str(path), "--model", str(tiny_checkpoint), "--json"]
    command = [sys.executable, "-m", "tf_clip", *words, "--output", str(tmp_path / "killed")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    progress = tmp_path / "killed" / "text_progress.json"
    for _ in range(12_000):
        if process.poll() is not None or (progress.is_file() and json.loads(progress.read_text())["done"]):
            break
        time.sleep(0.01)
    process.kill()
    _, errors = process.communicate()
    done = len(json.loads(progress.read_text())["done"]) if progress.is_file() else 0
    assert 0 < done < 5, f"it was to be killed with some of 5 chunks done: {errors.decode()[-2000:]}"
    assert main([*words, "--output", str(tmp_path / "killed")]) == 0
    assert main([*words, "--output", str(tmp_path / "whole")]) == 0
    killed, whole = (tmp_path / name / "text_embeds.npy" for name in ("killed", "whole"))
    assert killed.read_bytes() == whole.read_bytes()


@pytest.mark.command
def test_the_command_reports_bad_images(tiny_checkpoint, images, tmp_path, capsys):
    words = ["embed", *map(str, images), "--model", str(tiny_checkpoint), "--output", str(tmp_path / "out")]
    assert main([*words, "--json"]) == 1
    result = json.loads(capsys.readouterr().out)
    assert result["arrays"]["image_embeds"]["rows"] == 7
    assert [one["image"] for one in result["skipped"]] == [str(images[3])]
    assert main(words) == 1
    assert "7 of them before" in " ".join(capsys.readouterr().out.split())
    assert main([*words, "--text", "a cat"]) == 2
    assert "`--text` must be left out with `--output`" in capsys.readouterr().err
