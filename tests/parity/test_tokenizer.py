"""The same ids, strings and offsets as transformers, for more than a million strings, from its files and from ours."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import random
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import unicodedata2
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tf_clip import CLIPTokenizer

from . import make_unicode_tables
from .conftest import ROOT, Process
from .measuring import report

CHUNK = 50_000
CODES = [code for code in range(0x110000) if not 0xD800 <= code < 0xE000]
MARKS = [chr(code) for code in CODES if unicodedata2.combining(chr(code))]
JAMO = [
    chr(code)
    for first, last in [(0x1100, 0x11FF), (0xA960, 0xA97C), (0xD7B0, 0xD7FB)]
    for code in range(first, last + 1)
]
SPECIALS = ["<|startoftext|>", "<|endoftext|>"]
EMOJI = [
    *"🔥👩👨👧🚀🏴🏳❤☠👁🗨🧑🤝💻🐻⚕♂♀",
    "\u200d",
    "\ufe0f",
    "\ufe0e",
    "\u20e3",
    *"🏻🏼🏽🏾🏿",
    *"🇩🇪🇫🇷🇺🇸",
    "\U000e0067",
    "\U000e007f",
]
WORDS = "a photo of the cat isn't DOG İstanbul ΟΔΟΣ straße café naïve ﬁnal 日本 हिन्दी 1900 3.14 C++ don’t we've".split()
TAGS = [
    "<b>",
    "</b>",
    "<br/>",
    "&amp;",
    "&lt;",
    "&#39;",
    "&nbsp;",
    "<a href='x'>",
    "<!--",
    "-->",
    "</w>",
    "&&",
    "<|",
    "|>",
]

Texts = Iterable[str]
COUNTS: dict[str, int] = {}
"""How many strings of each kind were compared."""


def described(generator: random.Random) -> Texts:
    """Lines of what installed packages say about themselves; slices of them, and joins of two."""
    payloads = (str(package.metadata.get_payload() or "") for package in importlib.metadata.distributions())
    lines = sorted({line for payload in payloads for line in payload.splitlines() if line.strip()})
    yield from lines
    for _ in range(150_000):
        line = generator.choice(lines)
        start = generator.randrange(len(line))
        yield line[start : start + generator.randint(1, 60)]
    for _ in range(50_000):
        yield generator.choice(["", " ", "\n", "\u3000"]).join(generator.choices(lines, k=2))[:300]


def of_pages(generator: random.Random) -> Texts:
    """Characters of one page of 256, with spaces, letters and quotes in between."""
    for first in range(0, 0x110000, 256):
        codes = [code for code in range(first, first + 256) if not 0xD800 <= code < 0xE000]
        for _ in range((codes != []) * (60 if first < 0x32400 or 0xE0000 <= first < 0xE0200 else 3)):
            yield "".join(chr(generator.choice([generator.choice(codes)] * 3 + [32, 97, 39, 69])) for _ in range(12))


def of_planes(generator: random.Random) -> Texts:
    """Characters of all Unicode, or of a plane."""
    for _ in range(60_000):
        first = generator.choice([0, 0, 0, *range(17)]) * 0x10000
        codes = (first + generator.randrange(0x10000) for _ in range(generator.randint(1, 30)))
        yield "".join(chr(code) for code in codes if not 0xD800 <= code < 0xE000)


def every_character(_: random.Random) -> Texts:
    """Each inside a word, alone, and before punctuation."""
    return (f"a{chr(code)}b {chr(code)} {chr(code)}." for code in CODES)


def mixed(
    pieces: Callable[[random.Random], list[str]], count: int, longest: int = 12
) -> Callable[[random.Random], Texts]:
    """Makes strings of random pieces."""

    def make(generator: random.Random) -> Texts:
        known = pieces(generator)
        return ("".join(generator.choices(known, k=generator.randint(1, longest))) for _ in range(count))

    return make


def special_tokens(generator: random.Random) -> list[str]:
    """Both in all cases, whole, cut and broken."""
    spelled = [token for name in SPECIALS for token in (name, name.upper(), name.title(), name[:-1], name[1:])]
    wild = ["".join(generator.choice([str.upper, str.lower])(c) for c in generator.choice(SPECIALS)) for _ in range(99)]
    return [*spelled * 4, *wild, *"a!' <|>1é\u0301", " ", "'s", "s", "!!"]


def decomposed_names(generator: random.Random) -> Texts:
    """Names of files as some systems have them, in NFD, and in the other forms."""
    letters = [chr(code) for code in range(0xA0, 0x24F)] + [chr(code) for code in range(0x1E00, 0x1FFF)]
    for _ in range(50_000):
        name = "".join(generator.choices([*letters, *"abcxyz_- ."], k=generator.randint(1, 15)))
        yield unicodedata2.normalize(generator.choice(["NFD", "NFD", "NFC", "NFKD"]), name) + ".JPG"


def random_bytes(generator: random.Random) -> Texts:
    for _ in range(50_000):
        yield generator.randbytes(generator.randint(1, 40)).decode("utf-8", "replace")


def of_hypothesis(_: random.Random) -> Texts:
    found: list[str] = []

    @settings(max_examples=400, deadline=None, derandomize=True, database=None, phases=[Phase.generate])
    @given(st.lists(st.text(st.characters(exclude_categories=("Cs",))), min_size=20))
    def collect(texts: list[str]) -> None:
        found.extend(texts)

    collect()
    return found


KINDS: dict[str, Callable[[random.Random], Texts]] = {
    "descriptions of packages": described,
    "characters of each page": of_pages,
    "characters of all planes": of_planes,
    "every character": every_character,
    "special tokens": mixed(special_tokens, 100_000),
    "emoji sequences": mixed(lambda _: [*EMOJI, *EMOJI, "1", "#", " ", "a"], 60_000),
    "decomposed names": decomposed_names,
    "combining marks": mixed(
        lambda generator: [*generator.sample(MARKS, 300), *"aeoAEO가각ㄱΑα ", "\u0f71"] * 2, 80_000, 9
    ),
    "Hangul jamo": mixed(lambda _: [*JAMO, *JAMO[:112] * 2, "가", "각", " ", "a", "\u0301"], 60_000),
    "cases": mixed(lambda _: [*"ΣσςΑΟİIıiſKÅẞßǅǄǆ'’ ", "\u0307", "\u0301", "\u0345", "s", "S", "T"], 60_000),
    "numbers": mixed(lambda _: [*"0123456789½²Ⅷ٣१௰㊀①", *",.:-+%$€ ", "e", "x", "\u20e3"], 50_000),
    "words": mixed(lambda _: [word + space for word in WORDS for space in ("", " ", ", ", "\u00a0", "\u2028")], 60_000),
    "HTML": mixed(lambda _: [*TAGS, *"abc ", "Ã©", "â€™"], 50_000),
    "spaces": mixed(
        lambda _: [chr(code) for code in CODES if chr(code).isspace()] + [*"ab\u200b\ufeff\u180e\x00!1"], 30_000
    ),
    "random bytes": random_bytes,
    "what hypothesis finds": of_hypothesis,
}


@functools.cache
def some_of_each() -> list[str]:
    generator = random.Random(1)
    made = (list(make(random.Random(0))) for make in KINDS.values() if make is not every_character)
    return ["", " ", *(text for texts in made for text in generator.sample(texts, 1000))]


def chunks(texts: list[str]) -> Iterator[list[str]]:
    return (texts[first : first + CHUNK] for first in range(0, len(texts), CHUNK))


@pytest.fixture(scope="module")
def theirs(vocabulary: Path, reference: Process, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that transformers saved."""
    folder = tmp_path_factory.mktemp("tokenizer") / "theirs"
    reference("make_processor", folder, vocabulary)
    assert (folder / "tokenizer.json").is_file() and not (folder / "vocab.json").exists()
    return folder


