"""A page as a reader sees it."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any


class Text(HTMLParser):
    """What a reader sees, and what a page refers to."""

    def __init__(self, page: Any) -> None:
        super().__init__()
        self.words, self.tags, self.addresses = [], [], []
        self.feed(page)
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_data(self, data: bytes) -> None:
        if self.tags[-1:] != ["style"]:
            self.words.append(data)

    def handle_starttag(self, tag: Any, attributes: Any) -> None:
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href", "xlink:href")]


def require_self_contained(page: Any) -> Any:
    seen = Text(page)
    assert not {"script", "link", "iframe", "object"} & set(seen.tags)
    assert all(address.startswith("data:image/png;base64,") for address in seen.addresses)
    assert "url(" not in page
    assert "@import" not in page
    return seen
