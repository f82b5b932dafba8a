"""The page that `tf-clip classify --html` writes: one file, images and bars inside."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from tf_clip.cli.page_templates import fill
from tf_clip.cli.thumbnails import as_data_uri

_THUMBNAIL = 320


def page(scored: Sequence[tuple[Path, Sequence[tuple[str, float]]]], model: str) -> str:
    """Returns a page of images with their labels.

    Args:
        scored: each image's path and its (label, probability) pairs, best first.
        model: what the model is called.

    Returns:
        HTML with everything inside it: no scripts, no other files.
    """
    figures = "\n".join(_figure(path, scores) for path, scores in scored)
    return fill("classification.html", count=str(len(scored)), model=escape(model), figures=figures)


def _figure(path: Path, scores: Sequence[tuple[str, float]]) -> str:
    bars = "".join(
        f'<div class="row"><span>{escape(label)}</span><span>{score:.1%}</span>'
        f'<div class="rail"><div style="width: {score:.2%}"></div></div></div>'
        for label, score in scores
    )
    best, name = escape(scores[0][0]), escape(path.name)
    address = as_data_uri(path, _THUMBNAIL)
    return f'<figure><img alt="{best}" src="{address}"><figcaption>{name}</figcaption>{bars}</figure>'
