"""The same ids and the same pixels as transformers, from its files and from ours."""

import gzip
import importlib.metadata
import random
import unicodedata

import numpy as np
import pytest
from PIL import Image

from tests.parity.conftest import largest, report
from tf_clip import CLIPFeatureExtractorTF, CLIPProcessor, CLIPTokenizer
from tf_clip.preprocessing.byte_pair_encoding import byte_symbols

EDGES = [
    "",
    " ",
    "a photo of a cat",
    "Isn't it? We'll've 1900, 3.14!",
    "don’t",
    "--------",
    "zzzz ........",
    "x" * 500,
    "e\u0301te\u0301 ﬁn ＡＢＣ",
    "İstanbul ΟΔΟΣ Σίσυφος",
    "日本語とemoji 👩\u200d🚀🔥🏳️\u200d🌈",
    "a\x00b\x1cc\u3000d\u200be\u00a0f\x85g",
    "<|startoftext|> a <|endoftext|> b <|ENDOFTEXT|>",
    "&amp; <br> Ã©",
    "\u1100\u1161\u11a8 각",
    "a\u0315\u0300\u05ae\u0062",
]
BLOCKS = [
    *[(0x20, 0x7F), (0xA0, 0x24F), (0x300, 0x3FF), (0x400, 0x52F), (0x590, 0x6FF), (0x900, 0x97F)],
    *[(0x2000, 0x206F), (0x3040, 0x30FF), (0xAC00, 0xD7A3), (0x1D400, 0x1D7FF), (0x1F300, 0x1FAFF)],
]


def texts():
    generator = random.Random(0)
    described = [
        line.strip()
        for package in importlib.metadata.distributions()
        for line in (package.metadata.get_payload() or "").splitlines()
        if line.strip()
    ]
    made = []
    for _ in range(1500):
        first, last = generator.choice(BLOCKS)
        characters = [chr(generator.randint(first, last)) for _ in range(generator.randint(1, 25))]
        # Code points newer than one side's Unicode tables may be letters to one and not to the other.
        made.append("".join(c if unicodedata.category(c) != "Cn" else " " for c in characters))
    return EDGES + generator.sample(described, min(1500, len(described))) + made


def photo(generator, height, width):
    """Noise over gradients, so that every frequency is there."""
    rows, columns = np.mgrid[0:height, 0:width]
    base = np.stack([rows * 255 / height, columns * 255 / width, (rows + columns) % 256], axis=-1)
    return np.clip(base + generator.normal(0, 40, base.shape), 0, 255).astype(np.uint8)


def pictures():
    generator = np.random.default_rng(0)
    sizes = [(480, 640), (224, 224), (223, 225), (64, 300), (500, 90), (1, 1), (17, 1000), (227, 224), (224, 299)]
    made = [Image.fromarray(photo(generator, *size)) for size in sizes]
    alpha = generator.integers(0, 256, (60, 80), dtype=np.uint8)
    see_through = made[0].resize((80, 60))
    see_through.putalpha(Image.fromarray(alpha))
    return [*made, see_through, made[0].convert("L"), made[0].convert("P"), made[0].convert("LA"), made[0].convert("1")]


@pytest.fixture(scope="module")
def ours(tmp_path_factory):
    """A processor with the real vocabulary, which lies in the wheel of open-clip-torch."""
    files = importlib.metadata.files("open-clip-torch") or []
    (path,) = [file.locate() for file in files if file.name == "bpe_simple_vocab_16e6.txt.gz"]
    lines = gzip.open(path, "rt", encoding="utf-8").read().split("\n")
    merges = [tuple(line.split()) for line in lines[1 : 49152 - 256 - 2 + 1]]
    symbols = sorted(byte_symbols(), key=lambda symbol: (ord(symbol) >= 256, symbol))
    names = [*symbols, *(symbol + "</w>" for symbol in symbols), *map("".join, merges)]
    vocab = {name: index for index, name in enumerate([*names, "<|startoftext|>", "<|endoftext|>"])}
    assert len(vocab) == 49408
    return CLIPProcessor(CLIPFeatureExtractorTF(), CLIPTokenizer(vocab, merges))


@pytest.fixture(scope="module")
def theirs(ours, tmp_path_factory):
    """transformers' processor, read from our files."""
    import transformers

    folder = tmp_path_factory.mktemp("ours")
    ours.save_pretrained(folder)
    tokenizer = transformers.CLIPTokenizer.from_pretrained(folder)
    images = transformers.CLIPImageProcessorPil.from_pretrained(folder)
    return transformers.CLIPProcessor(image_processor=images, tokenizer=tokenizer)


@pytest.fixture(scope="module", params=["ours", "theirs"])
def processor(request, ours, theirs, tmp_path_factory):
    """Ours, as made, and as read from the files that transformers saves."""
    if request.param == "ours":
        return ours
    folder = tmp_path_factory.mktemp("theirs")
    theirs.save_pretrained(folder)
    return CLIPProcessor.from_pretrained(folder)


@pytest.mark.parametrize("truncation", [True, False])
def test_token_ids(processor, theirs, truncation):
    sample = texts()
    got = processor.tokenizer(sample, padding=False, truncation=truncation, max_length=77, return_tensors=None)
    options = {"truncation": True, "max_length": 77} if truncation else {}
    wanted = theirs.tokenizer(sample, **options)
    different = [text for text, a, b in zip(sample, got["input_ids"], wanted["input_ids"], strict=True) if a != b]
    print(f"\n  token ids, truncation={truncation}: {len(different)} of {len(sample)} rows differ", end="")
    assert different == []


def test_padded_batches(processor, theirs):
    sample = ["a cat", "a much longer text about a dog", ""]
    got = processor(text=sample, return_tensors="np")
    wanted = theirs(text=sample, return_tensors="np", padding=True)
    np.testing.assert_array_equal(got["input_ids"], wanted["input_ids"])
    np.testing.assert_array_equal(got["attention_mask"], wanted["attention_mask"])


def test_pixels(processor, theirs):
    images = pictures()
    got = processor(images=images, return_tensors="np")["pixel_values"]
    wanted = theirs(images=images, return_tensors="np")["pixel_values"].transpose(0, 2, 3, 1)
    report(f"pixel_values of {len(images)} pictures", largest(got, wanted), 1e-6)
