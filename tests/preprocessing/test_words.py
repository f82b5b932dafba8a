"""Texts to words: where a word ends, in which case and normal form it comes out, and where it stood."""

import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_clip.preprocessing.text.byte_pair_encoding import BOS_MARK, EOS_MARK
from tf_clip.preprocessing.text.words import WordSplitter

BOS, EOS = BOS_MARK.decode(), EOS_MARK.decode()


@pytest.fixture(scope="module")
def splitter():
    return WordSplitter()


def words_of(splitter, *texts):
    found = splitter(tf.constant(texts, tf.string, shape=[len(texts)]))
    rows = tf.RaggedTensor.from_row_splits(found.words, found.row_splits).to_list()
    return [[word.decode() for word in row] for row in rows]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a photo of a cat", ["a", "photo", "of", "a", "cat"]),
        ("cat,dog!?", ["cat", ",", "dog", "!?"]),
        ("snake_case", ["snake", "_", "case"]),
        ("DOG Élan ΟΔΟΣ", ["dog", "élan", "οδοσ"]),
        ("a👩‍🚀b", ["a", "👩‍🚀", "b"]),
        ("日本語の写真", ["日本語の写真"]),
        ("", []),
        ("  ", []),
    ],
)
def test_runs_of_letters_and_of_punctuation_are_words(splitter, text, words):
    assert words_of(splitter, text) == [words]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("it's we'VE I'm they'll she'd don't you're", "it 's we 've i 'm they 'll she 'd don 't you 're"),
        ("'s's", "'s 's"),
        ("'sabc 'retro 'room", "'s abc 're tro ' room"),
        ("''s !'s", "'' s !' s"),
        ("1's", "1 's"),
        ("'ve", "'ve"),
        ("a'", "a '"),
        ("'v 'l 'r", "' v ' l ' r"),
        ("'ſ", "' ſ"),
    ],
)
def test_a_contraction_is_a_word_where_a_word_may_begin(splitter, text, words):
    assert words_of(splitter, text) == [words.split()]


@pytest.mark.parametrize("contraction", ["re", "ve", "ll"])
def test_no_other_two_characters_are_taken_for_a_contraction(splitter, contraction):
    # These make the number that the contraction makes where a character counts for 8 bits.
    number = ord(contraction[0]) * 256 + ord(contraction[1])
    pairs = [first + chr(number - ord(first) * 256) for first in "abcefghijklnopqr" if first < contraction[0]]
    quoted = words_of(splitter, *(f"'{pair}" for pair in pairs))
    assert quoted == [["'" + row[0][1:], *row[1:]] for row in words_of(splitter, *(f"!{pair}" for pair in pairs))]


@pytest.mark.parametrize(
    ("text", "words"),
    [("1900", "1 9 0 0"), ("3.14", "3 . 1 4"), ("a1b22", "a 1 b 2 2"), ("½²Ⅷ٣१", "½ ² ⅷ ٣ १"), ("Ⅷa", "ⅷ a")],
)
def test_each_number_character_is_a_word(splitter, text, words):
    assert words_of(splitter, text) == [words.split()]


@pytest.mark.parametrize("space", " \v\f\x85\xa0\u1680\u2000\u2003\u200a\u2028\u2029\u202f\u205f\u3000")
def test_white_space_separates_words_and_is_in_none(splitter, space):
    assert words_of(splitter, f"{space}a{space}{space}b!{space}") == [["a", "b", "!"]]


@pytest.mark.parametrize("character", "\u200b\u200d\ufeff\u2060\u180e\x00\x1c\x1f")
def test_what_only_looks_like_white_space_is_punctuation(splitter, character):
    assert words_of(splitter, f"a{character}{character}b") == [["a", character * 2, "b"]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<|ENDOFTEXT|>!!", "<| endoftext |> !!"),
        ("<|StartOfText|>", "<| startoftext |>"),
        ("<|ENDOFTEXT|><|ENDOFTEXT|>", "<| endoftext |> <| endoftext |>"),
        ("<|ENDOFTEXT|>a", "<| endoftext |> a"),
        ("!<|ENDOFTEXT|>!!", "!<| endoftext |>!!"),
        ("!<|ENDOFTEXT|><|ENDOFTEXT|>!!", "!<| endoftext |><| endoftext |>!!"),
        ("<|ENDOFTEX|>!!", "<| endoftex |>!!"),
        ("a<|ENDOFTEXT|>'s", "a <| endoftext |> 's"),
    ],
)
def test_a_special_token_in_capitals_ends_a_word_after_it(splitter, text, words):
    assert words_of(splitter, text) == [words.split()]


def test_marks_are_words_of_their_own(splitter):
    assert words_of(splitter, f"{BOS}a{EOS}{EOS}!{EOS}b1{BOS}") == [
        [BOS, "a", EOS, EOS, "!", EOS, "b", "1", BOS],
    ]


def test_texts_do_not_touch(splitter):
    texts = ["a", "\u0301b", "", "'", "s", "<|ENDOFTEXT|>", "!!", "<|ENDOF", "TEXT|>", " "]
    assert words_of(splitter, *texts) == [words_of(splitter, text)[0] for text in texts]


def test_no_texts_have_no_words(splitter):
    assert words_of(splitter) == []


@pytest.mark.parametrize("text", [b"\xf0\x9f", b"a\xff", b"\xe2\x82", b"\x80a"])
def test_half_a_character_at_the_end_does_not_take_from_the_next_text(splitter, text):
    found = splitter(tf.constant([text, b"b"]))
    assert found.words[found.row_splits[1] :].numpy().tolist() == [b"b"]


@pytest.mark.parametrize(
    ("text", "words", "spans"),
    [
        ("Ab  c", ["ab", "c"], [(1, 1), (2, 2), (5, 5)]),
        ("e\u0301e", ["ée"], [(1, 2), (3, 3)]),
        ("İx", ["i", "\u0307", "x"], [(1, 1), (1, 1), (2, 2)]),
        ("\u0958", ["क", "़"], [(1, 1), (1, 1)]),
        ("\u1100\u1161\u11a8!", ["각", "!"], [(1, 3), (4, 4)]),
    ],
)
def test_each_character_of_a_word_knows_those_it_came_from(splitter, text, words, spans):
    assert words_of(splitter, text) == [words]
    found = splitter(tf.constant([text])).characters
    assert list(zip(found.first.numpy().tolist(), found.last.numpy().tolist(), strict=True)) == spans


@pytest.mark.slow
@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.lists(st.text(st.sampled_from([*"aE' s\r\n1!<|>é가ΣİÅ", "\u0301", "\u1100", "\u1161"])), min_size=1))
def test_characters_are_those_of_the_words_and_in_order(splitter, texts):
    found = splitter(tf.constant(texts))
    codes, first, last = (array.numpy() for array in found.characters)
    assert "".join(map(chr, codes)).encode() == b"".join(found.words.numpy())
    assert (first <= last).all() and (first[1:] >= first[:-1]).all()
    assert found.row_splits.numpy()[[0, -1]].tolist() == [0, len(found.words)]
