"""How well queries find their own targets among candidates."""

from __future__ import annotations

import numpy as np

RECALL_AT = (1, 5, 10)


def retrieval_metrics(similarities: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Scores a ranking of candidates for each query.

    Args:
        similarities: float `[num_queries, num_candidates]`; higher is more similar.
        targets: int `[num_queries]`, the index of each query's own candidate.

    Returns:
        `R@1`, `R@5` and `R@10`, the share of queries whose target is among the first 1, 5 or 10, and
        `MRR`, the mean of 1 / rank. A tie counts against the query, so that a model that scores
        everything alike scores nothing.

    Raises:
        ValueError: the shapes do not fit, or a target is not a candidate.
    """
    similarities, targets = np.asarray(similarities), np.asarray(targets)
    if similarities.ndim != 2 or targets.shape != similarities.shape[:1]:
        raise ValueError(
            "`targets` must hold one index for each row of `similarities`. "
            f"Received: similarities.shape={similarities.shape}, targets.shape={targets.shape}. Pass one per query."
        )
    if targets.size == 0 or targets.min() < 0 or targets.max() >= similarities.shape[1]:
        raise ValueError(
            f"`targets` must be indices below {similarities.shape[1]}, at least one. "
            f"Received: targets={targets!r}. Check the order of the candidates."
        )
    own = similarities[np.arange(len(targets)), targets]
    ranks = np.sum(similarities >= own[:, np.newaxis], axis=1)  # from 1, since the target equals itself
    metrics = {f"R@{k}": float(np.mean(ranks <= k)) for k in RECALL_AT}
    return {**metrics, "MRR": float(np.mean(1.0 / ranks))}
