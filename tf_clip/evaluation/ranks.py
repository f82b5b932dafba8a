"""What ranks say about a search: recall, reciprocal rank, and how far down the answers are."""

from __future__ import annotations

import numpy as np

RECALL_AT = (1, 5, 10)


def rank_metrics(ranks: np.ndarray) -> dict[str, float]:
    """Sums up the ranks at which queries found what they looked for.

    Args:
        ranks: int `[num_queries]`, from 1, at least one.

    Returns:
        `R@1`, `R@5` and `R@10`, the share of ranks up to 1, 5 or 10; `MRR`, the mean of 1 / rank; `mean_rank` and
        `median_rank`.
    """
    return {
        **{f"R@{k}": float(np.mean(ranks <= k)) for k in RECALL_AT},
        "MRR": float(np.mean(1.0 / ranks)),
        "mean_rank": float(np.mean(ranks)),
        "median_rank": float(np.median(ranks)),
    }


def recall_curve(ranks: np.ndarray, longest: int) -> np.ndarray:
    """Returns the share of ranks up to k, for each k from 1.

    Args:
        ranks: int `[num_queries]`, from 1, at least one.
        longest: the largest k.

    Returns:
        float64 `[longest]`; never falls.
    """
    counts = np.bincount(np.minimum(ranks, longest + 1), minlength=longest + 2)
    return np.cumsum(counts[1 : longest + 1]) / len(ranks)
