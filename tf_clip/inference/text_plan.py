"""The plan of a batch of texts: which rows have to be computed, and in which order texts are encoded.

A causal text tower reads from left to right. Tokens behind a text's end change nothing, and two texts that begin with
the same tokens have the same states at those tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

_MOST_TOKENS = 4096


class TextPlan(NamedTuple):
    """The rows of a batch.

    Args:
        tokens: the token id of each row, int32 `[rows]`.
        positions: the position of each row in its text, int32 `[rows]`.
        arrangement: the row of each token of each text, int32 `[batch, length]`; any row behind a text's end.
        sources: one token that each row stands for, as `text * length + position`, int32 `[rows]`.
        ends: the position that each text is pooled at, int32 `[batch]`.
        visible: which tokens may be read, bool `[batch, length]`; None for all.
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
        visible: bool `[batch, length]`; None if no token up to an end is hidden.
    """

    input_ids: np.ndarray
    ends: np.ndarray
    visible: np.ndarray | None

    def take(self, indices: np.ndarray) -> Texts:
        """Returns some of the texts, cut to the longest of these."""
        length = int(self.ends[indices].max()) + 1
        if self.visible is None:
            return Texts(self.input_ids[indices, :length], self.ends[indices], None)
        return Texts(self.input_ids[indices], self.ends[indices], self.visible[indices])


def cut_texts(input_ids: np.ndarray, attention_mask: np.ndarray | None, ends: np.ndarray) -> Texts:
    """Leaves out the tokens behind the last end, and a mask that hides only tokens behind ends.

    Args:
        input_ids: int `[batch, length]`, at least one text and one token.
        attention_mask: `[batch, length]`, 0 hides; None hides nothing.
        ends: the position that each text is pooled at, int `[batch]`.
    """
    input_ids, ends = input_ids.astype(np.int32, copy=False), ends.astype(np.int32, copy=False)
    if attention_mask is not None:
        visible = attention_mask.astype(bool)
        is_up_to_end = np.arange(input_ids.shape[1]) <= ends[:, np.newaxis]
        if not visible[is_up_to_end].all():
            # Not cut: where all keys are hidden, attention averages over all of them, also over those behind the end.
            return Texts(input_ids, ends, visible)
    length = int(ends.max()) + 1
    return Texts(input_ids[:, :length], ends, None)


def groups_of(texts: Texts, most: int) -> Iterator[np.ndarray]:
    """Sorts texts by length and cuts them into batches; those of one length by tokens, so that beginnings meet.

    Args:
        texts: the texts.
        most: the most texts of a batch; batches of long texts are smaller.

    Yields:
        Which texts are in a batch, int `[n]`.
    """
    # np.lexsort sorts by its last key first.
    order = np.lexsort((*texts.input_ids.T[::-1], texts.ends))
    start = 0
    while start < len(order):
        end = min(start + most, len(order))
        while end - start > 1 and (end - start) * (texts.ends[order[end - 1]] + 1) > _MOST_TOKENS:
            end = start + (end - start) // 2
        yield order[start:end]
        start = end


def shared_plan(texts: Texts) -> TextPlan:
    """Plans each beginning once, and nothing behind an end.

    Args:
        texts: the texts. If a mask hides tokens, nothing is shared: two tokens with the same beginning may see others.
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
        # Two texts share a row if they shared the row before and have the same token.
        pairs = (known[alive] << 32) + input_ids[alive, position]
        _, first, which = np.unique(pairs, return_index=True, return_inverse=True)
        arrangement[alive, position] = rows + which
        known[alive] = which
        sources.append(alive[first] * length + position)
        rows += len(first)
    tokens = np.concatenate(sources).astype(np.int32)
    positions = (tokens % length).astype(np.int32)
    return TextPlan(input_ids.reshape(-1)[tokens], positions, arrangement, tokens, ends, None)


def padded_plan(texts: Texts, batch: int, length: int) -> TextPlan:
    """Plans every token of a batch of a fixed size, for compilers that make one program for each size.

    Args:
        texts: the texts; if a mask hides tokens, they must have this size.
        batch: the number of texts after padding; the first text is repeated.
        length: the length after padding.
    """
    missing = (batch - len(texts.input_ids), length - texts.input_ids.shape[1])
    input_ids = np.pad(texts.input_ids, ((0, 0), (0, missing[1])), mode="edge")
    input_ids = np.concatenate([input_ids, np.repeat(input_ids[:1], missing[0], axis=0)])
    ends = np.concatenate([texts.ends, np.repeat(texts.ends[:1], missing[0])])
    tokens = np.arange(batch * length, dtype=np.int32)
    positions = (tokens % length).astype(np.int32)
    return TextPlan(input_ids.reshape(-1), positions, tokens.reshape(batch, length), tokens, ends, texts.visible)
