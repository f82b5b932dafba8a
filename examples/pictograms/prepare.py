"""Collect the image sets and render them into one dataset.

    python prepare.py --out DATA

See `README.md` for what is in it.
"""

import argparse
import json
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import numpy as np
from concepts import Concept, build_slug_index, load_concepts, read_json
from icons import cap_icons, icon_images
from rendering import render
from sources import PACKAGES, Image, emoji_images, flag_images
from splits import (
    TEST_STYLE,
    LeakRule,
    hold_out_styles,
    image_split,
    split_concepts,
)
from tqdm import tqdm
from word_vectors import write_word_vectors


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write to")
    parser.add_argument("--packages", type=Path, help="folder with node_modules; else npm install")
    parser.add_argument("--size", type=int, default=64, help="side of an image")
    parser.add_argument("--workers", type=int, default=2, help="processes that render")
    args = parser.parse_args()
    for name in ("size", "workers"):
        if getattr(args, name) < 1:
            parser.error(
                f"`{name}` must be at least 1. Received: {getattr(args, name)}. "
                "Leave the option out to use its default."
            )
    args.out.mkdir(parents=True, exist_ok=True)
    try:
        prepare(args.out, args.packages, args.size, args.workers)
    except ValueError as error:
        parser.exit(1, f"{error}\n")


def prepare(out: Path, packages: Path | None, size: int, workers: int) -> None:
    """Write the dataset.

    Args:
        out: folder to write to.
        packages: folder that holds `node_modules`, or `None` to install it.
        size: side of an image, in pixels.
        workers: processes that render.

    Raises:
        ValueError: if a package is missing.
    """
    modules = (packages or install(out / "npm")) / "node_modules"
    if not modules.is_dir():
        raise ValueError(
            f"`packages` must be a folder that holds node_modules. Received: "
            f"{packages}. Leave --packages out to install the packages."
        )
    concepts = load_concepts(modules)
    concept_split = split_concepts([c.hexcode for c in concepts.values()])
    images = collect(modules, concepts, concept_split)
    rows = _rows(images, concept_split)
    kept = _render_all(images, rows, out, size, workers)
    _write_tables(out, modules, concepts, concept_split, kept)
    write_word_vectors(modules, out)
    _report(concepts, kept)


