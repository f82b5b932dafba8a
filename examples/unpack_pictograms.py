"""Unpack the images that the shipped model has never seen, as class folders and as a table of captions.

python examples/unpack_pictograms.py unseen_concepts FOLDER
tf-clip evaluate zero-shot FOLDER/classes --output report
tf-clip evaluate retrieval FOLDER/pairs.csv --output report
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

import numpy as np
from PIL import Image

SHEETS = Path(__file__).resolve().parents[1] / "tests" / "pictograms"


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("question", choices=("unseen_concepts", "unseen_style"), help="which images")
    parser.add_argument("folder", type=Path, help="where to write classes/ and pairs.csv")
    args = parser.parse_args()
    table = json.loads((SHEETS / f"{args.question}.json").read_text(encoding="utf-8"))
    size, columns = table["size"], table["columns"]
    sheet = np.asarray(Image.open(SHEETS / f"{args.question}.webp").convert("RGB"))
    rows = []
    for index, target in enumerate(table["targets"]):
        down, right = divmod(index, columns)
        image = sheet[down * size : (down + 1) * size, right * size : (right + 1) * size]
        name = table["names"][target]
        place = args.folder / "classes" / name.replace("/", " ") / f"{index:04d}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(place)
        rows.append((place.relative_to(args.folder).as_posix(), name))
    with (args.folder / "pairs.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("image", "caption"), *rows])
    print(f"{len(rows)} images of {len(table['names'])} names in {args.folder}")


if __name__ == "__main__":
    main()
