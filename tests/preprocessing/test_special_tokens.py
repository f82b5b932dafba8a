"""Special tokens in normalized text: which are found where several could be, and what a mark spans."""

import re

import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_clip.preprocessing.text.normalization import Characters
from tf_clip.preprocessing.text.special_tokens import NormalizedTokens, may_overlap

TOKENS = st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=2, unique=True)


def codes_of(text):
    return [ord(letter) for letter in text]


def marked(tokens, text):
    """Returns the text with "0" for the first token and "1" for the second, and the spans of all characters."""
    put_marks = NormalizedTokens([(codes_of(token), ord(str(index))) for index, token in enumerate(tokens)])
    index = tf.range(len(text))
    found = put_marks(Characters(tf.constant(codes_of(text), tf.int32), 10 * index, 10 * index + 9))
    codes, first, last = (array.numpy().tolist() for array in found)
    return "".join(map(chr, codes)), list(zip(first, last, strict=True))


@pytest.mark.slow
@settings(max_examples=40, deadline=None, derandomize=True)
@given(tokens=TOKENS, text=st.text("aabbc", max_size=60))
def test_tokens_are_found_as_a_regular_expression_finds_them(tokens, text):
    longest_first = "|".join(sorted(tokens, key=len, reverse=True))
    wanted, spans = "", []
    for found in re.finditer(f"{longest_first}|.", text):
        wanted += str(tokens.index(found[0])) if found[0] in tokens else found[0]
        spans.append((10 * found.start(), 10 * found.end() - 1))
    assert marked(tokens, text) == (wanted, spans)


@pytest.mark.parametrize(
    ("tokens", "overlap"),
    [
        (["<|startoftext|>", "<|endoftext|>"], False),
        (["ab", "abc"], False),  # they begin together: the longer is taken
        (["ab", "bcd"], True),
        (["abc", "b"], True),
        (["aa", "b"], True),
        (["aba", "c"], True),
    ],
)
def test_it_is_known_which_tokens_can_overlap(tokens, overlap):
    assert may_overlap(tokens) == may_overlap(tokens[::-1]) == overlap


def test_a_long_run_of_overlapping_tokens_is_a_few_steps():
    count = 200_001
    codes, spans = marked(["aa", "ab"], "a" * count)
    assert codes == "0" * (count // 2) + "a"
    assert spans[-2:] == [(10 * (count - 3), 10 * (count - 1) - 1), (10 * (count - 1), 10 * count - 1)]
