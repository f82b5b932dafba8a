"""Which rows of a batch of texts have to be computed, and in which order texts are encoded.

A text tower reads from left to right. So what stands behind a text's end is never read, and two texts that begin alike
have the same states as far as they do.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from tf_clip.families.clip.text_ends import LEGACY_EOS_TOKEN_ID

_MOST_PLACES = 4096


class TextPlan(NamedTuple):
    """The rows of a batch.

    Args:
        tokens: each row's token id, int32 `[rows]`.
        positions: each row's position, int32 `[rows]`.
        arrangement: the row that stands at each place of each text, int32 `[batch, length]`; any behind the end.
        sources: a place of each row, `text * length + position`, int32 `[rows]`.
        ends: the position that each text is pooled at, int32 `[batch]`.
        visible: which places may be read, bool `[batch, length]`; None for all.
    """

    tokens: np.ndarray
    positions: np.ndarray
    arrangement: np.ndarray
    sources: np.ndarray
    ends: np.ndarray
    visible: np.ndarray | None


class Texts(NamedTuple):
    """Texts, cut to the longest.

    Args:
        input_ids: int32 `[batch, length]`.
        ends: the position that each text is pooled at, int32 `[batch]`.
        visible: bool `[batch, length]`; None if nothing is hidden that is before an end.
    """

    input_ids: np.ndarray
    ends: np.ndarray
    visible: np.ndarray | None

    def take(self, rows: np.ndarray) -> Texts:
        """Returns some of them, cut to the longest of these."""
        length = int(self.ends[rows].max()) + 1
        if self.visible is None:
            return Texts(self.input_ids[rows, :length], self.ends[rows], None)
        return Texts(self.input_ids[rows], self.ends[rows], self.visible[rows])


def cut_texts(input_ids: np.ndarray, attention_mask: np.ndarray | None, eos_token_id: int) -> Texts:
    """Leaves out what is never read.

    Args:
        input_ids: int `[batch, length]`, at least one of each.
        attention_mask: `[batch, length]`, 0 hides; None hides nothing.
        eos_token_id: the configuration's; texts are pooled at the first, or at the highest id if this is 2.
    """
    input_ids = input_ids.astype(np.int32, copy=False)
    ends = (input_ids if eos_token_id == LEGACY_EOS_TOKEN_ID else input_ids == eos_token_id).argmax(axis=1)
    ends = ends.astype(np.int32)
    if attention_mask is not None:
        visible = attention_mask.astype(bool)
        is_before_end = np.arange(input_ids.shape[1]) <= ends[:, np.newaxis]
        if not visible[is_before_end].all():
            # Not cut: a place that sees nothing looks at all there is.
            return Texts(input_ids, ends, visible)
    length = int(ends.max()) + 1
    return Texts(input_ids[:, :length], ends, None)


def groups_of(texts: Texts, most_rows: int) -> Iterator[np.ndarray]:
    """Sorts texts by their length, those that begin alike side by side, and cuts them into batches.

    Args:
        texts: the texts.
        most_rows: of a batch; long texts come in smaller ones.

    Yields:
        The rows of a batch, int `[n]`.
    """
    # The last key counts first.
    order = np.lexsort((*texts.input_ids.T[::-1], texts.ends))
    start = 0
    while start < len(order):
        end = min(start + most_rows, len(order))
        while end - start > 1 and (end - start) * (texts.ends[order[end - 1]] + 1) > _MOST_PLACES:
            end = start + (end - start) // 2
        yield order[start:end]
        start = end


def shared_plan(texts: Texts) -> TextPlan:
    """Computes each beginning once, and nothing behind an end.

    Args:
        texts: the texts; with places hidden, a place that sees nothing looks at all of them, and nothing is shared.
    """
    input_ids, ends, visible = texts
    batch, length = input_ids.shape
    if visible is not None:
        return padded_plan(texts, batch, length)
    arrangement = np.zeros((batch, length), np.int32)
    sources = []
    rows = 0
    known = np.zeros(batch, np.int64)
    for position in range(length):
        alive = np.flatnonzero(ends >= position)
        # Two texts share a row if they shared the one before and have the same token.
        pairs = (known[alive] << 32) + input_ids[alive, position]
        _, first, which = np.unique(pairs, return_index=True, return_inverse=True)
        arrangement[alive, position] = rows + which
        known[alive] = which
        sources.append(alive[first] * length + position)
        rows += len(first)
    places = np.concatenate(sources).astype(np.int32)
    positions = (places % length).astype(np.int32)
    return TextPlan(input_ids.reshape(-1)[places], positions, arrangement, places, ends, None)


def padded_plan(texts: Texts, batch: int, length: int) -> TextPlan:
    """Computes every place of a batch of a fixed size, for compilers that make one program a size.

    Args:
        texts: the texts; if places are hidden, of this very size.
        batch: how many there are to be; the first is repeated.
        length: how long they are to be.
    """
    missing = (batch - len(texts.input_ids), length - texts.input_ids.shape[1])
    input_ids = np.pad(texts.input_ids, ((0, 0), (0, missing[1])), mode="edge")
    input_ids = np.concatenate([input_ids, np.repeat(input_ids[:1], missing[0], axis=0)])
    ends = np.concatenate([texts.ends, np.repeat(texts.ends[:1], missing[0])])
    places = np.arange(batch * length, dtype=np.int32)
    positions = (places % length).astype(np.int32)
    return TextPlan(input_ids.reshape(-1), positions, places.reshape(batch, length), places, ends, texts.visible)
