"""The base emoji, and the many names by which image sets refer to them."""

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# Regional indicator A: two of these letters spell a flag.
_INDICATOR_A = 0x1F1E6
_COMPONENTS = 2
_SHORTCODES = ("cldr", "emojibase", "iamcal", "github", "joypixels")
_FLAG_TAG_SEQUENCES = {"gb-eng": "gbeng", "gb-sct": "gbsct", "gb-wls": "gbwls"}
_FLAG_SYNONYMS = {"sh-ac": "ac", "sh-ta": "ta"}


@dataclass(frozen=True)
class Concept:
    """One base emoji.

    Attributes:
        hexcode: code points as emojibase writes them, joined by `-`.
        emoji: the character itself.
        name: its lower-case name, unique.
        tags: further words for it.
        group: number of its group in emojibase.
        subgroup: number of its subgroup.
    """

    hexcode: str
    emoji: str
    name: str
    tags: tuple[str, ...]
    group: int
    subgroup: int


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Args:
        path: the file.

    Returns:
        What it holds.

    Raises:
        ValueError: if there is no such file.
    """
    if not path.is_file():
        raise ValueError(
            f"`packages` must hold every package this recipe needs. Received: no "
            f"{path.name} at {path}. Leave --packages out to install them."
        )
    return json.loads(path.read_text(encoding="utf-8"))


def plain(hexcode: str) -> str:
    """Bring a code point sequence to the one form that sets agree on.

    Args:
        hexcode: code points in hexadecimal, joined by `-` or `_`.

    Returns:
        The same in upper case, without the variation selector FE0F.
    """
    points = hexcode.upper().replace("_", "-").split("-")
    return "-".join(point.lstrip("0") for point in points if point != "FE0F")


def load_concepts(modules: Path) -> dict[str, Concept]:
    """List the base emoji that the held-out style draws too.

    Args:
        modules: the `node_modules` folder.

    Returns:
        Concepts by their plain code points.
    """
    images = modules / "emoji-datasource-twitter/img/twitter/64"
    drawn = {plain(path.stem) for path in images.glob("*.png")}
    concepts: dict[str, Concept] = {}
    for row in read_json(modules / "emojibase-data/en/data.json"):
        group = row.get("group")
        if group is None or group == _COMPONENTS:
            continue
        if plain(row["hexcode"]) in drawn:
            concepts[plain(row["hexcode"])] = Concept(
                hexcode=row["hexcode"],
                emoji=row["emoji"],
                name=row["label"].lower(),
                tags=tuple(tag.lower() for tag in row.get("tags", ())),
                group=group,
                subgroup=row["subgroup"],
            )
    if len({concept.name for concept in concepts.values()}) < len(concepts):
        raise ValueError(
            "`emojibase-data` must give every emoji its own name. Received: a "
            "name twice. Install the pinned version of the package."
        )
    return concepts


def slug_key(name: str) -> str:
    """Reduce a slug, label or shortcode to what all of them have in common.

    Args:
        name: for instance `"flag-for-cote-divoire"` or `"flag: Côte d’Ivoire"`.

    Returns:
        Its letters and digits, lower-case and without accents.
    """
    name = name.lower().replace("&", " and ")
    name = name.replace("#", "hash").replace("*", "asterisk")
    name = re.sub(r"^flag[-_ ]for[-_ ](.*[-_ ]flag)$", r"\1", name)
    name = re.sub(r"^flag[-_ ]for[-_ ]", "flag-", name)
    name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]", "", name)


@dataclass
class SlugIndex:
    """Finds the emoji behind an image's name.

    Attributes:
        tiers: names by where they come from, each a map from `slug_key` to
            the plain code points it may mean.
    """

    tiers: dict[str, dict[str, set[str]]] = field(default_factory=dict)

    def add(self, tier: str, name: str, hexcode: str) -> None:
        """Record a name.

        Args:
            tier: where it comes from.
            name: the name, in any spelling.
            hexcode: the emoji it stands for.
        """
        key = slug_key(name)
        if key:
            self.tiers.setdefault(tier, {}).setdefault(key, set()).add(plain(hexcode))

    def find(self, name: str, order: Iterable[str]) -> str | None:
        """Look a name up.

        Args:
            name: a slug.
            order: tiers, the most trusted first; the first that knows the
                name decides.

        Returns:
            Plain code points, or `None` where no tier knows the name or the
            tier that does gives it two meanings.
        """
        key = slug_key(name)
        for tier in order:
            found = self.tiers.get(tier, {}).get(key)
            if found:
                return next(iter(found)) if len(found) == 1 else None
        return None


def build_slug_index(modules: Path, concepts: Mapping[str, Concept]) -> SlugIndex:
    """Gather every name that a package gives to an emoji.

    Args:
        modules: the `node_modules` folder.
        concepts: the base concepts by plain code points.

    Returns:
        The index, with the tiers `label`, `bare`, `unicode`, `chars`,
        `short`, `country` and one for each shortcode list.
    """
    index = SlugIndex()
    for row in read_json(modules / "emojibase-data/en/data.json"):
        for emoji in (row, *row.get("skins", ())):
            index.add("label", emoji["label"], emoji["hexcode"])
            # "A button (blood type)" is "a-button" in most sets.
            index.add("bare", emoji["label"].split(" (")[0], emoji["hexcode"])
    for code, concept in concepts.items():
        if "-" not in code:
            index.add("unicode", unicodedata.name(chr(int(code, 16)), ""), code)
        if concept.name.startswith("flag: "):
            index.add("country", concept.name.removeprefix("flag: "), code)
    for name in _SHORTCODES:
        path = modules / f"emojibase-data/en/shortcodes/{name}.json"
        for code, shortcodes in read_json(path).items():
            if isinstance(shortcodes, str):
                shortcodes = [shortcodes]
            for shortcode in shortcodes:
                index.add(name, shortcode, code)
    for row in read_json(modules / "emoji-datasource-twitter/emoji.json"):
        for shortcode in row["short_names"]:
            index.add("short", shortcode, row["unified"])
    for name in ("noto", "openmoji", "fluent-emoji-flat", "fluent-emoji-high-contrast"):
        data = read_json(modules / f"@iconify/json/json/{name}.json")
        for code, slug in data["chars"].items():
            # A name is often listed with and without FE0F; `add` merges them.
            index.add("chars", slug, code)
    return index


def flag_code(country: str) -> str:
    """Spell the flag emoji of a country or subdivision.

    Args:
        country: an ISO 3166 code as flag sets write it, such as `"fr"` or
            `"gb-sct"`.

    Returns:
        Plain code points, or `""` if no emoji flag is spelled that way.
    """
    country = _FLAG_SYNONYMS.get(country, country)
    if country in _FLAG_TAG_SEQUENCES:
        letters = [f"{0xE0000 + ord(c):X}" for c in _FLAG_TAG_SEQUENCES[country]]
        return "-".join(["1F3F4", *letters, "E007F"])
    if not re.fullmatch("[a-z]{2}", country):
        return ""
    return "-".join(f"{_INDICATOR_A + ord(c) - ord('a'):X}" for c in country)


def is_country_flag(code: str) -> bool:
    """Tell whether an emoji is the flag of a country or a part of one.

    Args:
        code: plain code points.

    Returns:
        Whether it is spelled with a country code.
    """
    first, *rest = code.split("-")
    if first == "1F3F4":
        return bool(rest) and rest[-1] == "E007F"
    return 0 <= int(first, 16) - _INDICATOR_A < 26
