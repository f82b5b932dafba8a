"""Tokenizers' references, and a vocabulary that is learnt here."""

from __future__ import annotations

import pytest

from helpers.reference_tokenizer import learn_merges, reference_tokenizer, vocabulary_of
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
def real_reference(real_vocabulary, real_merges):
    return reference_tokenizer(real_vocabulary, real_merges)


@pytest.fixture(scope="session")
def tiny_reference(tiny_vocabulary, tiny_merges):
    return reference_tokenizer(tiny_vocabulary, tiny_merges)