@pytest.fixture(scope="module")
def tokenizer(theirs: Path) -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(theirs)


@pytest.fixture(scope="module")
def ours(tokenizer: CLIPTokenizer, theirs: Path) -> Path:
    """A folder saved here."""
    tokenizer.save_pretrained(theirs.parent / "ours")
    return theirs.parent / "ours"


class Reference:
    """Commands of the reference on a list of texts; arrays come back."""

    def __init__(self, process: Process, folder: Path) -> None:
        self._process, self._folder = process, folder

    def __call__(self, command: str, source: Path, texts: list[str], *words: str) -> dict[str, np.ndarray]:
        (self._folder / "texts.json").write_text(json.dumps(texts))
        self._process(command, source, self._folder / "texts.json", self._folder / "found.npz", *words)
        with np.load(self._folder / "found.npz") as arrays:
            return dict(arrays)


@pytest.fixture
def there(reference: Process, tmp_path: Path) -> Reference:
    return Reference(reference, tmp_path)


def different_rows(
    texts: list[str], here: tf.RaggedTensor, there: dict[str, np.ndarray], name: str = "input_ids"
) -> int:
    """Counts rows that differ, and prints some."""
    lengths, values = here.row_lengths().numpy(), here.values.numpy()
    assert len(lengths) == len(texts) == len(there["lengths"])
    if np.array_equal(lengths, there["lengths"]) and np.array_equal(values, there[name]):
        return 0
    rows = (
        np.split(flat, np.cumsum(counts)[:-1]) for flat, counts in ((values, lengths), (there[name], there["lengths"]))
    )
    bad = [row for row in zip(texts, *rows, strict=True) if not np.array_equal(*row[1:])]
    for text, our_row, their_row in bad[:5]:
        print(f"\n  {text!a}\n    here  {our_row.tolist()}\n    there {their_row.tolist()}", end="")
    return len(bad)


