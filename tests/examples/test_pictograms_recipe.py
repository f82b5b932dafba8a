"""The recipe of the shipped model, on a handful of made-up images: splits, batches, training, resuming."""

import json
import sys

import numpy as np
import pytest

from helpers import ROOT
from tf_clip import CLIPConfig, CLIPModel

RECIPE = ROOT / "examples" / "pictograms"
WORDS = "cat dog owl fox bear wolf bird fish frog duck".split()


@pytest.fixture(scope="module", autouse=True)
def recipe_modules():
    """The recipe's files import one another by name, as scripts do."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(RECIPE)
        yield
    for name in [name for name, module in sys.modules.items() if str(RECIPE) in str(getattr(module, "__file__", ""))]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """48 concepts in two styles: 40 to train on, 4 to choose by and 4 to be tested on; and some icons."""
    folder = tmp_path_factory.mktemp("data")
    generator = np.random.default_rng(0)
    splits = ["train"] * 40 + ["val_concept"] * 4 + ["test_concept"] * 4
    concepts = [
        {"hexcode": f"{index:04X}", "name": f"{WORDS[index % 10]} {index}", "split": split, "group": 0}
        for index, split in enumerate(splits)
    ]
    rows = []
    for style in ("one", "two"):
        for index, concept in enumerate(concepts):
            split = concept["split"]
            if split == "train" and style == "two" and index < 6:
                split = "val_style"
            row = {"style": style, "family": "emoji", "concept": concept["hexcode"], "name": concept["name"]}
            rows.append({**row, "tags": ["animal", "fish 47"], "split": split, "concept_split": concept["split"]})
    rows += [
        {"style": "icons", "family": "icon", "concept": f"icon:{n}", "name": f"icon {n}", "tags": [], "split": "train"}
        for n in range(20)
    ]
    (folder / "images.jsonl").write_text("\n".join(json.dumps({"index": i, **row}) for i, row in enumerate(rows)))
    (folder / "concepts.json").write_text(json.dumps(concepts))
    np.save(folder / "images.npy", generator.integers(0, 256, (len(rows), 64, 64, 4), dtype=np.uint8))
    np.savez(folder / "word_vectors.npz", words=np.array(WORDS * 8), vectors=generator.normal(size=(80, 12)))
    return folder


@pytest.fixture
def small(monkeypatch):
    """The recipe with a model and lessons that a test can afford."""
    import dataset
    import train
    from taught_clip import TaughtCLIP

    def make_model(tokenizer, vector_width):
        tower = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
        ids = {"vocab_size": tokenizer.vocab_size, "eos_token_id": tokenizer.eos_token_id}
        text = {**tower, **ids, "max_position_embeddings": 32}
        vision = {**tower, "image_size": 56, "patch_size": 14}
        return TaughtCLIP(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8), vector_width)

    monkeypatch.setattr(train, "make_model", make_model)
    monkeypatch.setattr(dataset, "LESSONS", (8, 4, 4))
    return train


@pytest.mark.slow
def test_training_resumes_and_saves_a_plain_clip(small, data, tmp_path, capsys):
    small.train(data, tmp_path, epochs=1, batch_size=8, learning_rate=1e-3)
    small.train(data, tmp_path, epochs=2, batch_size=8, learning_rate=1e-3)
    assert "Going on after epoch 1 of 2." in capsys.readouterr().out
    history = json.loads((tmp_path / "resume" / "history.json").read_text())
    assert len(history) == 2
    assert all(np.isfinite(score) for scores in history for score in scores.values())
    assert CLIPModel.from_pretrained(tmp_path).config.projection_dim == 8


def test_no_concept_comes_twice_in_a_batch_and_nothing_held_out_comes_at_all(small, data, tmp_path):
    import dataset
    from word_vectors import WordVectors

    pictograms = dataset.Pictograms.read(data)
    rows = pictograms.training_rows()
    assert {row["split"] for row in rows} == {"train"}
    assert not any("fish 47" in row["tags"] for row in rows), "a held-out name must not be a caption"
    tokenizer = small.make_processor(pictograms, tmp_path, None).tokenizer
    vectors = WordVectors.read(data)
    batches = dataset.TrainingBatches(pictograms, tokenizer, 8, 20, 56, vectors, seed=0)
    seen = []
    for batch in batches.epoch(0):
        names = batch["own_names"].numpy().tolist()
        assert len(set(names)) == len(names)
        seen += names
        assert batch["pixel_values"].shape == (8, 56, 56, 3)
        assert set(batch["lesson_names"].numpy()[-4:]) == {-1}
    assert len(seen) == batches.steps * 8 > 0


def test_an_images_own_name_is_never_a_wrong_answer(small):
    model = small.make_model(type("T", (), {"vocab_size": 20, "eos_token_id": 19}), 12)
    generator = np.random.default_rng(0)
    lesson_ids = generator.integers(0, 19, (3, 5)).astype("int32")
    x = {
        "lesson_ids": lesson_ids,
        "lesson_vectors": np.zeros((3, 12), "float32"),
        "lesson_names": np.array([7, 8, -1], "int32"),
        "own_vectors": np.zeros((2, 12), "float32"),
        "own_names": np.array([7, 8], "int32"),
    }
    inputs = {"input_ids": lesson_ids[:2], "pixel_values": generator.normal(size=(2, 56, 56, 3)).astype("float32")}
    output = model(inputs)
    every = float(model.compute_loss({**x, "own_names": np.array([1, 2], "int32")}, y_pred=output))
    own_left_out = float(model.compute_loss(x, y_pred=output))
    none = float(model.compute_loss({**x, "lesson_names": np.full(3, -1, "int32")}, y_pred=output))
    assert none < own_left_out < every


@pytest.mark.parametrize(
    ("icon", "tags", "leaks"),
    [
        ("wolf", [], True),
        ("howling wolf 2", [], True),
        ("moon", ["wolf"], True),
        ("wolfgang", [], False),
        ("flag france round", [], True),
        ("traffic light vertical", [], True),
        ("traffic cone", [], False),
        ("smile", ["face"], False),
    ],
)
def test_icons_of_held_out_concepts_are_dropped(icon, tags, leaks):
    from splits import LeakRule

    assert LeakRule(["wolf", "flag: france", "vertical traffic light", "thinking face"]).leaks(icon, tags) is leaks


def test_splits_are_fixed():
    from splits import split_concepts

    names = [f"{index:05X}" for index in range(1906)]
    splits = split_concepts(names)
    assert splits == split_concepts(names)
    counts = {split: list(splits.values()).count(split) for split in set(splits.values())}
    assert counts == {"test_concept": 200, "val_concept": 100, "train": 1606}


@pytest.mark.slow
def test_fine_tuning_on_half_of_a_style_asks_the_other_half(monkeypatch, capsys):
    import fine_tune_style
    from held_out import read_held_out

    words = "--images 96 --epochs 2 --batch-size 16 --learning-rate 2e-4 --json".split()
    monkeypatch.setattr(sys, "argv", ["fine_tune_style.py", *words])
    halves = []
    make_half = fine_tune_style.half
    monkeypatch.setattr(fine_tune_style, "half", lambda *args: halves.append(args[1]) or make_half(*args))
    make_scores = fine_tune_style.scores
    monkeypatch.setattr(fine_tune_style, "scores", lambda *args: halves.append(args[3]) or make_scores(*args))
    fine_tune_style.main()
    result = json.loads(capsys.readouterr().out)
    assert (result["trained"], result["asked"]) == (48, 48)
    asked, trained, again = halves
    np.testing.assert_array_equal(asked, again)
    targets = read_held_out("unseen_style").targets
    assert not set(targets[asked]) & set(targets[trained]), "no name of one half is in the other"
    for question, before in result["before"].items():
        assert before["R@1"] > (0.3 if question.endswith("all") else 0.6)
        assert result["after"][question] != before
