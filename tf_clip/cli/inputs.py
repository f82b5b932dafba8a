"""The files that arguments name: images in folders, and the lines of text files."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

IMAGE_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


def image_paths(given: Sequence[Path]) -> list[Path]:
    """Replaces each folder by the images in it, by name; files stay, whatever their suffix.

    Raises:
        ValueError: a folder has no images.
    """
    paths: list[Path] = []
    for path in given:
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
            if not inside:
                raise ValueError(
                    f"`IMAGE` must be an image or a folder of images. Received: {path}, a folder without any."
                )
            paths += inside
        else:
            paths.append(path)
    return paths


def labels_of(options: argparse.Namespace) -> list[str]:
    """Returns the labels of `--labels` or `--labels-file`."""
    if options.labels_file:
        return lines(options.labels_file, "--labels-file")
    return [label.strip() for label in options.labels.split(",")] if options.labels.strip() else []


def labels_if_given(options: argparse.Namespace) -> list[str] | None:
    """Returns the labels, None without `--labels` and `--labels-file`.

    Raises:
        ValueError: `--template` is given without labels.
    """
    if options.labels is not None or options.labels_file is not None:
        return labels_of(options)
    if options.template:
        raise ValueError(
            "`--template` must come with `--labels` or `--labels-file`. Received: --template alone. Add one."
        )
    return None


def texts_of(options: argparse.Namespace) -> list[str]:
    """Returns the texts of `--text` and `--texts-file`."""
    from_file = lines(options.texts_file, "--texts-file") if options.texts_file else []
    return [*(options.text or []), *from_file]


def lines(path: Path, option: str) -> list[str]:
    """Returns the lines of a file that are not empty, stripped.

    Raises:
        FileNotFoundError, ValueError: the file is missing, or is not UTF-8.
    """
    require_file(path, option)
    try:
        found = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"`{option}` must be a UTF-8 text file. Received: {path} ({error}). Convert it.") from error
    return [line.strip() for line in found if line.strip()]


def require_file(path: Path, option: str) -> None:
    """Checks that an option names an existing file.

    Raises:
        FileNotFoundError: it does not.
    """
    if not path.is_file():
        raise FileNotFoundError(f"`{option}` must be an existing file. Received: {path}. Check the path.")
