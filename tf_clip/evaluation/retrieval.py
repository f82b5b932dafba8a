"""How well images and captions find each other, in memory that does not grow with the product of their numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np

from tf_clip.evaluation.ranks import rank_metrics

# Added to a cosine in float64, it rounds it to 2**-30. Sums of the same terms in another order differ by 2**-50: the
# same caption then ties with itself, wherever in a chunk it lies; what differs in float32 hardly ever ties.
_ROUNDING = 2.0**22


@dataclasses.dataclass(frozen=True)
class RetrievalReport:
    """How well images and captions find each other.

    Args:
        image_to_text: `R@1`, `R@5`, `R@10`, `MRR`, `mean_rank` and `median_rank` of images that look for a caption.
        text_to_image: the same of captions that look for their image.
        image_ranks: int64 `[num_images]`, from 1: where each image found the first of its captions.
        text_ranks: int64 `[num_texts]`, from 1: where each caption found its image.
    """

    image_to_text: dict[str, float]
    text_to_image: dict[str, float]
    image_ranks: np.ndarray
    text_ranks: np.ndarray


def retrieval_report(
    image_embeds: Any, text_embeds: Any, image_of_text: Any = None, *, chunk_size: int = 1024
) -> RetrievalReport:
    """Ranks all captions for each image and all images for each caption, by cosine similarity.

    The ranks are exact, but all similarities are never in memory: only `chunk_size` x `chunk_size` of them at a time.

    Args:
        image_embeds: float `[num_images, projection_dim]`; of any length, since they are compared by direction.
        text_embeds: float `[num_texts, projection_dim]`.
        image_of_text: int `[num_texts]`, the image that each caption is of; every image has at least one. None
            where caption i is of image i.
        chunk_size: images, and captions, compared at a time; bounds the memory and changes nothing else.

    Returns:
        The figures of both directions, and the ranks they are made of. An image with several captions looks for any
        of them: its rank is that of the best, and its other captions are no rivals. A tie counts against the query,
        so that a model which embeds everything alike finds nothing.

    Raises:
        ValueError: the shapes do not fit, an embedding has no direction (zeros or not finite), a caption is of no
            image, an image has no caption, or there is nothing to rank.

    Example:
        >>> import numpy as np
        >>> report = retrieval_report(np.eye(2), np.eye(2)[[0, 1, 1]], image_of_text=[0, 1, 0])
        >>> report.image_to_text["R@1"], report.text_to_image["R@1"]
        (0.5, 0.6666666666666666)

    Source: Karpathy and Fei-Fei 2015, section 4.2, and what followed it on Flickr30k and COCO. Similarities are
    computed in float64 and rounded to a billionth, so that two equal captions tie.
    """
    images, texts = _embeddings(image_embeds, "image_embeds"), _embeddings(text_embeds, "text_embeds")
    if images.shape[1] != texts.shape[1]:
        raise ValueError(
            "`text_embeds` must be as wide as `image_embeds`. Received: "
            f"image_embeds.shape={images.shape}, text_embeds.shape={texts.shape}. Embed both with one model."
        )
    if chunk_size < 1:
        raise ValueError(f"`chunk_size` must be positive. Received: chunk_size={chunk_size!r}. Leave it at 1024.")
    owners = _owners(image_of_text, len(images), len(texts))
    image_ranks, text_ranks = _ranks(images, texts, owners, chunk_size)
    return RetrievalReport(rank_metrics(image_ranks), rank_metrics(text_ranks), image_ranks, text_ranks)


def retrieval_metrics(similarities: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    """Scores a ranking of candidates for each query, from similarities that are already there.

    Args:
        similarities: float `[num_queries, num_candidates]`; higher is more similar.
        targets: int `[num_queries]`, the index of each query's own candidate.

    Returns:
        `R@1`, `R@5` and `R@10`, the share of queries whose target is among the first 1, 5 or 10; `MRR`, the mean of
        1 / rank; `mean_rank` and `median_rank`. A tie counts against the query, so that a model that scores
        everything alike scores nothing.

    Raises:
        ValueError: the shapes do not fit, a target is not a candidate, or a similarity is not a number.
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
    return rank_metrics(target_ranks(similarities, targets))


