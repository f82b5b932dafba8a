"""Score a pictogram CLIP: does it name drawings in a style, or of things, that it never saw?

python evaluate.py --data DATA --model MODEL
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from dataset import Pictograms

from tf_clip import CLIPModel, CLIPProcessor
from tf_clip.tasks.embedding import embed_images, embed_texts
from tf_clip.tasks.retrieval import retrieval_metrics


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder that prepare.py has written")
    parser.add_argument("--model", default="pictogram-clip", help="shipped name, folder or Hub id")
    args = parser.parse_args()
    model, processor = CLIPModel.from_pretrained(args.model), CLIPProcessor.from_pretrained(args.model)
    data = Pictograms.read(args.data)
    results = {
        "unseen style": score_unseen_drawings(model, processor, data, "test_style"),
        "unseen concepts": score_unseen_concepts(model, processor, data, "test_concept"),
    }
    print(json.dumps(results, indent=2))


def score_unseen_drawings(model: CLIPModel, processor: CLIPProcessor, data: Pictograms, split: str) -> dict[str, float]:
    """Ranks all base emoji names for each picture of a split."""
    return _score(model, processor, data, [row for row in data.rows if row["split"] == split], data.concepts)


def score_unseen_concepts(model: CLIPModel, processor: CLIPProcessor, data: Pictograms, split: str) -> dict[str, float]:
    """Ranks the names of a split's concepts for each of their pictures."""
    concepts = [concept for concept in data.concepts if concept["split"] == split]
    return _score(model, processor, data, [row for row in data.rows if row["split"] == split], concepts)


def _score(
    model: CLIPModel,
    processor: CLIPProcessor,
    data: Pictograms,
    rows: list[dict[str, Any]],
    concepts: list[dict[str, Any]],
) -> dict[str, float]:
    index_of = {concept["hexcode"]: index for index, concept in enumerate(concepts)}
    targets = np.array([index_of[row["concept"]] for row in rows])
    images = embed_images(model, processor, data.on_white(rows), batch_size=256).embeds
    texts = embed_texts(model, processor, [concept["name"] for concept in concepts])
    return retrieval_metrics(images @ texts.T, targets) | {"pictures": len(rows), "names": len(concepts)}


if __name__ == "__main__":
    main()
