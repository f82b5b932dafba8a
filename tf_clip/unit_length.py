"""Rows of unit length: what embeddings are compared as."""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops


def unit_length(embeds: Any) -> Any:
    """Divides each row of a tensor by its Euclidean length, with no epsilon, as the reference does."""
    return embeds / ops.sqrt(ops.sum(ops.square(embeds), axis=-1, keepdims=True))


def unit_rows(features: Any) -> np.ndarray:
    """Returns features of any backend, `[n, width]`, as float32 rows of unit length."""
    rows: np.ndarray = ops.convert_to_numpy(features).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows
