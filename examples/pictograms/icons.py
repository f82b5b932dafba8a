"""The icon sets: what each offers, and which icons are worth learning from."""

import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from concepts import Concept, read_json
from rendering import Drawing
from sources import IconifySet, Image

MAX_ICONS = 25_000
# Sets number their drawings of one thing; a few of them are enough.
MAX_PER_CONCEPT = 3

# Words that say how an icon is drawn, not what it shows.
_LOOK = frozenset(
    """alt bold color color duo duotone fill filled flat freehand icon line outline
    outlined remix rounded sharp solid thick thin variant 24px""".split()
)
_COUNTERS = frozenset("one two three four five six seven eight nine ten".split())
# Words at the end of a name that turn it into a button about the thing.
_MODIFIERS = _LOOK | frozenset(
    """add alert bolt cancel check clock code cog delete disabled dollar down download
    edit exclamation export import left lock minus more move off open pause pencil pin
    play plus question refresh remove right search settings share slash small star
    stop sync up upload warning x""".split()
)
_NOISE_FIRST = frozenset(
    """align alpha arrange arrow arrows axis border brand caret chevron chevrons
    column corner flip format layout letter list logo number numeric paragraph
    pathfinder row select sort table text vector view widget zodiac""".split()
)
_NOISE_ANYWHERE = frozenset(
    """adobe airbnb amazon android asana baidu behance bitbucket
    brand chromecast debian discord dribbble dropbox evernote facebook figma firefox
    flickr github gitlab gitter gmail google instagram jira letter linkedin linux
    logo logos messenger microsoft netflix paypal pinterest qq reddit skype slack
    snapchat soundcloud spotify stripe swarm telegram tencent tiktok tumblr twitch
    twitter uber vimeo visa vk vlc wechat weibo whatsapp wordpress xing yahoo
    youtube""".split()
)
# Many of its names begin with words that are noise elsewhere ("arrow cluster").
_NO_NOISE = ("game-icons",)
_NOISE_CATEGORY = re.compile(r"brand|logo|arrow|letter|alpha / numeric|^numbers$", re.I)


@dataclass(frozen=True)
class IconSet:
    """One style of a set of the Iconify collection.

    Attributes:
        style: name of the style.
        prefix: name of the set.
        suffix: end of the names that belong to this style.
        other: ends of names that belong to another one, or are too small.
    """

    style: str
    prefix: str
    suffix: str = ""
    other: tuple[str, ...] = ()


ICONIFY_SETS = (
    IconSet("game-icons", "game-icons"),
    IconSet("flat-color-icons", "flat-color-icons"),
    IconSet("streamline-color", "streamline-color", other=("-flat",)),
    IconSet("streamline-color-flat", "streamline-color", "-flat"),
    IconSet("streamline-plump", "streamline-plump-color", other=("-flat",)),
    IconSet("streamline-plump-flat", "streamline-plump-color", "-flat"),
    IconSet("streamline-ultimate", "streamline-ultimate-color"),
    IconSet("streamline-freehand", "streamline-freehand-color"),
    IconSet("streamline-kameleon", "streamline-kameleon-color", other=("-duo",)),
    IconSet("streamline-kameleon-duo", "streamline-kameleon-color", "-duo"),
    IconSet("icon-park", "icon-park"),
    IconSet("healthicons", "healthicons", other=("-outline", "-24px")),
    IconSet("healthicons-outline", "healthicons", "-outline"),
    # One drawing in many sizes: the largest has the most detail.
    IconSet("fluent-color", "fluent-color", "-48"),
    IconSet("fluent-color", "fluent-color", "-32"),
    IconSet("maki", "maki"),
    IconSet("temaki", "temaki"),
    IconSet("pinhead", "pinhead"),
    IconSet("covid", "covid"),
    IconSet("meteocons", "meteocons", "-fill"),
    IconSet("fa7-solid", "fa7-solid"),
)


