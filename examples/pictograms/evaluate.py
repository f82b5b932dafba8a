"""Score a pictogram CLIP: does it name drawings in a style, or of things, that it never saw?

python evaluate.py --data DATA --model MODEL
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from captions import NAMING_TEMPLATES
from dataset import Pictograms

from tf_clip import CLIPModel, CLIPProcessor, class_embeddings, embed_images, retrieval_metrics

FLAGS = 9  # the group of emoji that look alike in every style


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder that prepare.py has written")
    parser.add_argument("--model", default="pictogram-clip", help="shipped name, folder or Hub id")
    args = parser.parse_args()
    model, processor = CLIPModel.from_pretrained(args.model), CLIPProcessor.from_pretrained(args.model)
    data = Pictograms.read(args.data)
    flags = {concept["hexcode"] for concept in data.concepts if concept["group"] == FLAGS}
    style, concepts = Question(model, processor, data, "test_style"), Question(model, processor, data, "test_concept")
    results = {
        "unseen style": style.score(),
        "unseen style, concepts seen in other styles": style.score(lambda row: row["concept_split"] == "train"),
        "unseen style, concepts unseen too": style.score(lambda row: row["unseen_concept"]),
        "unseen style, without flags": style.score(lambda row: row["concept"] not in flags),
        "unseen concepts": concepts.score(),
        "unseen concepts, without flags": concepts.score(lambda row: row["concept"] not in flags),
    }
    for name in sorted({row["style"] for row in concepts.rows}):
        results[f"unseen concepts, {name}"] = concepts.score(lambda row, name=name: row["style"] == name)
    print(json.dumps(results, indent=2))


class Question:
    """The images of a split, and the names that each is to be told by.

    A split of concepts is asked among its own names; a split of drawings among all base emoji's.
    """

    def __init__(self, model: CLIPModel, processor: CLIPProcessor, data: Pictograms, split: str) -> None:
        of_split = [concept for concept in data.concepts if concept["split"] == split]
        concepts = of_split or data.concepts
        index_of = {concept["hexcode"]: index for index, concept in enumerate(concepts)}
        self.rows = [row for row in data.rows if row["split"] == split]
        self._targets = np.array([index_of[row["concept"]] for row in self.rows])
        images = embed_images(model, processor, data.on_white(self.rows), batch_size=256).embeds
        texts = class_embeddings(model, processor, [concept["name"] for concept in concepts], NAMING_TEMPLATES)
        self._similarities = images @ texts.T

    def score(self, wanted: Callable[[dict[str, Any]], bool] = lambda row: True) -> dict[str, float]:
        """Returns R@1, R@5, R@10 and MRR over the wanted rows, and how many images and names there were."""
        chosen = np.array([wanted(row) for row in self.rows])
        metrics = retrieval_metrics(self._similarities[chosen], self._targets[chosen])
        return {name: round(value, 4) for name, value in metrics.items()} | {
            "images": int(chosen.sum()),
            "names": self._similarities.shape[1],
        }


if __name__ == "__main__":
    main()
