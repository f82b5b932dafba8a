"""The pages that commands write are files in `pages/`, with `$name` where a value goes."""

from __future__ import annotations

from pathlib import Path
from string import Template


def fill(page: str, **values: str) -> str:
    """Returns a page with its values, which must be HTML already.

    Args:
        page: a file in `pages/`.
        **values: by the names in the file.
    """
    template = Template((Path(__file__).parent / "pages" / page).read_text(encoding="utf-8"))
    return template.substitute(values)
