"""Pack the held-out images whose licenses allow it into the files that the tests score the model on.

    python pack_held_out.py --data DATA --out ../../tests/pictograms

Writes one lossless sheet of images and one list of names per question: `unseen_style` (every base
emoji in the style that was held out) and `unseen_concepts` (200 emoji that were held out in every style).
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from captions import NAMING_TEMPLATES
from dataset import Pictograms
from PIL import Image

# Share-alike drawings are scored by evaluate.py, but not shipped.
SHIPPED_LICENCES = ("MIT", "Apache-2.0", "CC-BY-4.0", "CC0-1.0")


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder that prepare.py has written")
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    data = Pictograms.read(args.data)
    held_out = [concept for concept in data.concepts if concept["split"] == "test_concept"]
    pack(data, "test_style", data.concepts, args.out / "unseen_style")
    pack(data, "test_concept", held_out, args.out / "unseen_concepts")


def pack(data: Pictograms, split: str, concepts: list[dict[str, Any]], path: Path) -> None:
    """Writes a split's images as `path`.webp and what they show as `path`.json."""
    rows = [row for row in data.rows if row["split"] == split and row["license"] in SHIPPED_LICENCES]
    tiles = np.stack(data.on_white(rows))
    columns = math.ceil(math.sqrt(len(tiles)))
    blank = np.full((columns * columns - len(tiles), *tiles.shape[1:]), 255, np.uint8)
    size = tiles.shape[1]
    grid = np.concatenate([tiles, blank]).reshape(columns, columns, size, size, 3)
    sheet = grid.transpose(0, 2, 1, 3, 4).reshape(columns * size, columns * size, 3)
    Image.fromarray(sheet).save(path.with_suffix(".webp"), lossless=True, quality=100, method=6)
    index_of = {concept["hexcode"]: index for index, concept in enumerate(concepts)}
    table = {
        "names": [concept["name"] for concept in concepts],
        "templates": NAMING_TEMPLATES,
        "targets": [index_of[row["concept"]] for row in rows],
        "styles": [row["style"] for row in rows],
        "size": size,
        "columns": columns,
    }
    path.with_suffix(".json").write_text(json.dumps(table, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"{path.name}: {len(rows)} images, {len(concepts)} names")


if __name__ == "__main__":
    main()
