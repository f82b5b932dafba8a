"""`tf_clip.export.tflite.utf8_tokenizer`: the tokenizer as integer arithmetic, in TensorFlow and in LiteRT."""

from __future__ import annotations

import itertools
import random
import sys
import unicodedata

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.reference_tokenizer import vocabulary_of
from tf_clip import CLIPTokenizer
from tf_clip.export.tflite.pair_merging import PairHash
from tf_clip.export.tflite.utf8_codec import decoded
from tf_clip.export.tflite.utf8_tokenizer import Utf8Tokenizer
from tf_clip.preprocessing.text import unicode_tables

SMALL, LARGE = 64, 1024
# As many tokens as the large array can hold, so that nothing is cut where whole texts are compared.
LONG = LARGE + 2

CODES = [code for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000]
ASSIGNED = [chr(code) for code in CODES if unicodedata.category(chr(code)) not in ("Cn", "Co")]
MARKS = [letter for letter in ASSIGNED if unicodedata.combining(letter)]
# What grows in NFC or in lower case, what sorts, merges and blocks in all ways.
GROWING = "\U0001d160\U0001d15e\u0344\u0958\ufb2c\u1f82\u0390\u01d5İȺ\u0f73\u2adc"
MIXING = GROWING + "AaΩωK가각ᄀ\u1161\u11a8\u0323\u031b\u0300\u0301\u0308\u0307\u0345\u0327\u0338\u3099か<'"
SPECIALS = ["<|startoftext|>", "<|endoftext|>"]
SPELLED = [token for name in SPECIALS for token in (name, name, name.upper(), name.title(), name[:-1], name[1:])]
WORDS = (
    "a photo of the cat isn't DOG İstanbul ΟΔΟΣ straße naïve ﬁnal 日本 हिन्दी สวัสดี שָׁלוֹם 1900 3.14 don’t we've".split()
)
EMOJI = [*"🔥👩👨🚀🏴❤☠🧑🤝💻🏻🏿🇩🇪🇫", "\u200d", "\ufe0f", "\u20e3", "\U000e0067", "\U000e007f"]
NAMES = [chr(code) for code in [*range(0xA0, 0x24F), *range(0x1E00, 0x1FFF)]]
JAMO = [chr(code) for code in [*range(0x1100, 0x1200), *range(0xA960, 0xA97D), *range(0xD7B0, 0xD7FC)]]
SPACES = [letter for letter in map(chr, CODES) if letter.isspace()]


def of_pieces(pieces, longest):
    return lambda generator: "".join(generator.choices(pieces, k=generator.randint(0, longest))).encode()


def decomposed_name(generator):
    name = "".join(generator.choices([*NAMES, *"abcxyz_- ."], k=generator.randint(1, 15)))
    return unicodedata.normalize(generator.choice(["NFD", "NFD", "NFC", "NFKD"]), name).encode()


def of_a_page(generator):
    page = generator.choice(ASSIGNED)
    letters = [chr(code) for code in range(ord(page) & ~0xFF, ord(page) | 0xFF) if not 0xD800 <= code < 0xE000]
    return of_pieces([*letters, *" aE'" * 10], 15)(generator)


def broken(generator):
    data = bytearray(of_pieces([*WORDS, *EMOJI, " "], 8)(generator))
    for _ in range(generator.randint(1, 4)):
        data.insert(generator.randint(0, len(data)), generator.choice([0x80, 0xBF, 0xC3, 0xE0, 0xED, 0xF0, 0xF4, 0xFF]))
    return bytes(data)


# Each from a random generator to a text, in bytes.
KINDS = {
    "characters of one page": of_a_page,
    "characters of all planes": of_pieces(list(map(chr, CODES)), 20),
    "assigned characters": of_pieces([*ASSIGNED, *" " * 30_000], 20),
    "combining marks": of_pieces([*MARKS, *"aeoAEO가각ㄱΑα " * 90], 12),
    "worst cases of NFC": of_pieces(MIXING, 20),
    "decomposed names": decomposed_name,
    "Hangul jamo": of_pieces([*JAMO, *JAMO[:112] * 2, *"가각 a\u0301" * 9], 15),
    "cases": of_pieces([*"ΣσςΑΟİIıiſKÅẞßǅǄǆ'’ \u0307\u0301\u0345sST"], 20),
    "contractions": of_pieces([*"''''’ asStTmMdDrReEvVlL1.", "'re", "'VE", "'ll", "''s"], 25),
    "special tokens": of_pieces([*SPELLED * 4, *"a!' <|>1é\u0301", "'s", "!!"], 6),
    "emoji": of_pieces([*EMOJI, "1", "#", " ", "a"], 12),
    "words": of_pieces([word + space for word in WORDS for space in ("", " ", ", ", "\u00a0", "\u2028")], 12),
    "numbers": of_pieces([*"0123456789½²Ⅷ٣१௰㊀①,.:-+%$€ ex\u20e3"], 25),
    "spaces": of_pieces([*SPACES, *"ab\u200b\ufeff\u180e\x00\x1c\x1f!1"], 25),
    "ASCII": of_pieces([chr(code) for code in range(128)], 60),
    "long words": of_pieces([*"etaoinshrdlu" * 3, *"aaaabcdefz"], 400),
    "few letters": of_pieces([*"ab"], 300),
    "random bytes": lambda generator: generator.randbytes(generator.randint(0, 60)),
    "broken UTF-8": broken,
}


