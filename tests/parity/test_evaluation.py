"""Zero-shot and retrieval figures of random features are what OpenCLIP's formulas give."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tf_clip import retrieval_report
from tf_clip.evaluation.templates import template_sets
from tf_clip.evaluation.zero_shot import ZeroShotClassifier
from tf_clip.tasks import zero_shot

from .conftest import Process
from .measuring import largest, report


def test_the_templates_are_those_of_openclip(reference: Process, folder: Path) -> None:
    reference("list_templates", folder / "templates.json")
    theirs = json.loads((folder / "templates.json").read_text())
    ours = template_sets()
    assert {name: list(ours[name]) for name in theirs} == theirs


def test_the_zero_shot_classifier_is_that_of_openclip(
    reference: Process, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(0)
    features = generator.normal(size=(23, 7, 48)).astype("float32")  # classes, templates, width
    images = (features.mean(axis=1)[np.arange(300) % 23] + generator.normal(size=(300, 48))).astype("float32")
    targets = np.arange(300) % 23
    np.savez(folder / "inputs.npz", features=features, images=images, targets=targets)
    reference("classify_zero_shot", folder / "inputs.npz", folder / "outputs.npz")
    theirs = np.load(folder / "outputs.npz")

    def embed(model: object, processor: object, texts: list[str]) -> np.ndarray:
        rows = np.stack([features[tuple(map(int, text.split()))] for text in texts])
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    monkeypatch.setattr(zero_shot, "embed_texts", embed)
    names = [str(name) for name in range(23)]
    embeds = zero_shot.class_embeddings(None, None, names, [f"{{}} {place}" for place in range(7)])  # type: ignore[arg-type]
    ours = ZeroShotClassifier(tuple(names), embeds, float(np.log(100.0)))
    report("zero-shot classifier of random features, open_clip", largest(ours.class_embeds, theirs["weights"]), 1e-6)
    unit = images / np.linalg.norm(images, axis=1, keepdims=True)
    figures = ours.report(unit, targets)
    assert 0.1 < figures.top1 < figures.top5 < 1.0
    assert (figures.top1, figures.top5) == pytest.approx((float(theirs["top1"]), float(theirs["top5"])), abs=1e-9)


def test_retrieval_is_that_of_openclip(reference: Process, folder: Path) -> None:
    generator = np.random.default_rng(0)
    images = generator.normal(size=(500, 32)).astype("float32")
    texts = (images + 1.5 * generator.normal(size=(500, 32))).astype("float32")
    np.savez(folder / "inputs.npz", images=images, texts=texts)
    reference("retrieve", folder / "inputs.npz", folder / "outputs.npz")
    theirs = np.load(folder / "outputs.npz")
    ours = retrieval_report(images, texts, chunk_size=96)
    for direction in ("image_to_text", "text_to_image"):
        figures = dict(getattr(ours, direction))
        figures.pop("MRR")  # which it does not report
        figures["median_rank"] = np.floor(figures["median_rank"])
        for name, value in figures.items():
            assert value == pytest.approx(float(theirs[f"{direction}_{name}"]), abs=1e-9), (direction, name)