@pytest.mark.parametrize("kind", KINDS)
def test_ids(kind: str, tokenizer: CLIPTokenizer, theirs: Path, there: Reference) -> None:
    texts = list(KINDS[kind](random.Random(0)))
    bad = sum(different_rows(part, tokenizer.tokenize(part), there("encode", theirs, part)) for part in chunks(texts))
    COUNTS[kind] = len(texts)
    report(f"token ids, {kind}, rows that differ of {len(texts)}", bad, 0)


def test_a_million_strings_were_compared() -> None:
    if COUNTS.keys() != KINDS.keys():
        pytest.skip("not all kinds of strings were run")
    print(f"\n  {sum(COUNTS.values())} strings", end="")
    assert sum(COUNTS.values()) > 1_000_000


def label(options: dict[str, object]) -> str:
    return " ".join(f"{name}={value}" for name, value in options.items())


@pytest.mark.parametrize(
    "options",
    [
        {"padding": True, "truncation": True, "max_length": 77},
        {"padding": "max_length", "truncation": "longest_first", "max_length": 20},
        {"padding": "longest", "truncation": "only_first", "max_length": 9, "padding_side": "left"},
        {"padding": False, "truncation": True, "max_length": 12, "truncation_side": "left"},
        {
            "padding": "max_length",
            "truncation": True,
            "max_length": 7,
            "padding_side": "left",
            "truncation_side": "left",
        },
        {"padding": "max_length", "truncation": True, "max_length": 11, "add_special_tokens": False},
        {"padding": "do_not_pad", "truncation": "do_not_truncate"},
    ],
    ids=label,
)
def test_padded_and_cut_rows(options: dict[str, object], theirs: Path, vocabulary: Path, there: Reference) -> None:
    texts = some_of_each()[::3]
    parts = json.loads(vocabulary.read_text())
    side = str(options.get("truncation_side", "right"))
    tokenizer = CLIPTokenizer(parts["vocab"], map(tuple, parts["merges"]), truncation_side=side)
    called = {name: value for name, value in options.items() if name != "truncation_side"}
    here = tokenizer(texts, return_tensors=None, **called)
    found = there("encode_with", theirs, texts, json.dumps(options))
    for name in ("input_ids", "attention_mask"):
        bad = different_rows(texts, tf.ragged.constant(here[name], ragged_rank=1), found, name)
        report(f"{name}, {label(options)}, rows that differ of {len(texts)}", bad, 0)


def test_decoded_strings(tokenizer: CLIPTokenizer, theirs: Path, reference: Process, tmp_path: Path) -> None:
    # transformers takes "</w>" out of what the text itself had, too.
    texts = [text for text in some_of_each() if "/w" not in text.lower()]
    rows = tokenizer.batch_encode(texts)["input_ids"]
    generator = random.Random(2)
    rows += [generator.choices(range(tokenizer.vocab_size), k=10) for _ in range(2000)]
    rows = [row for row in rows if "</w>" not in tokenizer.decode(row)]
    (tmp_path / "ids.json").write_text(json.dumps(rows))
    reference("decode", theirs, tmp_path / "ids.json", tmp_path / "strings.json")
    for skip, wanted in zip((False, True), json.loads((tmp_path / "strings.json").read_text()), strict=True):
        here = tokenizer.batch_decode(rows, skip_special_tokens=skip)
        bad = [row for row in zip(here, wanted, strict=True) if row[0] != row[1]]
        print(*bad[:5], sep="\n  ")
        report(f"decoded strings, skip_special_tokens={skip}, that differ of {len(rows)}", len(bad), 0)


@pytest.mark.parametrize("reader", ["transformers", "tokenizers"])
def test_they_read_what_we_write(ours: Path, there: Reference, tokenizer: CLIPTokenizer, reader: str) -> None:
    texts = some_of_each()
    source = ours if reader == "transformers" else ours / "tokenizer.json"
    bad = different_rows(texts, tokenizer.tokenize(texts), there("encode", source, texts))
    report(f"token ids, {reader} with our tokenizer.json, rows that differ of {len(texts)}", bad, 0)


