"""Which image may be trained on, and which is held out.

Everything here follows from the concept list, the style list and `SEED`: no
image and no result of a training run has a say in it.
"""

import re
import zlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

SEED = 20250607
TEST_STYLE = "twitter"
NUM_TEST_CONCEPTS = 200
NUM_VAL_CONCEPTS = 100
NUM_VAL_STYLE = 700

# Styles that share one drawing and differ in how it is finished: half of the
# "fluent" images are those of "fluent-3d" up to a few pixels.
LOOKALIKES: tuple[frozenset[str], ...] = (
    frozenset({"fluent", "fluent-3d", "fluent-flat"}),
    frozenset({"openmoji", "openmoji-black"}),
)

STOP_WORDS = frozenset("a an and button face for in of on or sign symbol the to with".split())


def words_of(text: str) -> list[str]:
    """Split a name into lower-case words without their plural `s`.

    Args:
        text: a name or a tag.

    Returns:
        Its words, in order. "glass" turns into "glas", which is harmless:
        both sides of every comparison go through here.
    """
    words = re.findall(r"[^\W_]+", text.lower())
    return [word[:-1] if len(word) > 2 and word.endswith("s") else word for word in words]


def telling_words(name: str) -> frozenset[str]:
    """Pick the words that carry the meaning of an emoji name.

    Args:
        name: an emoji name, such as `"flag: france"` or `"cat face"`.

    Returns:
        The words after a `prefix:` that are not stop words, or every word
        where that leaves none.
    """
    words = frozenset(words_of(name.split(": ", 1)[-1])) - STOP_WORDS
    return words or frozenset(words_of(name))


def split_concepts(hexcodes: Sequence[str]) -> dict[str, str]:
    """Draw the concepts that no training image may show.

    Args:
        hexcodes: every base concept; the order does not matter.

    Returns:
        `"test_concept"`, `"val_concept"` or `"train"` for each of them.

    Raises:
        ValueError: if there are too few concepts to leave any for training.
    """
    held = NUM_TEST_CONCEPTS + NUM_VAL_CONCEPTS
    if len(hexcodes) <= held:
        raise ValueError(
            f"`hexcodes` must hold more than {held} concepts. Received: "
            f"{len(hexcodes)} concepts. Check that the emoji packages are "
            "installed in full."
        )
    order = np.random.default_rng(SEED).permutation(sorted(hexcodes))
    split = dict.fromkeys(hexcodes, "train")
    split.update(dict.fromkeys(map(str, order[:held]), "val_concept"))
    split.update(dict.fromkeys(map(str, order[:NUM_TEST_CONCEPTS]), "test_concept"))
    return split


def hold_out_styles(concept_split: Mapping[str, str], styles_of: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """Choose, for some training concepts, the one style that is held out.

    Args:
        concept_split: the answer of `split_concepts`.
        styles_of: the training styles that draw each concept.

    Returns:
        A style for each chosen concept. A concept that only that style and
        its lookalikes draw is passed over: no training image would be left.
    """
    rng = np.random.default_rng(SEED + 1)
    train = sorted(code for code, split in concept_split.items() if split == "train")
    chosen: dict[str, str] = {}
    for code in map(str, rng.permutation(train)):
        if len(chosen) == NUM_VAL_STYLE:
            break
        styles = frozenset(styles_of.get(code, ()))
        if not styles:
            continue
        # A hash per concept, not the generator's next number: an image set
        # that changes then moves only the concepts it changes.
        ranked = {zlib.crc32(f"{SEED}:{code}:{style}".encode()): style for style in styles}
        style = ranked[min(ranked)]
        if styles - lookalikes(style):
            chosen[code] = style
    return chosen


def lookalikes(style: str) -> frozenset[str]:
    """List the styles that would give an image of this style away.

    Args:
        style: a style.

    Returns:
        The style itself and those with the same drawings.
    """
    group = (group for group in LOOKALIKES if style in group)
    return next(group, frozenset({style}))


def image_split(
    style: str,
    family: str,
    concept: str,
    concept_split: Mapping[str, str],
    held_styles: Mapping[str, str],
) -> str:
    """Name the split of one image.

    Args:
        style: the style it is drawn in.
        family: `"emoji"`, `"flag"` or `"icon"`.
        concept: what it shows.
        concept_split: the answer of `split_concepts`.
        held_styles: the answer of `hold_out_styles`.

    Returns:
        `"test_style"`, `"test_concept"`, `"val_concept"`, `"val_style"`,
        `"train"`, or `"unused"` for a lookalike of a `"val_style"` image.
    """
    if style == TEST_STYLE:
        return "test_style"
    split = concept_split.get(concept, "train")
    held = held_styles.get(concept)
    if split == "train" and family == "emoji" and held:
        if held == style:
            return "val_style"
        if held in lookalikes(style):
            return "unused"
    return split


class LeakRule:
    """Recognizes icons that show, under their own name, a held-out concept."""

    def __init__(self, names: Iterable[str]) -> None:
        """Index the held-out names.

        Args:
            names: names of every test and validation concept.
        """
        self._sets: dict[str, list[frozenset[str]]] = {}
        self._whole: set[str] = set()
        for name in names:
            words = telling_words(name)
            # One word of each set is enough to find it again.
            self._sets.setdefault(min(words), []).append(words)
            self._whole.add(_whole(words_of(name)))
            kept = [w for w in words_of(name.split(": ", 1)[-1]) if w in words]
            self._whole.add(_whole(kept))

    def leaks(self, name: str, tags: Iterable[str]) -> bool:
        """Tell whether an icon must be dropped.

        Args:
            name: every word of the icon's name.
            tags: its tags and aliases.

        Returns:
            `True` if the name contains the telling words of a held-out name,
            or if the name or a tag is that name.
        """
        words = frozenset(words_of(name))
        for word in words:
            if any(held <= words for held in self._sets.get(word, ())):
                return True
        return any(_whole(words_of(text)) in self._whole for text in (name, *tags))


def _whole(words: Iterable[str]) -> str:
    # Joined without a space: "teddybear" and "teddy bear" are one name.
    return "".join(words)