def function_of(tokenizer, size, max_length=None):
    encode = Utf8Tokenizer(tokenizer, max_length)
    signature = [tf.TensorSpec([size], tf.uint8, name="utf8"), tf.TensorSpec([], tf.int32, name="length")]
    return tf.function(lambda utf8, length: encode(utf8, length), input_signature=signature)


def arguments(data, size):
    """What is behind the text must not matter."""
    utf8 = np.full(size, ord("x"), np.uint8)
    utf8[: min(len(data), size)] = np.frombuffer(data[:size], np.uint8)
    return {"utf8": utf8, "length": np.int32(len(data))}


def called(function, data):
    """Calls a tf.function."""
    given_arguments = arguments(data, function.input_signature[0].shape[0])
    return {name: tensor.numpy() for name, tensor in function(*map(tf.constant, given_arguments.values())).items()}


def differences(tokenizer, texts, encode, max_length=None):
    """Counts texts whose ids, mask or number of tokens differ, and prints some."""
    max_length = max_length or tokenizer.model_max_length
    strings = [text.decode("utf-8", "replace") for text in texts]
    wanted = tokenizer(strings, padding="max_length", max_length=max_length, return_tensors="np")
    bad = 0
    for text, ids, mask in zip(texts, wanted["input_ids"], wanted["attention_mask"], strict=True):
        found = encode(text)
        same = np.array_equal(found["input_ids"], ids) and np.array_equal(found["attention_mask"], mask)
        if not (same and found["num_tokens"] == mask.sum()):
            bad += 1
            if bad < 4:
                print(f"\n  {text!r}\n    here  {found['input_ids'][:20]}\n    there {ids[:20]}", end="")
    return bad


@pytest.fixture(scope="module")
def tiny_small(tiny_tokenizer):
    return function_of(tiny_tokenizer, SMALL)


# In TensorFlow, with a vocabulary that is at hand everywhere.


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_text_with_a_tiny_vocabulary(kind, tiny_tokenizer, tiny_small):
    generator = random.Random(0)
    texts = [KINDS[kind](generator)[:SMALL] for _ in range(50)]
    assert differences(tiny_tokenizer, texts, lambda text: called(tiny_small, text)) == 0


def test_arrays_that_are_full_to_the_last_byte(tiny_tokenizer):
    function = function_of(tiny_tokenizer, 24, 80)
    generator = random.Random(0)
    texts = [b"\xff" * 24, *((letter * 24).encode()[:24] for letter in MIXING)]
    texts += ["".join(generator.choices(MIXING, k=24)).encode()[:24] for _ in range(200)]
    assert differences(tiny_tokenizer, texts, lambda text: called(function, text), 80) == 0


@pytest.mark.parametrize("size", [1, 14])
@pytest.mark.usefixtures("no_graphs")
def test_arrays_of_a_few_bytes(size, tiny_tokenizer):
    function = function_of(tiny_tokenizer, size)
    texts = [text.encode()[:size] for text in ("", "a", " ", "'s", "é", "\u0344", "\U0001d160", "<|endoftext|>", "İ")]
    assert differences(tiny_tokenizer, texts, lambda text: called(function, text)) == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("padding_side", "truncation_side", "max_length"), [("left", "left", 9), ("left", "right", 3), ("right", "left", 2)]
)
def test_padding_and_truncation(tiny_vocabulary, tiny_merges, padding_side, truncation_side, max_length):
    tokenizer = CLIPTokenizer(
        tiny_vocabulary, tiny_merges, padding_side=padding_side, truncation_side=truncation_side, pad_token="!"
    )
    function = function_of(tokenizer, SMALL, max_length)
    texts = [("one two three " * 4)[:length].encode() for length in range(20)]
    assert differences(tokenizer, texts, lambda text: called(function, text), max_length) == 0
    lengths = [len(tokenizer.encode(text.decode())) for text in texts]
    assert [bool(called(function, text)["is_cut"]) for text in texts] == [length > max_length for length in lengths]


