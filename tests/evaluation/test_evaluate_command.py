"""`tf-clip evaluate`: its JSON against the library, its page against the JSON, and bad input."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers.html_text import Text, require_self_contained
from helpers.seeds import seed
from tf_clip import (
    CLIPModel,
    CLIPProcessor,
    embed_images,
    embed_texts,
    retrieval_report,
    zero_shot_classifier,
)
from tf_clip.cli.evaluation_data import embed_pairs
from tf_clip.cli.main import main
from tf_clip.data.pairs import ListedPairs

pytestmark = pytest.mark.command

HOSTILE = "<script>alert('x')</script> & \"co\""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, tiny_config, tiny_processor):
    folder = tmp_path_factory.mktemp("tiny")
    seed()
    CLIPModel(tiny_config).save_pretrained(folder)
    tiny_processor.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def loaded(checkpoint):
    return CLIPModel.from_pretrained(checkpoint), CLIPProcessor.from_pretrained(checkpoint)


@pytest.fixture
def evaluate(checkpoint, tmp_path, capsys):
    """Runs the command; returns exit status, what the JSON file holds, the page, and standard error."""

    def call(task, data, *arguments):
        output = tmp_path / "report"
        words = ["evaluate", task, data, "--output", output, "--model", checkpoint, *arguments]
        status = main([*map(str, words)])
        err = capsys.readouterr().err
        if status == 2:
            return status, None, None, err
        text = (output / "report.json").read_text(encoding="utf-8")
        return status, json.loads(text), (output / "report.html").read_text(encoding="utf-8"), err

    return call


def save_image(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (24, 30, 3), dtype=np.uint8)).save(path)
    return path


@pytest.fixture
def classes(tmp_path):
    """Folders of three classes."""
    folder = tmp_path / "classes"
    for number in range(9):
        name = ("cat", "red_apple", "owl")[number % 3]
        save_image(folder / name / f"{number}.png", number)
    (folder / "notes.txt").write_text("not looked at")
    (folder / ".hidden").mkdir()
    return folder


def write_table(path, rows):
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


@pytest.mark.command
def test_zero_shot_says_what_the_library_says(evaluate, classes, loaded):
    templates = ["a {}", "the {}."]
    status, result, page, err = evaluate("zero-shot", classes, "--template", "a {}", "--template", "the {}.")
    assert (status, err) == (0, "")
    paths = sorted(classes.rglob("*.png"))
    names = ["cat", "owl", "red apple"]
    targets = np.array([names.index(path.relative_to(classes).parts[0].replace("_", " ")) for path in paths])
    embeds = embed_images(*loaded, paths).embeds
    expected = zero_shot_classifier(*loaded, names, templates).report(embeds, targets)
    assert (result["classes"], result["images"], result["templates"]) == (names, 9, templates)
    assert result["metrics"] == pytest.approx(expected.metrics, abs=1e-6)
    assert result["confusion"] == expected.confusion.tolist()
    assert result["per_class"] == expected.per_class
    assert result["recall_curve"] == [pytest.approx(np.mean(expected.ranks <= k)) for k in (1, 2, 3)]
    assert sum(part["count"] for part in result["calibration"]) == 9
    sure = [row["confidence"] for row in result["worst"]]
    assert sure == sorted(sure, reverse=True)
    assert len(sure) == (expected.ranks > 1).sum()
    for row in result["worst"]:
        assert Path(row["image"]).relative_to(classes).parts[0].replace("_", " ") == row["label"] != row["predicted"]
        assert row["label_probability"] < row["confidence"]


@pytest.mark.command
def test_the_zero_shot_page_shows_every_number(evaluate, classes):
    arguments = ("--template-set", "imagenet_simple", "--robustness")
    _, result, page, _ = evaluate("zero-shot", classes, *arguments)
    seen = require_self_contained(page)
    numbers = [*result["metrics"].values(), *result["robustness"]["metrics"].values(), *result["recall_curve"][:1]]
    numbers += [row["top1"] for row in result["robustness"]["templates"]]
    for row in result["worst"]:
        numbers += [row["confidence"], row["label_probability"]]
        assert f"{Path(row['image']).parent.name}/{Path(row['image']).name}" in seen.text
    for number in numbers:
        assert f"{number:.1%}" in seen.text
    for row, label in zip(result["confusion"], result["classes"], strict=True):
        for count, other in zip(row, result["classes"], strict=True):
            assert f"{label} predicted as {other}: {count} of 3" in seen.text
    for part in result["calibration"]:
        if part["count"]:
            said = f"{part['count']} images, confidence {part['confidence']:.1%}, accuracy {part['accuracy']:.1%}"
            assert said in seen.text
    assert len([row["template"] for row in result["robustness"]["templates"] if row["template"] in seen.text]) == 7
    assert len(seen.addresses) == len(result["worst"])
    assert "9 images of 3 classes" in seen.text


@pytest.mark.command
def test_bad_images_and_rows_are_left_out_and_nothing_else(evaluate, classes, tmp_path):
    paths = sorted(classes.rglob("*.png"))
    good = [(path.relative_to(tmp_path).as_posix(), f"kind {index % 3}") for index, path in enumerate(paths)]
    _, expected, _, _ = evaluate("zero-shot", write_table(tmp_path / "good.csv", [("image", "label"), *good]))
    (tmp_path / "cut.jpg").write_bytes(save_image(tmp_path / "x.jpg", 3).read_bytes()[:300])
    (tmp_path / "empty.png").write_bytes(b"")
    table = write_table(
        tmp_path / "bad.csv",
        [
            ("image", "label"),
            *good[:4],
            ("missing.png", "kind 0"),
            ("cut.jpg", "kind 1"),
            (good[0][0], ""),
            ("", "kind 1"),
            ("empty.png", "kind 0"),
            (good[0][0], "kind 1", "a cell too many"),
            (good[1][0],),
            *good[4:],
        ],
    )
    with table.open("ab") as file:
        file.write(b"classes/cat/0.png,caf\xe9\r\n")
    status, result, page, err = evaluate("zero-shot", table)
    reasons = {row["where"].rpartition(":")[2]: row["reason"] for row in result["skipped"]}
    assert status == 1
    assert reasons["6"] == "the image's file does not exist"
    assert "cut short" in reasons["7"]
    assert reasons["8"] == "the caption is empty"
    assert reasons["9"] == "the image is empty"
    assert "an empty file" in reasons["10"]
    assert reasons["11"] == "3 columns where the first line has 2"
    assert reasons["12"] == "1 columns where the first line has 2"
    assert reasons["18"] == "the caption is not valid UTF-8"
    assert len(reasons) == 8 == err.count("skipped ")
    assert all(row["where"].startswith(str(table)) for row in result["skipped"])
    for name in ("metrics", "confusion", "images", "per_class"):
        assert result[name] == expected[name]
    assert [row["confidence"] for row in result["worst"]] == [row["confidence"] for row in expected["worst"]]
    assert "8 rows" in Text(page).text


def row_of(where):
    """The row of a table from 0, which in the test below is the first of its image."""
    return int(where.rpartition(":")[2]) - 2


@pytest.mark.command
def test_retrieval_says_what_the_library_says(evaluate, tmp_path, loaded):
    paths = [save_image(tmp_path / "images" / f"{number}.png", number) for number in range(6)]
    owners = [0, 1, 2, 3, 4, 5, 0, 0, 3]
    captions = [f"number {place}" for place in range(9)]
    rows = [(f"images/{owner}.png", caption) for owner, caption in zip(owners, captions, strict=True)]
    table = write_table(tmp_path / "pairs.csv", [("file", "text"), *rows])
    arguments = ("--image-column", "file", "--caption-column", "text", "--worst", 4, "--chunk-size", 2)
    status, result, page, err = evaluate("retrieval", table, *arguments)
    assert (status, err) == (0, "")
    images, texts = embed_images(*loaded, paths).embeds, embed_texts(*loaded, captions)
    expected = retrieval_report(images, texts, owners)
    assert result["metrics"]["image_to_text"] == pytest.approx(expected.image_to_text)
    assert result["metrics"]["text_to_image"] == pytest.approx(expected.text_to_image)
    assert (result["images"], result["captions"], result["skipped"]) == (6, 9, [])
    similarities = images @ texts.T
    for row in result["worst"]["image_to_text"]:
        number = row_of(row["image"])
        assert row["rank"] == expected.image_ranks[number] > 1
        assert row["first"] == captions[similarities[number].argmax()]
        own = [place for place, owner in enumerate(owners) if owner == number]
        assert row["caption"] == captions[max(own, key=lambda place: similarities[number, place])]
    for row in result["worst"]["text_to_image"]:
        place = captions.index(row["caption"])
        assert row["rank"] == expected.text_ranks[place]
        assert (row_of(row["image"]), row_of(row["first"])) == (owners[place], similarities[:, place].argmax())
    ranks = [row["rank"] for row in result["worst"]["text_to_image"]]
    assert ranks == sorted(expected.text_ranks.tolist(), reverse=True)[:4]
    seen = require_self_contained(page)
    for figures in result["metrics"].values():
        for name, value in figures.items():
            form = ".1%" if name.startswith("R@") else ".3f" if name == "MRR" else ",.1f"
            assert f"{value:{form}}" in seen.text
    for curve in result["recall_curve"].values():
        assert len(curve) == 6
        for k in (1, 5):
            assert f"{curve[k - 1]:.1%} among the first {k}" in seen.text
    for row in (*result["worst"]["image_to_text"], *result["worst"]["text_to_image"]):
        assert f"found as number {row['rank']}" in seen.text


@pytest.mark.command
def test_a_bad_image_takes_its_captions_with_it(evaluate, tmp_path):
    for number in range(3):
        save_image(tmp_path / f"{number}.png", number)
    (tmp_path / "same.png").write_bytes((tmp_path / "1.png").read_bytes())
    (tmp_path / "bad.png").write_bytes(b"no image")
    rows = [
        ("bad.png", ["one", "two"]),
        ("0.png", ["a", "b"]),
        ("1.png", "c"),
        ("2.png", "b"),
        ("same.png", ["c", "e"]),
    ]
    table = tmp_path / "pairs.jsonl"
    table.write_text("\n".join(json.dumps({"image": image, "caption": texts}) for image, texts in rows))
    status, result, page, err = evaluate("retrieval", table)
    assert (status, err.count("skipped ")) == (1, 1)
    assert result["shared_captions"] == 2  # both b; c is of one image, in two rows
    assert "2 captions belong to other images, too" in err
    assert "2 captions belong to other images, too" in Text(page).text
    assert "not an image" in result["skipped"][0]["reason"]
    assert (result["images"], result["captions"]) == (3, 6)  # the same file twice is one image


def test_rows_of_several_labels_are_left_out(loaded, tmp_path):
    paths = [str(save_image(tmp_path / f"{number}.png", number)) for number in range(3)]
    pairs = ListedPairs(paths, [["cat"], ["cat", "dog"], ["dog"]])
    found = embed_pairs(*loaded, pairs, 2, one_text=True)
    assert (found.texts, found.image_of_text.tolist(), found.text_rows) == (["cat", "dog"], [0, 1], [0, 2])
    assert found.skipped == [(paths[1], "2 labels where one is needed")]
    np.testing.assert_allclose(found.image_embeds, embed_images(*loaded, [paths[0], paths[2]]).embeds, atol=1e-6)
    Path(paths[2]).unlink()
    assert found.image(0).startswith("data:image/png;base64,")
    assert found.image(2) is None


@pytest.mark.command
@pytest.mark.parametrize("task", ["zero-shot", "retrieval"])
def test_names_that_are_markup_stay_text(evaluate, tmp_path, task):
    folder = tmp_path / "<b>&"
    names = [save_image(folder / f"<i>{number}.png", number).name for number in range(4)]
    column = "label" if task == "zero-shot" else "caption"
    texts = [HOSTILE, "{title}", "%s", "<img src=x onerror=alert(1)>"]
    rows = [("image", column), *zip(names, texts, strict=True), ("<i>missing", HOSTILE)]
    _, result, page, err = evaluate(task, write_table(folder / "<i>data.csv", rows))
    seen = require_self_contained(page)
    assert "i" not in seen.tags
    assert page.count("<b>") == 4  # the figures
    assert HOSTILE in seen.text or task == "retrieval"
    assert "<b>&/<i>data.csv:6: the image's file does not exist" in seen.text
    assert set(result["classes"]) == set(texts) if task == "zero-shot" else result["captions"] == 4


@pytest.mark.parametrize(
    ("task", "arguments", "message"),
    [
        ("zero-shot", ["--robustness"], "`--robustness` must have several templates"),
        ("zero-shot", ["--template", "a photo"], "`--template` must be prompts with {}"),
        ("retrieval", [], "`DATA` must be a table or archive of images and captions"),
    ],
)
def test_what_does_not_go_together_is_named(evaluate, classes, task, arguments, message):
    status, _, _, err = evaluate(task, classes, *arguments)
    assert status == 2
    assert message in err
    assert "Traceback" not in err


@pytest.mark.command
def test_data_that_is_not_there_is_named(evaluate, tmp_path):
    table = write_table(tmp_path / "pairs.csv", [("file", "text"), ("a.png", "x")])
    empty = write_table(tmp_path / "empty.csv", [("image", "caption"), ("a.png", "")])
    unreadable = write_table(tmp_path / "gone.csv", [("image", "caption"), ("a.png", "x")])
    for data, message in {
        tmp_path / "no": "`DATA` must name existing files",
        table: "`DATA` must have the columns ['image', 'caption']",
        empty: "empty.csv:2: the caption is empty",
        unreadable: "gone.csv:2: the image's file does not exist",
    }.items():
        status, _, _, err = evaluate("retrieval", data)
        assert status == 2
        assert message in err
