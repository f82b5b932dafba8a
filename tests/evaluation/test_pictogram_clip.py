"""The shipped checkpoint: its model card's figures, recomputed from images that training never saw."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from helpers import ROOT
from tf_clip import CLIPModel, CLIPProcessor, class_embeddings, embed_images, retrieval_metrics
from tf_clip.checkpoints import hub

HELD_OUT = ROOT / "tests" / "pictograms"
FLOORS = {"unseen_style": {"R@1": 0.30, "R@10": 0.60}, "unseen_concepts": {"R@1": 0.20}}


@pytest.fixture(scope="module")
def model():
    return CLIPModel.from_pretrained("pictogram-clip")


@pytest.fixture(scope="module")
def processor():
    return CLIPProcessor.from_pretrained("pictogram-clip")


@pytest.fixture(scope="module")
def card():
    return (hub.resolve("pictogram-clip") / "README.md").read_text(encoding="utf-8")


def tiles(question):
    table = json.loads((HELD_OUT / f"{question}.json").read_text(encoding="utf-8"))
    size, columns = table["size"], table["columns"]
    sheet = np.asarray(Image.open(HELD_OUT / f"{question}.webp").convert("RGB"))
    grid = sheet.reshape(columns, size, columns, size, 3).transpose(0, 2, 1, 3, 4).reshape(-1, size, size, 3)
    return list(grid[: len(table["targets"])]), table


@pytest.mark.slow
@pytest.mark.parametrize("question", FLOORS)
def test_the_card_says_what_is_measured(question, model, processor, card):
    images, table = tiles(question)
    embeds = embed_images(model, processor, images, batch_size=256).embeds
    texts = class_embeddings(model, processor, table["names"], table["templates"])
    measured = retrieval_metrics(embeds @ texts.T, np.array(table["targets"]))
    print(question, len(images), "images", len(table["names"]), "names", measured)
    for metric, floor in FLOORS[question].items():
        assert measured[metric] >= floor
    cells = re.search(rf"^\| `{question}` \|(.*)\|$", card, re.MULTILINE)[1].split("|")
    claimed = dict(zip(("R@1", "R@5", "R@10", "MRR"), map(float, cells[2:6]), strict=True))
    assert (int(cells[0]), int(cells[1])) == (len(images), len(table["names"]))
    # The card has three digits; another machine's arithmetic may move an image or two.
    assert claimed == pytest.approx({metric: measured[metric] for metric in claimed}, abs=0.004)


def test_held_out_names_and_styles_are_what_they_should_be():
    style = json.loads((HELD_OUT / "unseen_style.json").read_text(encoding="utf-8"))
    concepts = json.loads((HELD_OUT / "unseen_concepts.json").read_text(encoding="utf-8"))
    assert set(style["styles"]) == {"twitter"}
    assert len(set(style["names"])) == len(style["names"]) == len(set(style["targets"])) > 1800
    assert len(set(concepts["names"])) == 200 == len(set(concepts["targets"]))
    assert "twitter" not in concepts["styles"]


def test_the_checkpoint_is_small_and_complete(card):
    folder = hub.resolve("pictogram-clip")
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 12_000_000
    for heading in ("Data", "Recipe", "Results", "Limits", "License"):
        assert re.search(rf"^## .*{heading}", card, re.MULTILINE), heading