def test_a_longer_text_is_cut_at_a_character(tiny_tokenizer, tiny_small):
    text = ("aé日🔥" * 20).encode()
    for shift in range(10):
        data = b"b" * shift + text
        whole = data[:SMALL].decode("utf-8", "ignore").encode()
        assert differences(tiny_tokenizer, [whole], lambda _, data=data: called(tiny_small, data)) == 0
        assert called(tiny_small, data)["is_cut"] and not called(tiny_small, whole)["is_cut"]
    # Invalid bytes are no character, and nothing is missing from them.
    for end in (b"\x80", b"\xff", b"\xed\xa0"):
        data = b"b" * (SMALL - len(end)) + end
        assert differences(tiny_tokenizer, [data], lambda _, data=data: called(tiny_small, data + b"b")) == 0


def test_a_length_below_zero_is_an_empty_text(tiny_tokenizer, tiny_small):
    found = tiny_small(tf.fill([SMALL], tf.constant(ord("x"), tf.uint8)), tf.constant(-3))
    np.testing.assert_array_equal(found["input_ids"], tiny_tokenizer([""], padding="max_length")["input_ids"][0])


@pytest.mark.usefixtures("no_graphs")
def test_a_vocabulary_without_merges():
    tokenizer = CLIPTokenizer(vocabulary_of([]), [])
    function = function_of(tokenizer, SMALL)
    assert differences(tokenizer, [b"", b"a photo", "été 🔥".encode()], lambda text: called(function, text)) == 0


@pytest.mark.usefixtures("no_graphs")
def test_other_special_tokens(tiny_vocabulary, tiny_merges):
    vocabulary = {**tiny_vocabulary, "[A]": len(tiny_vocabulary), "(b)": len(tiny_vocabulary) + 1}
    tokenizer = CLIPTokenizer(vocabulary, tiny_merges, bos_token="[A]", eos_token="(b)", pad_token="(b)")
    function = function_of(tokenizer, SMALL)
    texts = [b"a[A]b(b)[A][A] [a](B) [A", b"<|startoftext|> <|ENDOFTEXT|>!!"]
    assert differences(tokenizer, texts, lambda text: called(function, text)) == 0


@pytest.mark.slow
def test_what_cannot_be_exported(tiny_vocabulary, tiny_merges, tiny_tokenizer):
    with pytest.raises(ValueError, match=r"Received: max_length=1\. Use at least 2"):
        Utf8Tokenizer(tiny_tokenizer, 1)
    for size in (None, 0, 1921):
        with pytest.raises(ValueError, match=rf"fixed size of 1 to 1920 bytes\. Received: {size}"):
            function_of(tiny_tokenizer, size).get_concrete_function()
    tiny = dict(tiny_vocabulary)
    for bos, eos in [("<s>", "<s>>"), ("[a[", "[x]"), ("[é]", "[x]"), ("ab", "bc"), ("[bc]", "bc")]:
        vocabulary = {**tiny, bos: len(tiny), eos: len(tiny) + 1}
        tokenizer = CLIPTokenizer(vocabulary, tiny_merges, bos_token=bos, eos_token=eos, pad_token=eos)
        with pytest.raises(ValueError, match="must be ASCII, and none may overlap"):
            Utf8Tokenizer(tokenizer)
    with pytest.raises(ValueError, match=r"ids below 65534\. Received: an id of 65534"):
        Utf8Tokenizer(CLIPTokenizer({**tiny, "more": 65534}, tiny_merges))
    with pytest.raises(ValueError, match=r"normalized_tokens=\['<\|startoftext\|>'\], which are found in any case"):
        Utf8Tokenizer(CLIPTokenizer(tiny, tiny_merges, normalized_tokens=["<|startoftext|>"]))
    with pytest.raises(ValueError, match="clean='openai', which is Python code"):
        Utf8Tokenizer(CLIPTokenizer(tiny, tiny_merges, clean="openai"))


def test_invalid_utf8_is_replaced_as_python_does():
    edges = [0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC1, 0xC2, 0xDF, 0xE0, 0xE1, 0xED, 0xEE, 0xEF]
    edges += [0xF0, 0xF1, 0xF3, 0xF4, 0xF5, 0xFF]
    sequences = [bytes(sequence) + b"." for sequence in itertools.product(edges, repeat=4)]
    data = b"".join(sequences)
    codes = decoded(tf.constant(np.frombuffer(data, np.uint8).astype(np.int32)), tf.constant(False)).numpy()
    wanted = data.decode("utf-8", "replace")
    assert "".join(map(chr, codes))[: len(wanted)] == wanted
    assert set(codes[len(wanted) :].tolist()) <= {ord(" ")}


def test_what_the_arithmetic_relies_on():
    normalization, lower = unicode_tables.normalization(), unicode_tables.lower_case()
    firsts = {pair[0] for pair in normalization.composition}
    seconds = {pair[1] for pair in normalization.composition}
    assert not [code for code in seconds & firsts if normalization.combining_class[code] == 0]
    assert not [code for code in firsts if normalization.combining_class[code]]
    for code in CODES:
        size = len(chr(code).encode())
        parts = normalization.decomposition.get(code, [code])
        assert len(parts) <= size * 3 // 2
        composed = unicodedata.normalize("NFC", chr(code))
        assert len(composed) <= size
        lowered = "".join(chr(part) for letter in composed for part in lower[ord(letter)] if part >= 0)
        assert max(len(lowered.encode()), len(composed.encode())) <= 3 * size and len(lowered) <= size


@settings(max_examples=50, deadline=None)
@given(st.sets(st.integers(-(2**31), 2**31 - 1), max_size=300))
def test_every_key_is_in_its_slot(numbers):
    keys = np.array(sorted(numbers), np.int32)
    table = PairHash.of(keys)
    slots = (keys ^ table.twists[keys % len(table.twists)]) % len(table.keys)
    np.testing.assert_array_equal(table.keys[slots], keys)
    np.testing.assert_array_equal(table.places[slots], np.arange(len(keys)))
    assert (table.places >= 0).sum() == len(keys)


# In LiteRT, with CLIP's own vocabulary.


@pytest.fixture(scope="module")
def litert_file(real_tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("litert")
    module = tf.Module()
    module.small, module.large = function_of(real_tokenizer, SMALL), function_of(real_tokenizer, LARGE, LONG)
    names = {"small": module.small, "large": module.large}
    tf.saved_model.save(module, folder, signatures=names)
    return tf.lite.TFLiteConverter.from_saved_model(str(folder), signature_keys=list(names)).convert()


@pytest.fixture(scope="module")
def litert(litert_file):
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=litert_file, num_threads=1)
    return {name: interpreter.get_signature_runner(name) for name in ("small", "large")}


@pytest.fixture(scope="module")
def large(litert):
    return lambda text: litert["large"](**arguments(text, LARGE))


@pytest.mark.slow
def test_all_operations_are_built_in_and_the_file_is_small(litert_file):
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(litert_file, 0))
    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
    used = sorted({names[codes[operator.opcodeIndex]] for graph in model.subgraphs for operator in graph.operators})
    print("\n ", *used)
    assert "CUSTOM" not in used and not any(code.customCode for code in model.operatorCodes)
    assert len(litert_file) < 3_000_000


SAMPLE_OR_ALL = pytest.mark.parametrize("all_texts", [False, pytest.param(True, marks=pytest.mark.real_size)])


@pytest.mark.slow
@SAMPLE_OR_ALL
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_text(kind, real_tokenizer, large, all_texts):
    generator = random.Random(1)
    texts = [KINDS[kind](generator) for _ in range(1_250 if all_texts else 100)]
    assert differences(real_tokenizer, texts, large, LONG) == 0


@pytest.mark.slow
@SAMPLE_OR_ALL
def test_every_character(real_tokenizer, large, all_texts):
    generator = random.Random(2)
    pieces = [
        f"{c} a{c}b{generator.choice(MARKS)}{c}{generator.choice(MARKS)}{generator.choice(MARKS)}." for c in ASSIGNED
    ]
    texts = [" ".join(pieces[first : first + 30]).encode() for first in range(0, len(pieces), 30)]
    assert max(map(len, texts)) <= LARGE
    texts = texts if all_texts else generator.sample(texts, 300)
    assert differences(real_tokenizer, texts, large, LONG) == 0


def test_truncation_in_the_small_array(real_tokenizer, litert):
    generator = random.Random(3)
    texts = [KINDS[kind](generator)[:SMALL] for kind in KINDS for _ in range(50)]
    texts += [bytes([generator.choice(b"!?.,1a\xff") for _ in range(SMALL)]) for _ in range(200)]
    encode = litert["small"]
    assert differences(real_tokenizer, texts, lambda text: encode(**arguments(text, SMALL))) == 0
    assert encode(**arguments(b"1" * 64, SMALL))["num_tokens"] == 66
    assert encode(**arguments(b"\xff1" * 32, SMALL))["is_cut"] == (len(real_tokenizer.encode("\ufffd1" * 32)) > 77)


def test_what_hypothesis_finds(real_tokenizer, large):
    found = []

    @settings(max_examples=100, deadline=None, derandomize=True, database=None)
    @given(st.lists(st.text(st.characters(exclude_categories=("Cs",)), max_size=200), min_size=10))
    def collect(texts):
        found.extend(text.encode() for text in texts)

    collect()
    assert differences(real_tokenizer, found, large, LONG) == 0
