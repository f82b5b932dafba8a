"""Vocabularies, tokenizers and their reference: the real one, where it can be had, and one learnt here."""

from __future__ import annotations

import gzip
import importlib.metadata

import pytest
from reference_tokenizer import learn_merges, reference_tokenizer, vocabulary_of

from tf_clip import CLIPTokenizer

TEXT = """a photo of a cat and a photo of the dog , the catalogue of photos , it isn't the other one
aaaa aaaaa aaaaaaa banana bandana hahaha papaya mississippi assess possessed the then there these"""


@pytest.fixture(autouse=True)
def seeded():
    """Leaves TensorFlow's seed alone: setting it makes each traced function start anew, and nothing here is random."""


@pytest.fixture(scope="session")
def tiny_merges():
    return learn_merges(TEXT, 60)


@pytest.fixture(scope="session")
def tiny_vocabulary(tiny_merges):
    return vocabulary_of(tiny_merges)


@pytest.fixture(scope="session")
def tiny_tokenizer(tiny_vocabulary, tiny_merges):
    return CLIPTokenizer(tiny_vocabulary, tiny_merges)


@pytest.fixture(scope="session")
def real_merges():
    """CLIP's own, from the data file inside OpenCLIP's wheel; the package itself is not imported."""
    try:
        files = importlib.metadata.files("open-clip-torch") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    paths = [file.locate() for file in files if file.name == "bpe_simple_vocab_16e6.txt.gz"]
    if not paths:
        pytest.skip("needs CLIP's vocabulary: pip install --no-deps open-clip-torch")
    with gzip.open(paths[0], "rt", encoding="utf-8", newline="\n") as file:
        lines = file.read().split("\n")
    return [tuple(line.split(" ")) for line in lines[1 : 49152 - 256 - 2 + 1]]


@pytest.fixture(scope="session")
def real_vocabulary(real_merges):
    vocabulary = vocabulary_of(real_merges)
    assert (len(vocabulary), vocabulary["!"], vocabulary["<|endoftext|>"]) == (49408, 0, 49407)
    return vocabulary


@pytest.fixture(scope="session")
def real_tokenizer(real_vocabulary, real_merges):
    return CLIPTokenizer(real_vocabulary, real_merges)


@pytest.fixture(scope="session")
def real_reference(real_vocabulary, real_merges):
    pytest.importorskip("tokenizers")
    return reference_tokenizer(real_vocabulary, real_merges)


@pytest.fixture(scope="session")
def tiny_reference(tiny_vocabulary, tiny_merges):
    pytest.importorskip("tokenizers")
    return reference_tokenizer(tiny_vocabulary, tiny_merges)
