"""Images with captions in all the files that training reads, sound and broken."""

from __future__ import annotations

import csv
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def image(index: Any, size: tuple[int, int] = (24, 28), file_format: Any = "PNG", **options: Any) -> Any:
    """Returns an encoded image of noise, each index another."""
    pixels = np.random.default_rng(index).integers(0, 256, (*size, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, file_format, **options)
    return file.getvalue()


def write_images(folder: Path, count: int, **options: Any) -> None:
    for index in range(count):
        (folder / f"{index}.png").write_bytes(image(index, **options))


def write_csv(path: Path, rows: Any, header: Any = ("image", "caption"), **options: Any) -> Any:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, **options).writerows([header, *rows])
    return path


def write_tar(path: Path, members: Any) -> Any:
    """Writes named members: bytes, text, values for JSON, or a whole `TarInfo`."""
    with tarfile.open(path, "w") as archive:
        for name, value in members:
            if isinstance(value, tarfile.TarInfo):
                archive.addfile(value)
                continue
            if not isinstance(value, (bytes, str)):
                value = json.dumps(value)
            data = value.encode() if isinstance(value, str) else value
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def write_records(path: Path, rows: Any) -> Any:
    """Writes TFRecords of features by name, lists of bytes."""
    import tensorflow as tf

    with tf.io.TFRecordWriter(str(path)) as writer:
        for row in rows:
            features = {
                name: tf.train.Feature(bytes_list=tf.train.BytesList(value=values)) for name, values in row.items()
            }
            writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())
    return path


def all_pairs(pairs: Any) -> Any:
    """Reads every pair, in order."""
    return [(pair.image, list(pair.captions)) for pair in map(pairs.read, range(len(pairs)))]


def faults(skipped: Any) -> Any:
    """Returns skipped examples without the folder of their file."""
    return [(row.where.rpartition("/")[2], row.reason) for row in skipped]