@dataclass(frozen=True)
class _Icon:
    style: str
    raw: str
    tags: tuple[str, ...]
    license: str
    package: str
    drawing: Drawing
    categories: tuple[str, ...] = ()


def split_words(raw: str) -> list[str]:
    """Split the name of an icon into words.

    Args:
        raw: a name in kebab, snake or camel case.

    Returns:
        Lower-case words, without numbers.
    """
    raw = re.sub(r"(?<=[a-z])(?=[A-Z])", "-", raw)
    words = [word.lower() for word in re.split(r"[^A-Za-z0-9]+", raw) if word]
    return [word for word in words if not word.isdigit()]


def normalize(raw: str) -> str:
    """Say what an icon shows.

    Args:
        raw: its name in its own set.

    Returns:
        Lower-case words without the words for its look; may be empty.
    """
    words = split_words(raw)
    while len(words) > 1 and (words[-1] in _LOOK or words[-1] in _COUNTERS):
        words.pop()
    return " ".join(words)


def icon_images(modules: Path, concepts: Mapping[str, Concept], counts: dict[str, int]) -> Iterator[Image]:
    """List the icons of every set that show a thing.

    Args:
        modules: the `node_modules` folder.
        concepts: the base concepts by plain code points.
        counts: receives the number of icons left out, by reason.

    Yields:
        Images, set by set.
    """
    by_name = {concept.name: concept for concept in concepts.values()}
    groups: dict[str, list[_Icon]] = {}
    for icon in _every_icon(modules):
        groups.setdefault(icon.style, []).append(icon)
    for icons in groups.values():
        names = {icon.raw for icon in icons}
        used: dict[str, int] = {}
        for icon in _merge_copies(icons):
            name = normalize(icon.raw)
            reason = _noise(icon, name, names)
            if not reason and used.get(name, 0) >= MAX_PER_CONCEPT:
                reason = "another drawing of a well-covered concept"
            if reason:
                counts[reason] = counts.get(reason, 0) + 1
                continue
            used[name] = used.get(name, 0) + 1
            concept = by_name.get(name)
            yield Image(
                icon.style,
                "icon",
                concept.hexcode if concept else f"icon:{name}",
                name,
                tuple(dict.fromkeys(" ".join(split_words(t)) for t in icon.tags)),
                icon.license,
                icon.package,
                icon.drawing,
                icon.raw,
            )


def cap_icons(icons: list[Image]) -> list[Image]:
    """Keep at most `MAX_ICONS` icons.

    Args:
        icons: every icon that may be used.

    Returns:
        All of them, or as many as allowed in the same order. Repeated
        drawings go first, then a choice that depends on nothing but names.
    """
    seen: dict[tuple[str, str], int] = {}
    ranks = []
    for position, icon in enumerate(icons):
        key = (icon.style, icon.concept)
        seen[key] = seen.get(key, 0) + 1
        chance = zlib.crc32(f"{icon.style}:{icon.source_name}".encode())
        ranks.append((seen[key], chance, position))
    kept = sorted(position for *_, position in sorted(ranks)[:MAX_ICONS])
    return [icons[position] for position in kept]


def _noise(icon: _Icon, name: str, names: set[str]) -> str:
    """Say why an icon is left out, or return an empty text."""
    words = split_words(icon.raw)
    if not name or all(len(word) == 1 for word in words):
        return "a letter, a number or nothing at all"
    unwanted = any(map(_NOISE_CATEGORY.search, icon.categories))
    if unwanted or _NOISE_ANYWHERE & set(words):
        return "a brand, an arrow or a letter"
    if icon.style in _NO_NOISE:
        return ""
    noisy = words[0] in _NOISE_FIRST or "-".join(words[:2]) == "file-type"
    if noisy or words[-1] in ("number", "letter"):
        return "a part of a user interface"
    parts = icon.raw.split("-")
    while len(parts) > 1 and parts[-1] in _MODIFIERS:
        parts.pop()
        if "-".join(parts) in names:
            return "a variant of another icon"
    return ""


