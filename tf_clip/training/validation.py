"""Validation pairs: split off from the training pairs, and listed as evaluation takes them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import overload

import numpy as np

from tf_clip.data.pairs import Pair, Pairs
from tf_clip.data.skipped import SkippedExample
from tf_clip.errors import require
from tf_clip.tasks.reading import readable


class SomePairs(Pairs):
    """Some rows of other pairs, numbered from 0.

    Args:
        pairs: all of them.
        rows: which, all different.
        skipped: what these could not use.
    """

    def __init__(self, pairs: Pairs, rows: np.ndarray, skipped: Sequence[SkippedExample] = ()) -> None:
        self._pairs, self._rows = pairs, np.asarray(rows, np.int64)
        self.skipped = list(skipped)
        self.groups = None if pairs.groups is None else pairs.groups[self._rows]

    def __len__(self) -> int:
        return len(self._rows)

    def where(self, row: int) -> str:
        """Names a pair in a message."""
        return self._pairs.where(int(self._rows[row]))

    def read(self, row: int) -> Pair:
        """Reads one."""
        return self._pairs.read(int(self._rows[row]))

    def shuffled(self, generator: np.random.Generator) -> np.ndarray:
        """Draws an order in the way of the pairs they are from."""
        place = np.full(len(self._pairs), -1)
        place[self._rows] = np.arange(len(self._rows))
        order: np.ndarray = place[self._pairs.shuffled(generator)]
        return order[order >= 0]


def split_pairs(pairs: Pairs, share: float, *, seed: int = 0, keep_groups: bool = True) -> tuple[SomePairs, SomePairs]:
    """Keeps pairs back from training, the same ones for the same seed.

    Args:
        pairs: all of them.
        share: of the pairs, above 0 and below 1, that are kept back; one at least.
        seed: decides which.
        keep_groups: keep a group on one side, so that no image is on both; False for folders of classes, where
            all images of a class are one group.

    Returns:
        The pairs to train on, with all skipped examples, and those kept back.

    Raises:
        ValueError: `share` is out of range, or there are too few pairs for two sides.
    """
    require(0.0 < share < 1.0, "share", "above 0 and below 1", share, "Take 0.1.")
    groups = pairs.groups if keep_groups and pairs.groups is not None else np.arange(len(pairs))
    units = np.unique(groups)
    count = max(1, round(share * len(units)))
    if count >= len(units):
        raise ValueError(
            f"`pairs` must be more than are kept back. Received: {len(units)} images, of which {count} would be. "
            "Add some, or keep back less."
        )
    kept_back = np.isin(groups, np.random.default_rng(seed).permutation(units)[:count])
    rows = np.arange(len(pairs))
    return SomePairs(pairs, rows[~kept_back], pairs.skipped), SomePairs(pairs, rows[kept_back])


class PairImages(Sequence[bytes]):
    """The image files of some pairs, each read when it is asked for.

    Args:
        pairs: the pairs.
        rows: which.
    """

    def __init__(self, pairs: Pairs, rows: Sequence[int]) -> None:
        self._pairs, self._rows = pairs, rows

    def where(self, index: int) -> str:
        """Names an image in a message."""
        return self._pairs.where(self._rows[index])

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> bytes: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[bytes]: ...
    def __getitem__(self, index: int | slice) -> bytes | Sequence[bytes]:
        if isinstance(index, slice):
            return [self._pairs.read(row).image for row in self._rows[index]]
        return self._pairs.read(self._rows[index]).image


def images_and_captions(pairs: Pairs) -> tuple[PairImages, list[list[str]], list[SkippedExample]]:
    """Lists the different images of pairs, each with all captions that any row has for it.

    Args:
        pairs: the pairs; each is read once, and its image's bytes are not kept.

    Returns:
        Images, the captions of each, and the unreadable examples.

    Raises:
        ValueError: none is readable.
    """
    number_of: dict[bytes, int] = {}
    rows: list[int] = []
    captions: list[list[str]] = []
    skipped = list(pairs.skipped)

    def skip(row: int, reason: str) -> None:
        skipped.append(SkippedExample(pairs.where(row), reason))

    for row, pair in readable(pairs.read, range(len(pairs)), skip):
        number = number_of.setdefault(hashlib.blake2b(pair.image, digest_size=16).digest(), len(rows))
        if number == len(rows):
            rows.append(row)
            captions.append([])
        captions[number] += [caption for caption in pair.captions if caption not in captions[number]]
    if not rows:
        reasons = "; ".join(row.reason for row in skipped[:3]) or "no rows"
        raise ValueError(f"`pairs` must hold a readable pair. Received: none ({reasons}). Check the files.")
    return PairImages(pairs, rows), captions, skipped