def nearest(query_embeds: np.ndarray, candidate_embeds: np.ndarray, *, chunk_size: int = 1024) -> np.ndarray:
    """Finds the candidate of the highest cosine similarity for each query; of several, the first.

    Args:
        query_embeds: float `[num_queries, projection_dim]`.
        candidate_embeds: float `[num_candidates, projection_dim]`, at least one.
        chunk_size: queries, and candidates, compared at a time.

    Returns:
        int64 `[num_queries]`, indices of candidates.
    """
    found = np.zeros(len(query_embeds), np.int64)
    for rows in _chunks(len(query_embeds), chunk_size):
        queries = _directions(query_embeds[rows], "query_embeds")
        best = np.full(len(queries), -np.inf)
        for columns in _chunks(len(candidate_embeds), chunk_size):
            block = queries @ _directions(candidate_embeds[columns], "candidate_embeds").T + _ROUNDING
            places = block.argmax(axis=1)
            highest = block[np.arange(len(queries)), places]
            better = highest > best
            found[rows] = np.where(better, columns.start + places, found[rows])
            best = np.where(better, highest, best)
    return found


def target_ranks(scores: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Returns the rank of each row's target, from 1; what ties with it comes before it.

    Args:
        scores: float `[num_queries, num_candidates]`.
        targets: int `[num_queries]`, indices of candidates.

    Raises:
        ValueError: a score is not a number: it would compare as lower than everything.
    """
    if np.isnan(scores).any():
        raise ValueError("`scores` must be numbers. Received: NaN among them. Look for it in the model's weights.")
    own = np.take_along_axis(scores, targets[:, np.newaxis], axis=1)
    ranks: np.ndarray = np.sum(scores >= own, axis=1)  # from 1, since the target equals itself
    return ranks


def _embeddings(embeds: Any, name: str) -> np.ndarray:
    array = np.asarray(embeds)
    if array.ndim != 2 or array.size == 0:
        raise ValueError(
            f"`{name}` must have shape [rows, projection_dim], at least one row. Received: {name}.shape={array.shape}. "
            "Pass what the model returns for a batch."
        )
    return array


def _owners(image_of_text: Any, num_images: int, num_texts: int) -> np.ndarray:
    if image_of_text is None:
        if num_images != num_texts:
            raise ValueError(
                "`image_of_text` must be given where images and captions are not pairs. Received: "
                f"{num_images} images, {num_texts} captions. Pass the image's index for each caption."
            )
        return np.arange(num_texts)
    owners = np.asarray(image_of_text)
    if owners.shape != (num_texts,) or owners.dtype.kind not in "iu":
        raise ValueError(
            f"`image_of_text` must be {num_texts} integers, one for each caption. Received: "
            f"shape={owners.shape}, dtype={owners.dtype}. Pass the image's index for each caption."
        )
    if owners.min() < 0 or owners.max() >= num_images:
        raise ValueError(
            f"`image_of_text` must be indices below {num_images}. Received: from {owners.min()} to {owners.max()}. "
            "Check the order of the images."
        )
    without = np.flatnonzero(np.bincount(owners, minlength=num_images) == 0)
    if len(without):
        raise ValueError(
            f"`image_of_text` must name every image. Received: {len(without)} images without a caption, "
            f"the first at index {without[0]}. Leave them out."
        )
    return owners


def _ranks(images: np.ndarray, texts: np.ndarray, owners: np.ndarray, chunk_size: int) -> tuple[np.ndarray, np.ndarray]:
    own = np.empty(len(texts))
    for chunk in _chunks(len(texts), chunk_size):
        pairs = _directions(images[owners[chunk]], "image_embeds"), _directions(texts[chunk], "text_embeds")
        own[chunk] = np.einsum("td,td->t", *pairs) + _ROUNDING
    best = np.full(len(images), -np.inf)
    np.maximum.at(best, owners, own)
    image_ranks, text_ranks = np.ones(len(images), np.int64), np.ones(len(texts), np.int64)
    for rows in _chunks(len(images), chunk_size):
        some_images = _directions(images[rows], "image_embeds")
        for columns in _chunks(len(texts), chunk_size):
            block = some_images @ _directions(texts[columns], "text_embeds").T
            block += _ROUNDING
            owned = owners[columns] - rows.start
            here = np.flatnonzero((owned >= 0) & (owned < len(some_images)))
            block[owned[here], here] = -np.inf  # what belongs together is no rival
            image_ranks[rows] += np.sum(block >= best[rows, np.newaxis], axis=1)
            text_ranks[columns] += np.sum(block >= own[columns], axis=0)
    return image_ranks, text_ranks


def _chunks(length: int, chunk_size: int) -> Iterator[slice]:
    return (slice(start, min(start + chunk_size, length)) for start in range(0, length, chunk_size))


def _directions(embeds: np.ndarray, name: str) -> np.ndarray:
    embeds = embeds.astype(np.float64)
    lengths = np.linalg.norm(embeds, axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or not lengths.all():
        raise ValueError(
            f"`{name}` must have a direction in every row. Received: a row of zeros, or one with NaN or infinity. "
            "Look for it in the model's weights or in the images."
        )
    directions: np.ndarray = embeds / lengths
    return directions
