"""The merge loop alone: words in, ids out, against the loop in plain Python."""

from itertools import pairwise

import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.reference_tokenizer import merge_pair, vocabulary_of
from tf_clip.preprocessing.text.byte_pair_encoding import BOS_MARK, EOS_MARK, BytePairEncoder, byte_symbols

MERGES = [("a", "a"), ("a", "b"), ("aa", "a"), ("ab", "a</w>"), ("aa", "aa"), ("b", "b</w>"), ("aa", "b</w>")]


def encoder_of(merges, vocab=None):
    vocab = vocab or vocabulary_of(merges)
    return BytePairEncoder(vocab, merges, vocab["<|startoftext|>"], vocab["<|endoftext|>"])


def encode_plainly(word, merges, vocab):
    symbols = tuple(byte_symbols()[byte] for byte in word)
    symbols = (*symbols[:-1], symbols[-1] + "</w>")
    while ranks := [merges.index(pair) for pair in pairwise(symbols) if pair in merges]:
        symbols = merge_pair(symbols, merges[min(ranks)])
    return [vocab[symbol] for symbol in symbols]


def test_each_byte_has_its_own_printable_symbol():
    symbols = byte_symbols()
    assert len(set(symbols)) == 256
    assert all(len(symbol) == 1 and symbol.isprintable() and not symbol.isspace() for symbol in symbols)


def test_printable_ascii_stands_for_itself_and_a_space_does_not():
    assert (byte_symbols()[ord("!")], byte_symbols()[ord(" ")]) == ("!", "Ġ")


@pytest.mark.parametrize("length", range(1, 12))
def test_overlapping_runs_merge_from_the_left(length):
    vocab = vocabulary_of(MERGES)
    words = [b"a" * length, b"b" + b"a" * length, b"a" * length + b"b"]
    assert encoder_of(MERGES).encode(tf.constant(words)).to_list() == [
        encode_plainly(word, MERGES, vocab) for word in words
    ]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    words=st.lists(st.text("ab", min_size=1, max_size=12).map(str.encode), min_size=1, max_size=8),
    order=st.permutations(MERGES),
)
def test_any_order_of_merges_equals_the_plain_loop(words, order):
    vocab = vocabulary_of(MERGES)
    # Where a merge comes before those that make its parts, it waits until they are there.
    assert encoder_of(order, vocab).encode(tf.constant(words)).to_list() == [
        encode_plainly(word, list(order), vocab) for word in words
    ]


def test_ids_need_not_follow_the_ranks(tiny_vocabulary, tiny_merges):
    names = sorted(tiny_vocabulary)  # alphabetical: ids and ranks have nothing to do with one another
    vocab = {name: index for index, name in enumerate(names)}
    words = [b"photo", b"mississippi", b"banana", b"aaaaaaa"]
    assert encoder_of(tiny_merges, vocab).encode(tf.constant(words)).to_list() == [
        encode_plainly(word, tiny_merges, vocab) for word in words
    ]


def test_a_pair_listed_twice_keeps_its_better_rank():
    once, twice = encoder_of(MERGES), encoder_of([*MERGES, MERGES[0]], vocabulary_of(MERGES))
    words = tf.constant([b"aaab", b"baa"])
    assert twice.encode(words).to_list() == once.encode(words).to_list()


def test_without_merges_each_byte_is_a_token():
    assert encoder_of([]).encode(tf.constant([b"!a"])).to_list() == [[0, 256 + ord("a") - ord("!")]]


def test_marks_become_the_special_tokens():
    vocab = vocabulary_of(MERGES)
    assert encoder_of(MERGES).encode(tf.constant([EOS_MARK, BOS_MARK])).to_list() == [
        [vocab["<|endoftext|>"]],
        [vocab["<|startoftext|>"]],
    ]


def test_no_words_give_no_rows():
    encoded = encoder_of(MERGES).encode(tf.constant([], tf.string))
    assert encoded.to_list() == []
    assert encoded.dtype == tf.int32


def test_repeated_words_come_out_once_each_in_their_places():
    rows = encoder_of(MERGES).encode(tf.constant([b"ab", b"ba", b"ab"])).to_list()
    assert rows[0] == rows[2] != rows[1]


@pytest.mark.parametrize("missing", ["a", "a</w>", "aa"])
def test_a_vocabulary_without_a_needed_symbol_is_refused(missing):
    vocab = vocabulary_of(MERGES)
    del vocab[missing]
    with pytest.raises(ValueError, match=rf"`vocab` must hold .*Received: no '{missing}'\. Use"):
        encoder_of(MERGES, vocab)


def test_ids_with_holes_between_them_are_kept():
    vocab = {name: 3 * index + 5 for name, index in vocabulary_of(MERGES).items()}
    words = [b"aaab", b"ba", b"abab"]
    assert encoder_of(MERGES, vocab).encode(tf.constant(words)).to_list() == [
        encode_plainly(word, MERGES, vocab) for word in words
    ]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(words=st.lists(st.text("abhnpst", min_size=1, max_size=30).map(str.encode), min_size=1, max_size=8))
def test_long_words_that_fall_into_pieces_equal_the_plain_loop(tiny_vocabulary, tiny_merges, words):
    encoder = encoder_of(tiny_merges, tiny_vocabulary)
    assert encoder.encode(tf.constant(words)).to_list() == [
        encode_plainly(word, tiny_merges, tiny_vocabulary) for word in words
    ]


def test_merges_behind_the_end_of_a_word_are_left_out():
    merges = [*MERGES, ("b</w>", "a")]
    assert encoder_of(merges).encode(tf.constant([b"ab", b"a"])).to_list() == [
        encode_plainly(word, MERGES, vocabulary_of(merges)) for word in (b"ab", b"a")
    ]
