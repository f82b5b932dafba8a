"""A perfect hash table of whole numbers, to be looked up with what every LiteRT runtime has built in."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_KEYS_PER_BUCKET = 3
_TRIALS = 64


class PairHash(NamedTuple):
    """Where a key is, if it is there: in slot `(key ^ twists[key % len(twists)]) % len(keys)`.

    Args:
        twists: int32 `[buckets]`.
        keys: int32 `[slots]`, what is in each.
        index: int32 `[slots]`, which of the keys given that is, -1 in empty slots.

    Source: Belazzougui, Botelho and Dietzfelbinger 2009, "Hash, displace, and compress".
    """

    twists: np.ndarray
    keys: np.ndarray
    index: np.ndarray

    @classmethod
    def of(cls, keys: np.ndarray) -> PairHash:
        """Finds twists that bring each key to a slot of its own; the keys are distinct, int32 `[n]`."""
        slots, buckets = _prime_from(len(keys) * 21 // 20 + 2), _prime_from(len(keys) // _KEYS_PER_BUCKET + 2)
        generator = np.random.default_rng(0)
        twists, index = np.zeros(buckets, np.int32), np.full(slots, -1, np.int32)
        bucket_of = keys % buckets
        order = np.argsort(bucket_of, kind="stable")
        buckets_members = np.split(order, np.cumsum(np.bincount(bucket_of, minlength=buckets))[:-1])
        # The fullest first, while there is room; a single key fits any slot that is left.
        by_size = sorted(enumerate(buckets_members), key=lambda pair: -len(pair[1]))
        for bucket, members in by_size:
            if len(members) > 1:
                twists[bucket] = _twist(keys[members], index, generator)
                index[(keys[members] ^ twists[bucket]) % slots] = members
        singles = [(bucket, members[0]) for bucket, members in by_size if len(members) == 1]
        for (bucket, member), slot in zip(singles, np.flatnonzero(index < 0), strict=False):
            twists[bucket] = keys[member] ^ np.int32(slot)
            index[slot] = member
        return cls(twists, np.where(index < 0, 0, np.append(keys, np.int32(0))[index]).astype(np.int32), index)


def _twist(keys: np.ndarray, index: np.ndarray, generator: np.random.Generator) -> np.int32:
    """Tries numbers until one brings all keys of a bucket to different empty slots."""
    while True:
        trials = generator.integers(-(2**31), 2**31, _TRIALS).astype(np.int32)
        slots = np.sort((keys ^ trials[:, np.newaxis]) % len(index), axis=1)
        fits = (index[slots] < 0).all(axis=1) & (np.diff(slots, axis=1) > 0).all(axis=1)
        if fits.any():
            return trials[np.argmax(fits)]


def _prime_from(number: int) -> int:
    """Returns the least prime that is not below a number."""
    while any(number % divisor == 0 for divisor in range(2, int(number**0.5) + 1)):
        number += 1
    return number