def install(folder: Path) -> Path:
    """Install the packages with npm.

    Args:
        folder: where to; gets a `node_modules`.

    Returns:
        The same folder.

    Raises:
        ValueError: if npm is missing or fails.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise ValueError(
            "`npm` must be on the PATH. Received: no such program. Install Node.js, "
            "or name a folder that holds node_modules with --packages."
        )
    folder.mkdir(parents=True, exist_ok=True)
    wanted = [f"{name}@{version}" for name, version in PACKAGES.items()]
    flags = ["--ignore-scripts", "--no-save", "--no-audit", "--no-fund"]
    command = [npm, "install", *flags, "--prefix", str(folder), *wanted]
    status = subprocess.run(command, check=False).returncode
    if status:
        raise ValueError(
            f"`npm install` must succeed. Received: exit status {status}. Read npm's "
            "message above and run the same command again."
        )
    return folder


def collect(modules: Path, concepts: dict[str, Concept], concept_split: dict[str, str]) -> list[Image]:
    """List every image of the dataset.

    Args:
        modules: the `node_modules` folder.
        concepts: the base concepts by plain code points.
        concept_split: the split of each concept.

    Returns:
        Emoji, flags and icons, without icons that show a held-out concept.
    """
    index = build_slug_index(modules, concepts)
    images = [
        *emoji_images(modules, concepts, index),
        *flag_images(modules, concepts),
    ]
    held = [c.name for c in concepts.values() if concept_split[c.hexcode] != "train"]
    rule = LeakRule(held)
    counts: dict[str, int] = {}
    icons: list[Image] = []
    for icon in icon_images(modules, concepts, counts):
        # The full name, not the normalized one: "apple outline two" leaks too.
        names = (icon.name, icon.source_name)
        if any(rule.leaks(name, icon.tags) for name in names):
            counts["leak rule"] = counts.get("leak rule", 0) + 1
        else:
            icons.append(icon)
    capped = cap_icons(icons)
    counts["over the cap"] = len(icons) - len(capped)
    for reason, count in sorted(counts.items()):
        print(f"icons left out, {reason}: {count}")
    return [*images, *capped]


def _rows(images: Sequence[Image], concept_split: dict[str, str]) -> list[dict[str, Any]]:
    styles_of: dict[str, set[str]] = {}
    for image in images:
        if image.family == "emoji" and image.style != TEST_STYLE:
            styles_of.setdefault(image.concept, set()).add(image.style)
    held_styles = hold_out_styles(concept_split, styles_of)
    return [
        {
            "index": -1,
            "style": image.style,
            "family": image.family,
            "concept": image.concept,
            "name": image.name,
            "tags": list(image.tags),
            "license": image.license,
            "package": image.package,
            "source_name": image.source_name,
            "split": image_split(
                image.style,
                image.family,
                image.concept,
                concept_split,
                held_styles,
            ),
            "concept_split": concept_split.get(image.concept, "train"),
            "unseen_concept": concept_split.get(image.concept) == "test_concept",
        }
        for image in images
    ]


def _render_all(
    images: Sequence[Image],
    rows: Sequence[dict[str, Any]],
    out: Path,
    size: int,
    workers: int,
) -> list[dict[str, Any]]:
    """Render into `images.npy`; returns the rows of what could be drawn."""
    draft = out / "images.part.npy"
    shape = (len(images), size, size, 4)
    array = np.lib.format.open_memmap(draft, "w+", np.uint8, shape)
    kept: list[dict[str, Any]] = []
    failed: list[str] = []
    with Pool(workers) as pool:
        drawings = (image.drawing for image in images)
        answers = pool.imap(partial(render, size=size), drawings, chunksize=64)
        bar = tqdm(answers, total=len(images), unit="image", mininterval=2)
        for row, answer in zip(rows, bar, strict=True):
            if isinstance(answer, str):
                failed.append(f"{row['style']} {row['source_name']}: {answer}")
                continue
            row["index"] = len(kept)
            array[len(kept)] = answer
            kept.append(row)
    array.flush()
    if failed:
        final = np.lib.format.open_memmap(out / "images.npy", "w+", np.uint8, (len(kept), *shape[1:]))
        for start in range(0, len(kept), 1024):
            stop = min(start + 1024, len(kept))
            final[start:stop] = array[start:stop]
        final.flush()
        draft.unlink()
    else:
        draft.replace(out / "images.npy")
    print(f"images that could not be drawn: {len(failed)}")
    for line in failed:
        print(f"  {line}")
    return kept


def _write_tables(
    out: Path,
    modules: Path,
    concepts: dict[str, Concept],
    concept_split: dict[str, str],
    rows: Sequence[dict[str, Any]],
) -> None:
    with (out / "images.jsonl").open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    listing = [
        {
            "hexcode": concept.hexcode,
            "emoji": concept.emoji,
            "name": concept.name,
            "tags": list(concept.tags),
            "group": concept.group,
            "subgroup": concept.subgroup,
            "split": concept_split[concept.hexcode],
        }
        for concept in concepts.values()
    ]
    licenses: dict[str, dict[str, str]] = {}
    for row in rows:
        if row["style"] not in licenses:
            manifest = read_json(modules / row["package"] / "package.json")
            licenses[row["style"]] = {
                "package": row["package"],
                "version": manifest["version"],
                "license": row["license"],
            }
    for name, content in (("concepts", listing), ("licenses", licenses)):
        text = json.dumps(content, ensure_ascii=False, indent=1)
        (out / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def _report(concepts: dict[str, Concept], rows: Sequence[dict[str, Any]]) -> None:
    for line in _report_lines(concepts, rows):
        print(line)


def _report_lines(concepts: dict[str, Concept], rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    splits = (
        "train",
        "val_style",
        "val_concept",
        "test_concept",
        "test_style",
        "unused",
    )
    base = {concept.hexcode for concept in concepts.values()}
    counts = Counter((row["style"], row["split"]) for row in rows)
    covered: dict[str, set[str]] = {}
    for row in rows:
        covered.setdefault(row["style"], set()).add(row["concept"])
    yield f"{'style':24}{'all':>7}" + "".join(f"{s:>13}" for s in splits) + "  coverage"
    for style, seen in covered.items():
        numbers = [counts[style, split] for split in splits]
        share = len(seen & base) / len(base)
        columns = "".join(f"{number:>13}" for number in numbers)
        yield f"{style:24}{sum(numbers):>7}{columns}  {share:7.1%}"
    totals = Counter(row["split"] for row in rows)
    columns = "".join(f"{totals[split]:>13}" for split in splits)
    yield f"{'total':24}{len(rows):>7}{columns}  ({len(base)} base concepts)"


if __name__ == "__main__":
    main()
