"""The page that `tf-clip classify --html` writes: one file, images and bars inside."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path

from PIL import Image

from tf_clip.preprocessing.images.opening import open_image

_THUMBNAIL = 320

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>tf_clip: {count} images</title>
<style>
:root {{ color-scheme: light dark; --ink: #1c2430; --paper: #f6f7f9; --card: #fff; --bar: #3b82f6; --rail: #e6e9ee; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --ink: #e6e9ee; --paper: #12161c; --card: #1b212a; --bar: #60a5fa; --rail: #2b333f; }}
}}
body {{ margin: 2rem auto; max-width: 72rem; padding: 0 1rem; font: 16px/1.45 system-ui, sans-serif;
  color: var(--ink); background: var(--paper); }}
h1 {{ font-size: 1.3rem; }}
main {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(16rem, 1fr)); gap: 1rem; }}
figure {{ margin: 0; padding: 1rem; border-radius: .8rem; background: var(--card); }}
img {{ display: block; width: 100%; height: 10rem; object-fit: contain; }}
figcaption {{ margin: .8rem 0; font-size: .85rem; opacity: .7; overflow-wrap: anywhere; }}
.row {{ display: grid; grid-template-columns: 1fr auto; gap: .1rem .6rem; margin: .45rem 0; }}
.row:first-of-type {{ font-weight: 600; }}
.rail {{ grid-column: 1 / -1; height: .4rem; border-radius: .2rem; background: var(--rail); }}
.rail div {{ height: 100%; border-radius: .2rem; background: var(--bar); }}
</style>
<h1>{count} images, named by {model}</h1>
<main>
{figures}
</main>
</html>
"""


def page(scored: Sequence[tuple[Path, Sequence[tuple[str, float]]]], model: str) -> str:
    """Returns a page of images with their labels.

    Args:
        scored: each image's path and its (label, probability) pairs, best first.
        model: what the model is called.

    Returns:
        HTML with everything inside it: no scripts, no other files.
    """
    figures = "\n".join(_figure(path, scores) for path, scores in scored)
    return _PAGE.format(count=len(scored), model=escape(model), figures=figures)


def _figure(path: Path, scores: Sequence[tuple[str, float]]) -> str:
    bars = "".join(
        f'<div class="row"><span>{escape(label)}</span><span>{score:.1%}</span>'
        f'<div class="rail"><div style="width: {score:.2%}"></div></div></div>'
        for label, score in scores
    )
    best, name = escape(scores[0][0]), escape(path.name)
    address = as_data_uri(path, _THUMBNAIL)
    return f'<figure><img alt="{best}" src="{address}"><figcaption>{name}</figcaption>{bars}</figure>'


def as_data_uri(image: Path | bytes, largest: int) -> str:
    """Returns an image file as an address that holds it, made smaller if a side is longer than `largest` pixels."""
    opened = Image.fromarray(open_image(image))
    opened.thumbnail((largest, largest))
    data = io.BytesIO()
    opened.save(data, "PNG")
    return "data:image/png;base64," + base64.b64encode(data.getvalue()).decode("ascii")
