"""Templates of prompts that public results were measured with."""

from __future__ import annotations

import functools
import json
from pathlib import Path

_FILE = Path(__file__).parent / "templates.json"


@functools.cache
def template_sets() -> dict[str, tuple[str, ...]]:
    """Returns all sets of templates by name.

    Returns:
        `imagenet`: the 80 templates that CLIP's paper averages on ImageNet. `imagenet_simple`: 7 of them, which
        OpenAI's notebook selects as almost as good. And those of the paper's 26 other data sets, such as `cifar10`,
        `food101` and `oxford_pets`. Each has `{}` once, where the class's name goes.

    Example:
        >>> template_sets()["imagenet_simple"][0]
        'itap of a {}.'

    Source: OpenAI's notebook "Prompt Engineering for ImageNet", and `data/prompts.md` of the same repository,
    under the MIT license beside the file.
    """
    sets = json.loads(_FILE.read_text(encoding="utf-8"))["sets"]
    return {name: tuple(templates) for name, templates in sets.items()}


def template_set(name: str) -> tuple[str, ...]:
    """Returns the templates of a set.

    Args:
        name: `imagenet`, `imagenet_simple`, or a data set's in small letters, such as `cifar10`; see `template_sets`.

    Raises:
        ValueError: there is no such set.
    """
    if name not in template_sets():
        raise ValueError(
            f"`name` must be one of {', '.join(template_sets())}. Received: name={name!r}. "
            "Or pass templates of your own, such as 'a photo of a {}.'."
        )
    return template_sets()[name]
