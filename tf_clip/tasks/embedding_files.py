"""Images and texts of any number to embeddings on the disk: in bounded memory, and again from where it stopped.

A folder gets `image_embeds.npy` and `images.txt`, or `text_embeds.npy`: row i belongs to line i. What is done is noted
in chunks, each after its rows are on the disk, so that a job that is killed and started again gives the same file.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import mmap
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from tf_clip.files import write_text
from tf_clip.preprocessing.processor import Processor
from tf_clip.tasks.reading import readable
from tf_clip.unit_length import unit_rows

Encode = Callable[..., Any]
TEXT_CHUNK = 16384
"""Texts that are sorted by length together."""
IMAGE_CHUNK = 1024
_BATCHES_AHEAD = 2


@dataclasses.dataclass(frozen=True)
class EmbeddingJob:
    """What a job did.

    Args:
        count: rows of the file.
        resumed: rows that were there before.
        skipped: from a row to the reason why it is NaN.
        waited: the share of the time in which the model waited for input.
    """

    count: int
    resumed: int
    skipped: dict[int, str]
    waited: float


class EmbeddingFile:
    """Rows on the disk, and which chunks of them are done.

    Args:
        folder: where the files are; made when missing.
        kind: `"image"` or `"text"`.
        shape: rows and width.
        chunk: rows of a chunk.
        inputs: what tells these inputs, this model and this size of batches from others.

    Raises:
        ValueError: the folder has a job of other inputs.
    """

    def __init__(self, folder: Path, kind: str, shape: tuple[int, int], chunk: int, inputs: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._chunk, self._count = chunk, shape[0]
        self._progress = folder / f"{kind}_progress.json"
        path = folder / f"{kind}_embeds.npy"
        settings = {"inputs": inputs, "rows": shape[0], "width": shape[1], "chunk": chunk}
        if self._progress.is_file() and path.is_file():
            self._state = json.loads(self._progress.read_text("utf-8"))
            if self._state["settings"] != settings:
                raise ValueError(
                    "`folder` must be new, or hold a job of the same inputs and model to go on with. Received: "
                    f"folder={str(folder)!r}, which has another. Choose another folder, or delete this one."
                )
            self._rows = np.load(path, mmap_mode="r+")
        else:
            self._state = {"settings": settings, "done": [], "skipped": {}}
            self._rows = np.lib.format.open_memmap(path, "w+", np.float32, shape)
            self._write()

    @property
    def skipped(self) -> dict[int, str]:
        """From a row to the reason why it is NaN."""
        return {int(row): reason for row, reason in self._state["skipped"].items()}

    def chunks(self) -> Iterator[tuple[int, int]]:
        """Yields the first row of each chunk that is not done, and the row after its last."""
        done = set(self._state["done"])
        for start in range(0, self._count, self._chunk):
            if start not in done:
                yield start, min(start + self._chunk, self._count)

    def remaining(self) -> int:
        """Returns how many rows are not done."""
        return sum(end - start for start, end in self.chunks())

    def put(self, rows: Sequence[int] | np.ndarray, features: np.ndarray) -> None:
        """Writes rows at unit length."""
        self._rows[rows] = unit_rows(features)

    def finish(self, start: int, skipped: dict[int, str]) -> None:
        """Notes that a chunk is done, after its rows are on the disk."""
        for row in skipped:
            self._rows[row] = np.nan
        self._rows.flush()
        if hasattr(mmap, "MADV_DONTNEED"):
            # Else all that was ever written would be in this process's memory until the job ends.
            pages: Any = self._rows.base
            pages.madvise(mmap.MADV_DONTNEED)
        self._state["done"].append(start)
        self._state["skipped"].update({str(row): reason for row, reason in skipped.items()})
        self._write()

    def _write(self) -> None:
        write_text(self._progress, json.dumps(self._state))


def embed_images_to_file(
    encode: Encode,
    processor: Processor,
    paths: Sequence[Path],
    folder: str | Path,
    *,
    width: int,
    model: str = "",
    batch_size: int = 32,
    threads: int = 2,
    on_progress: Callable[[int], None] | None = None,
) -> EmbeddingJob:
    """Embeds images into `image_embeds.npy`; the next batches are read while one is encoded.

    Args:
        encode: from pixels to features.
        processor: the model's.
        paths: the images. What cannot be read has a row of NaN, and is reported.
        folder: where the files are written, or where a job of the same images and model is to go on.
        width: of the features.
        model: tells it from others, as `file_facts` does; another one is another job.
        batch_size: images a forward pass; bounds the memory. Another one is another job, since the last bits of
            features depend on it.
        threads: that read images.
        on_progress: called with the number of images just done.

    Returns:
        What was done.

    Raises:
        ValueError: the folder has another job.
    """
    folder = Path(folder)
    digest = _digest([model, str(batch_size), *map(file_facts, paths)])
    file = EmbeddingFile(folder, "image", (len(paths), width), IMAGE_CHUNK, digest)
    (folder / "images.txt").write_bytes(b"".join(bytes(path) + b"\n" for path in paths))
    resumed, clock = len(paths) - file.remaining(), _Clock()

    def pixels_of(row: int) -> np.ndarray:
        return np.asarray(processor(images=paths[row], return_tensors="np")["pixel_values"][0])

    def read(rows: Sequence[int]) -> tuple[list[int], np.ndarray, dict[int, str]]:
        failures: dict[int, str] = {}
        found = dict(readable(pixels_of, rows, failures.__setitem__))
        return list(found), np.stack(list(found.values())) if found else np.empty(0), failures

    todo = list(file.chunks())
    batches = (
        (start, batch, min(batch + batch_size, end)) for start, end in todo for batch in range(start, end, batch_size)
    )
    ends = {start: end for start, end in todo}
    skipped: dict[int, str] = {}
    with ThreadPoolExecutor(threads) as pool:
        jobs = ((start, last, pool.submit(read, range(first, last))) for start, first, last in batches)
        for start, last, job in _ahead(jobs, max(_BATCHES_AHEAD, threads)):
            with clock.waiting():
                rows, pixels, failures = job.result()
            if rows:
                file.put(rows, np.asarray(encode(pixels)))
            skipped |= failures
            if on_progress:
                on_progress(len(rows) + len(failures))
            if last == ends[start]:
                file.finish(start, skipped)
                skipped = {}
    return EmbeddingJob(len(paths), resumed, file.skipped, clock.share())


def embed_texts_to_file(
    encode: Encode,
    processor: Processor,
    texts_file: str | Path,
    folder: str | Path,
    *,
    width: int,
    longest: int,
    padding: str = "longest",
    model: str = "",
    batch_size: int = 256,
    on_progress: Callable[[int], None] | None = None,
) -> EmbeddingJob:
    """Embeds the lines of a file into `text_embeds.npy`, sorted by length chunk by chunk.

    Args:
        encode: from `input_ids` and `attention_mask` to features.
        processor: the model's.
        texts_file: UTF-8, a text a line; lines without a letter do not count. It is never in memory as a whole.
        folder: where the files are written, or where a job of the same texts and model is to go on.
        width: of the features.
        longest: tokens that the model takes; longer texts are cut.
        padding: of the model's family; with `"max_length"` all texts are encoded at the longest length.
        model: see `embed_images_to_file`.
        batch_size: texts a forward pass; bounds the memory. See `embed_images_to_file`.
        on_progress: called with the number of texts just done.

    Returns:
        What was done.

    Raises:
        ValueError: the folder has another job.
    """
    count, digest = 0, hashlib.sha256(f"{model}\n{batch_size}\n{longest}\n".encode())
    for text in text_lines(texts_file):
        count += 1
        digest.update(text.encode() + b"\n")
    file = EmbeddingFile(Path(folder), "text", (count, width), TEXT_CHUNK, digest.hexdigest())
    resumed, clock = count - file.remaining(), _Clock()
    todo = dict(file.chunks())
    lines = text_lines(texts_file)
    longest = min(longest, processor.tokenizer.model_max_length)

    def tokens_of(texts: list[str]) -> dict[str, np.ndarray]:
        tokens = processor(text=texts, padding=padding, max_length=longest, return_tensors="np")
        return {name: np.asarray(value) for name, value in tokens.items()}

    chunks = ((start, list(islice(lines, TEXT_CHUNK))) for start in range(0, count, TEXT_CHUNK))
    with ThreadPoolExecutor(1) as pool:
        jobs = ((start, 0, pool.submit(tokens_of, texts)) for start, texts in chunks if start in todo)
        for start, _, job in _ahead(jobs, 1):
            with clock.waiting():
                tokens = job.result()
            lengths = tokens["attention_mask"].sum(1)
            order = np.argsort(lengths, kind="stable")
            for first in range(0, len(order), batch_size):
                rows = order[first : first + batch_size]
                length = int(lengths[rows[-1]]) if padding == "longest" else longest
                features = encode(**{name: value[rows, :length] for name, value in tokens.items()})
                file.put(start + rows, np.asarray(features))
                if on_progress:
                    on_progress(len(rows))
            file.finish(start, {})
    return EmbeddingJob(count, resumed, {}, clock.share())


def text_lines(path: str | Path) -> Iterator[str]:
    """Yields the lines of a UTF-8 file that are not empty, stripped.

    Raises:
        ValueError: it is not UTF-8.
    """
    try:
        with Path(path).open(encoding="utf-8-sig") as file:
            for line in file:
                if line.strip():
                    yield line.strip()
    except UnicodeDecodeError as error:
        raise ValueError(f"`texts_file` must be a UTF-8 text file. Received: {path} ({error}). Convert it.") from error


def file_facts(path: Path) -> str:
    """Returns where a file is, its size and when it was written: what tells it from one that took its place."""
    place = path.resolve()
    if not place.is_file():
        return str(place)
    facts = place.stat()
    return f"{place} {facts.st_size} {facts.st_mtime_ns}"


def _ahead(jobs: Iterator[tuple[int, int, Future[Any]]], count: int) -> Iterator[tuple[int, int, Future[Any]]]:
    """Yields jobs in order, `count` more of them under way."""
    waiting: deque[tuple[int, int, Future[Any]]] = deque(islice(jobs, count + 1))
    while waiting:
        yield waiting.popleft()
        waiting.extend(islice(jobs, 1))


def _digest(words: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for word in words:
        digest.update(word.encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()


class _Clock:
    """Tells which share of the time since it was made was spent in `waiting`."""

    def __init__(self) -> None:
        self._start, self._waited = time.perf_counter(), 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the time of a block."""
        since = time.perf_counter()
        yield
        self._waited += time.perf_counter() - since

    def share(self) -> float:
        """Returns the share."""
        return self._waited / max(time.perf_counter() - self._start, 1e-9)
