"""A page as a reader sees it."""

from __future__ import annotations

import re
from html.parser import HTMLParser


class Text(HTMLParser):
    """What a reader sees, and what a page refers to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str | None] = []
        self.feed(page)
        self.text = re.sub(r"\s+", " ", " ".join(self.words))

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] != ["style"]:
            self.words.append(data)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href", "xlink:href")]


def require_self_contained(page: str) -> Text:
    seen = Text(page)
    assert not {"script", "link", "iframe", "object"} & set(seen.tags)
    assert all(str(address).startswith("data:image/png;base64,") for address in seen.addresses)
    assert "url(" not in page
    assert "@import" not in page
    return seen