def compare_offsets(
    texts: list[str], tokenizer: CLIPTokenizer, source: Path, there: Reference, title: str = ""
) -> None:
    """On texts that NFC leaves alone, as it moves the reference's offsets in ways of its own."""
    texts = [text for text in texts if unicodedata2.normalize("NFC", text) == text]
    found = there("encode_with_offsets", source, texts)
    ids, *offsets = tokenizer.tokenize_with_offsets(texts)
    assert different_rows(texts, ids, found) == 0
    row_of = np.repeat(np.arange(len(texts)), found["lengths"])
    byte_of = [np.cumsum([0, *(len(letter.encode()) for letter in text)]) for text in texts]
    for name, here in zip(("starts", "ends"), offsets, strict=True):
        found[name] = np.array([byte_of[row][place] for row, place in zip(row_of, found[name], strict=True)])
        bad = different_rows(texts, here, found, name)
        report(f"{name} of tokens in bytes{title}, rows that differ of {len(texts)}", bad, 0)


def test_offsets(tokenizer: CLIPTokenizer, theirs: Path, there: Reference) -> None:
    compare_offsets(some_of_each(), tokenizer, theirs, there)


def with_normalized(folder: Path, flags: dict[str, bool], layout: str) -> dict[str, str]:
    """Returns files that say which special tokens are normalized, as transformers wrote and writes them."""
    parts = json.loads((folder / "tokenizer.json").read_text())
    config = {"tokenizer_class": "CLIPTokenizer"}
    for token in parts["added_tokens"]:
        token["normalized"] = flags[token["content"]]
    if layout == "tokenizer.json":
        return {"tokenizer.json": json.dumps(parts), "tokenizer_config.json": json.dumps(config)}
    model = parts["model"]
    merges = "\n".join(["#version: 0.2", *(" ".join(pair) for pair in model["merges"])])
    files = {"vocab.json": json.dumps(model["vocab"]), "merges.txt": merges}
    if layout == "added_tokens_decoder":
        config["added_tokens_decoder"] = {token.pop("id"): token for token in parts["added_tokens"]}
        return {**files, "tokenizer_config.json": json.dumps(config)}
    described = {token["content"]: token for token in parts["added_tokens"]}
    for token in described.values():
        del token["id"], token["special"]
    names = {"bos_token": described[SPECIALS[0]], "eos_token": described[SPECIALS[1]]}
    if layout == "special_tokens_map.json":
        return {**files, "tokenizer_config.json": json.dumps(config), layout: json.dumps(names)}
    typed = {name: {**token, "__type": "AddedToken"} for name, token in names.items()}
    return {**files, "tokenizer_config.json": json.dumps({**config, **typed, "unk_token": typed["eos_token"]})}


@pytest.mark.parametrize(
    ("layout", "start", "end"),
    [
        ("tokenizer.json", True, False),  # as OpenAI's files on the Hub
        ("tokenizer.json", False, True),
        ("tokenizer.json", True, True),
        ("added_tokens_decoder", True, True),
        ("special_tokens_map.json", True, True),
        ("tokenizer_config.json", True, True),
    ],
)
def test_normalized_special_tokens(
    layout: str, start: bool, end: bool, theirs: Path, there: Reference, tmp_path: Path
) -> None:
    """Found in any case, from the files of each kind; then from what is saved here."""
    files = with_normalized(theirs, dict(zip(SPECIALS, (start, end), strict=True)), layout)
    for name in ("files", "saved"):
        (tmp_path / name).mkdir()
    for name, content in files.items():
        (tmp_path / "files" / name).write_text(content, encoding="utf-8")
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path / "files")
    tokenizer.save_pretrained(tmp_path / "saved")
    generator = random.Random(3)
    texts = ["<|STARTOFTEXT|>", "<|ENDOFTEXT|>", *mixed(special_tokens, 10_000)(generator), *some_of_each()[::10]]
    title = f"{layout}: start {start}, end {end}"
    for name in ("files", "saved"):
        bad = different_rows(texts, tokenizer.tokenize(texts), there("encode", tmp_path / name, texts))
        report(f"token ids, {title}, {name}, rows that differ of {len(texts)}", bad, 0)
    compare_offsets(texts, tokenizer, tmp_path / "files", there, f", {title}")


def test_the_tables_are_what_the_reference_says_now() -> None:
    path = ROOT / "tf_clip" / "preprocessing" / "text" / "unicode.json"
    assert make_unicode_tables.tables() == json.loads(path.read_text("utf-8"))
