"""NFC in the graph against Python's, on characters of one Unicode."""

import random
import time
import unicodedata

import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_clip.preprocessing.text import unicode_tables
from tf_clip.preprocessing.text.normalization import CanonicalComposition, Characters

DATA = unicode_tables.normalization(as_reference=False)
# What this Python's Unicode has; a newer Unicode than ours would bring characters that combine.
CODES = [code for code in range(0x110000) if not 0xD800 <= code < 0xE000 and unicodedata.category(chr(code)) != "Cn"]
MARKS = [chr(code) for code in CODES if DATA.combining_class[code]]
SYLLABLES = range(0xAC00, 0xD7A4)
_LETTERS = set(CODES).difference(SYLLABLES)
PAIRS = [pair for pair, whole in DATA.composition.items() if whole in _LETTERS]
JAMO = [chr(code) for code in [*range(0x1100, 0x1114), *range(0x1161, 0x1177), *range(0x11A7, 0x11C4)]]
COMBINING = sorted({chr(code) for pair in PAIRS for code in pair} | {chr(DATA.composition[pair]) for pair in PAIRS})
TAB = ord("\t")


@pytest.fixture(scope="module")
def compose():
    composition = CanonicalComposition(DATA)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string)])
    def run(texts):
        codes = tf.strings.unicode_decode(tf.strings.reduce_join(tf.strings.join(["\t", texts])), "UTF-8")
        index = tf.range(tf.size(codes))
        return composition(Characters(codes, index, index))

    return run


def normalized(compose, texts):
    codes = compose(tf.constant(texts, tf.string, shape=[len(texts)])).codes
    return tf.strings.unicode_encode(codes, "UTF-8").numpy().decode().split("\t")[1:]


def assert_nfc(compose, texts):
    found = normalized(compose, texts)
    wanted = [unicodedata.normalize("NFC", text) for text in texts]
    bad = [
        (ascii(text), ascii(got), ascii(want))
        for text, got, want in zip(texts, found, wanted, strict=True)
        if got != want
    ]
    assert not bad, (len(bad), bad[:5])


def texts_of(characters, count, longest, seed=0):
    generator = random.Random(seed)
    return ["".join(generator.choices(characters, k=generator.randint(0, longest))) for _ in range(count)]


def test_every_character(compose):
    assert len(CODES) > 270_000
    assert_nfc(compose, [chr(code) for code in CODES if code != TAB])


def test_every_character_taken_apart(compose):
    assert_nfc(compose, [unicodedata.normalize("NFD", chr(code)) for code in CODES if code != TAB])


@pytest.mark.parametrize(
    "others", ["\u0315\u0300\u05ae", "\u0300\u0315\u0300", "\u0345\u0327\u0301", "\u0334\u3099\u0328"]
)
def test_marks_come_into_order_as_in_unicodes_own_tests(compose, others):
    assert_nfc(compose, [f"a{others}{mark}b" for mark in MARKS] + [f"a{mark}{others}b" for mark in MARKS])


@pytest.mark.parametrize("between", ["", "\u0300", "\u0327", "\u0345", "\u3099", "a", "\u0301\u0301"])
def test_every_pair_that_composes_with_something_between(compose, between):
    assert_nfc(compose, [chr(first) + between + chr(second) for first, second in PAIRS])


@pytest.mark.parametrize(
    "characters",
    [COMBINING, MARKS, [*MARKS, *"aeoAEOiIuU"], JAMO, [*JAMO, "가", "각", "a", "\u0301"], [*"eoaα", *MARKS[:60]]],
    ids=["what composes", "marks", "marks on letters", "jamo", "jamo and syllables", "Latin"],
)
def test_random_sequences(compose, characters):
    assert_nfc(compose, texts_of(characters, 30_000, 9))


def test_characters_that_stay_taken_apart(compose):
    texts = ["\u0958", "\u2adc", "\u0344", "\u212b", "\u1e9b\u0323", "\u0f73", "\ufb1d"]
    assert_nfc(compose, texts)


@pytest.mark.parametrize(
    ("text", "composed"),
    [
        ("e\u0301", "é"),
        ("e\u0323\u0302", "ệ"),
        ("e\u0302\u0323", "ệ"),
        ("a\u0301\u0300", "á\u0300"),
        ("\u0301e", "\u0301e"),
        ("\u1100\u1161\u11a8", "각"),
        ("가\u11a8", "각"),
        ("각\u11a8", "각\u11a8"),
        ("\u0b47\u0300\u0b3e", "\u0b47\u0300\u0b3e"),  # a mark between keeps two letters apart
    ],
)
def test_known_cases(compose, text, composed):
    assert normalized(compose, [text]) == [composed]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    st.lists(st.text(st.sampled_from([*COMBINING, *MARKS, *JAMO]) | st.sampled_from("aeoi \u0301\u0323"), max_size=20))
)
def test_any_texts(compose, texts):
    assert_nfc(compose, texts)


def test_nothing_reaches_into_the_next_text(compose):
    assert normalized(compose, ["e", "\u0301", "\u1100", "\u1161", "", "\u0301"]) == [
        *["e", "\u0301", "\u1100", "\u1161", "", "\u0301"]
    ]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.text(st.sampled_from([*"aeo\u0301\u0323\u0345\u0344각", *JAMO[::9]]), min_size=1, max_size=12))
def test_each_character_is_made_of_those_that_it_spans(compose, text):
    found = compose(tf.constant([text]))
    spans = list(zip(found.first.numpy()[1:], found.last.numpy()[1:], strict=True))
    given = "\t" + text
    for code, (first, last) in zip(found.codes.numpy()[1:], spans, strict=True):
        parts = set(unicodedata.normalize("NFD", given[first : last + 1]))
        assert set(unicodedata.normalize("NFD", chr(code))) <= parts
    # None of those before is lost.
    assert {index for first, last in spans for index in range(first, last + 1)} == set(range(1, len(given)))


def test_what_the_reference_does_not_know_stays_as_it_is():
    known, all_of_it = unicode_tables.normalization(), DATA
    newer = [code for code in range(0x110000) if known.combining_class[code] != all_of_it.combining_class[code]]
    assert 50 < len(newer) < 200
    assert known.composition.items() <= all_of_it.composition.items()


@pytest.mark.parametrize("run", ["\u0301", "\u0301\u0315", "\u0323\u0302", "\u1161", "\u0345\u0334\u0301"])
def test_time_is_linear_in_a_run_of_marks(compose, run):
    def seconds(text):
        texts, times = tf.constant([text]), []
        for _ in range(3):
            start = time.perf_counter()
            compose(texts)
            times.append(time.perf_counter() - start)
        return min(times)

    short, long = (f"e{run * (count // len(run))}" for count in (40_000, 400_000))
    # Quadratic time would be a hundred times as long.
    assert seconds(long) < 35 * max(seconds(short), 0.002)