def _merge_copies(icons: Iterable[_Icon]) -> list[_Icon]:
    """Turn a second name for the same drawing into a tag of the first."""
    merged: dict[Drawing, _Icon] = {}
    for icon in icons:
        first = merged.get(icon.drawing)
        if first is None:
            merged[icon.drawing] = icon
        else:
            tags = (*first.tags, normalize(icon.raw), *icon.tags)
            merged[icon.drawing] = replace(first, tags=tags)
    return list(merged.values())


def _every_icon(modules: Path) -> Iterator[_Icon]:
    sized: set[str] = set()
    yield from _lucide(modules)
    yield from _tabler(modules)
    yield from _material(modules)
    yield from _phosphor(modules)
    for icon_set in ICONIFY_SETS:
        icons = IconifySet(modules, icon_set.prefix)
        for name in icons.names:
            if not name.endswith(icon_set.suffix) or name.endswith(icon_set.other):
                continue
            raw = name.removesuffix(icon_set.suffix)
            if icon_set.style == "fluent-color":
                if raw in sized:
                    continue
                sized.add(raw)
            yield _Icon(
                icon_set.style,
                raw,
                tuple(icons.aliases.get(name, ())),
                icons.license,
                "@iconify/json",
                icons.drawing(name),
                icons.categories.get(name, ()),
            )


def _lucide(modules: Path) -> Iterator[_Icon]:
    folder = modules / "lucide-static"
    tags = read_json(folder / "tags.json")
    for path in sorted((folder / "icons").glob("*.svg")):
        yield _Icon(
            "lucide",
            path.stem,
            tuple(tags.get(path.stem, ())),
            "ISC",
            "lucide-static",
            Drawing("svg-file", str(path)),
        )


def _tabler(modules: Path) -> Iterator[_Icon]:
    folder = modules / "@tabler/icons"
    rows = read_json(folder / "icons.json")
    for shape, style in (("outline", "tabler"), ("filled", "tabler-filled")):
        for path in sorted((folder / "icons" / shape).glob("*.svg")):
            row = rows.get(path.stem, {})
            yield _Icon(
                style,
                path.stem,
                tuple(map(str, row.get("tags", ()))),
                "MIT",
                "@tabler/icons",
                Drawing("svg-file", str(path)),
                (row.get("category", ""),),
            )


def _material(modules: Path) -> Iterator[_Icon]:
    folder = modules / "@mdi/svg"
    for row in read_json(folder / "meta.json"):
        path = folder / "svg" / f"{row['name']}.svg"
        if not row["deprecated"] and path.is_file():
            yield _Icon(
                "mdi",
                row["name"],
                tuple(row["aliases"]),
                "Apache-2.0",
                "@mdi/svg",
                Drawing("svg-file", str(path)),
                tuple(row["tags"]),
            )


def _phosphor(modules: Path) -> Iterator[_Icon]:
    folder = modules / "@phosphor-icons/core"
    # The package lists its tags in JavaScript only.
    script = (folder / "dist/index.mjs").read_text(encoding="utf-8")
    entry = re.compile(r'name: "([^"]+)",.*?categories: \[([^\]]*)\].*?tags: \[([^\]]*)\]', re.S)
    for name, categories, tags in entry.findall(script):
        kinds = ("brand",) if re.search(r"\.(BRAND|ARROWS)", categories) else ()
        # "*new*" and the like are notes, not tags.
        words = re.findall(r'"([^"]+)"', tags)
        words = tuple(word for word in words if not word.startswith("*"))
        for weight in ("fill", "duotone"):
            path = folder / f"assets/{weight}/{name}-{weight}.svg"
            if path.is_file():
                yield _Icon(
                    f"phosphor-{weight}",
                    name,
                    words,
                    "MIT",
                    "@phosphor-icons/core",
                    Drawing("svg-file", str(path)),
                    kinds,
                )
