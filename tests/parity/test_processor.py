"""The same ids and the same pixels as transformers, from its files and from ours."""

from __future__ import annotations

import importlib.metadata
import json
import random
from pathlib import Path
from typing import Any

import pytest

from tf_clip import CLIPFeatureExtractorTF, CLIPProcessor, CLIPTokenizer

from .conftest import Process
from .measuring import report

EDGES = [
    "",
    " ",
    "a photo of a cat",
    "Isn't it? We'll've 1900, 3.14!",
    "don’t",
    "--------",
    "zzzz ........",
    "x" * 500,
    "word " * 100,
    "e\u0301te\u0301 ﬁn ＡＢＣ",
    "İstanbul ΟΔΟΣ Σίσυφος",
    "日本語とemoji 👩\u200d🚀🔥🏳️\u200d🌈",
    "a\x00b\x1cc\u3000d\u200be\u00a0f\x85g",
    "<|startoftext|> a <|endoftext|> b <|ENDOFTEXT|>",
    "a<|endoftext|><|endoftext|>b <|endoftext",
    "&amp; <br> Ã©",
    "\u1100\u1161\u11a8 각",
    "a\u0315\u0300\u05ae\u0062",
]
BLOCKS = [
    *[(0x20, 0x7F), (0xA0, 0x24F), (0x300, 0x3FF), (0x400, 0x52F), (0x590, 0x6FF), (0x900, 0x97F)],
    *[(0x2000, 0x206F), (0x3040, 0x30FF), (0xAC00, 0xD7A3), (0x1D400, 0x1D7FF), (0x1F300, 0x1FAFF)],
    *[(0x0, 0xD7FF), (0xE000, 0xFFFF), (0x10000, 0x10FFFF)],
]
# Capitals of Unicode 14 and letters and digits of 15.1 and later. The tables of ICU and RE2 inside
# TensorFlow 2.21 are older, those of the reference are not. A span may hold a few characters on which all agree.
NEWER = [
    *[(0x1C89, 0x1C8A), (0x2C2F, 0x2C2F), (0xA7C0, 0xA7DC), (0x10570, 0x10595), (0x105C0, 0x105F3)],
    *[(0x10D40, 0x10D85), (0x10EC2, 0x10EC4), (0x11380, 0x113B7), (0x113D1, 0x113D3), (0x116D0, 0x116E3)],
    *[(0x11BC0, 0x11BF9), (0x13460, 0x143FA), (0x16100, 0x1611D), (0x16130, 0x16139), (0x16D40, 0x16D79)],
    *[(0x16EA0, 0x16EB8), (0x18CFF, 0x18CFF), (0x1CCF0, 0x1CCF9), (0x1E5D0, 0x1E5FA), (0x2EBF0, 0x2EE5D)],
]


def is_newer(code: int) -> bool:
    return any(first <= code <= last for first, last in NEWER)


def described(generator: random.Random, count: int) -> list[str]:
    """Returns lines of what installed packages say about themselves."""
    lines = {
        line.strip()
        for package in importlib.metadata.distributions()
        for line in str(package.metadata.get_payload() or "").splitlines()
    }
    return generator.sample(sorted(lines), min(count, len(lines)))


def scrambled(generator: random.Random, count: int) -> list[str]:
    """Returns strings of characters of one block, or of all of Unicode, with spaces and ASCII in between."""
    made = []
    for _ in range(count):
        first, last = generator.choice(BLOCKS)
        codes = [generator.choice([32, 97, generator.randint(first, last)]) for _ in range(generator.randint(1, 40))]
        made.append("".join(chr(code) for code in codes if not is_newer(code)))
    return made


def texts() -> list[str]:
    generator = random.Random(0)
    return EDGES + described(generator, 1500) + scrambled(generator, 1500)


@pytest.fixture(scope="module", params=["saved there", "saved here"])
def saved(
    request: pytest.FixtureRequest, vocabulary: Path, reference: Process, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A processor's folder, which both libraries read: `tokenizer.json` from there, `vocab.json` from here."""
    folder = tmp_path_factory.mktemp("processor") / request.param
    if request.param == "saved there":
        reference("make_processor", folder, vocabulary)
        assert {path.name for path in folder.iterdir()} >= {"tokenizer.json", "processor_config.json"}
        return folder
    parts = json.loads(vocabulary.read_text())
    tokenizer = CLIPTokenizer(parts["vocab"], map(tuple, parts["merges"]))
    CLIPProcessor(CLIPFeatureExtractorTF(), tokenizer).save_pretrained(folder)
    wanted = {"vocab.json", "merges.txt", "tokenizer_config.json", "preprocessor_config.json"}
    assert {path.name for path in folder.iterdir()} == wanted
    return folder


@pytest.fixture(scope="module")
def processor(saved: Path) -> CLIPProcessor:
    return CLIPProcessor.from_pretrained(saved)


def tokenized_there(reference: Process, saved: Path, sample: list[str]) -> dict[str, Any]:
    """Returns what transformers makes of texts: whole, cut to 77 tokens, and padded too."""
    (saved / "texts.json").write_text(json.dumps(sample))
    reference("tokenize", saved, saved / "texts.json", saved / "ids.json")
    return json.loads((saved / "ids.json").read_text())


@pytest.fixture(scope="module")
def rows(saved: Path, reference: Process) -> dict[str, Any]:
    return tokenized_there(reference, saved, texts())


def compare_rows(label: str, sample: list[str], here: list[list[int]], there: list[list[int]]) -> None:
    different = [row for row in zip(sample, here, there, strict=True) if row[1] != row[2]]
    for text, ours, theirs in different[:5]:
        print(f"\n  {text!a}\n    here  {ours}\n    there {theirs}", end="")
    report(f"{label}, rows that differ of {len(sample)}", len(different), 0)


@pytest.mark.parametrize("form", ["cut", "whole", "padded"])
def test_token_ids(saved: Path, processor: CLIPProcessor, rows: dict[str, Any], form: str) -> None:
    sample = texts()
    assert len(sample) > 3000
    options = {"padding": form == "padded", "truncation": form != "whole", "max_length": 77}
    got = processor.tokenizer(sample, return_tensors=None, **options)
    for name in ("input_ids", "attention_mask"):
        label = f"{name}, {form}, processor {saved.name}"
        compare_rows(label, sample, got[name], rows[form][name])


@pytest.mark.parametrize("saved", ["saved there"], indirect=True)
@pytest.mark.parametrize(
    "newer",
    [
        False,
        pytest.param(True, marks=pytest.mark.xfail(strict=True, reason="TensorFlow's Unicode tables are older")),
    ],
)
def test_every_character(saved: Path, processor: CLIPProcessor, reference: Process, newer: bool) -> None:
    """Inside a word, alone, and before punctuation; planes 3 to 13 hold hardly anything yet."""
    codes = [*range(0xD800), *range(0xE000, 0x32400), *range(0xE0000, 0xE0200)]
    sample = [f"a{chr(code)}b {chr(code)} {chr(code)}." for code in codes if is_newer(code) == newer]
    got = processor.tokenizer(sample, padding=False, truncation=False, return_tensors=None)["input_ids"]
    label = "newer characters (known to differ)" if newer else "every other character"
    compare_rows(label, sample, got, tokenized_there(reference, saved, sample)["whole"]["input_ids"])
