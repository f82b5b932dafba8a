"""`CLIPTokenizer` against Hugging Face's, and its own options."""

import json
import random
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_text
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.reference_tokenizer import reference_tokenizer, vocabulary_of
from tf_clip import CLIPTokenizer

BOS, EOS = 49406, 49407
TEXTS = [
    "",
    " ",
    " \t\n\r\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2000\u2028\u2029\u202f\u205f\u3000 ",
    "a photo of a cat",
    "  Two   DOGS, isn't it?  ",
    "they're we've I'm you'll she'd cat's don't",
    "'s 't 're 've 'm 'll 'd",
    "'sabc !'s '' ''s 'x rock'n'roll",
    "DON'T WON'T THEY'RE",
    "don’t “quoted” …",
    "1900 3.14 ½ ² Ⅷ ٣ १२ 1a2b",
    "e\u0301te\u0301 A\u030a n\u0303 \u1100\u1161\u11a8",
    "\u0301 alone",
    "ﬁ ﬂ ＡＢＣ ｱ",
    "Σίσυφος ΟΔΟΣ Σ ΑΣ ",
    "İstanbul ISPARTA ı I İ",
    "ẞ ß ǅ Ǆ K Å ſ",
    "日本語のテキスト 中文字符 한국어 문장",
    "مرحبا بالعالم שלום नमस्ते สวัสดี",
    "👩‍🚀🔥 👨‍👩‍👧‍👦 🏳️‍🌈 ❤️ 🇩🇪",
    "a\x00b \x00 \x00\x00c",
    "a\u200bb a\u00adb \ufeffa",
    "a\tb\nc\r\nd",
    "<|startoftext|>a cat<|endoftext|>",
    "a <|endoftext|> b <|endoftext|><|endoftext|>",
    "<|ENDOFTEXT|> <|StartOfText|>",
    "<|endoftext|",
    "<||> <|endoftext |>",
    "--------",
    "zzzz",
    "........ !!!!!!!! ?!?!",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "&amp; &lt;b&gt; <b>bold</b>",
    "snake_case CamelCase kebab-case",
    "https://example.org/a?b=c&d=e#f",
    "user@example.org #hashtag $9.99 50% C++ C#",
    "âĢĻ Ġ Ā </w> ğŁĶ¥",
    '\\ \\0 \\1 $0 " ` ~ ^ | / { } [ ] ( )',
    "\U0001f600\U0010fffd\ue000\ufffd",
    "antidisestablishmentarianism pneumonoultramicroscopicsilicovolcanoconiosis",
    "x" * 300,
    "word " * 1000 + "qwertyuiopasdfgh" * 313,
]
# Letters that only a newer Unicode has are unknown to one of the two sides.
KNOWN = st.characters(exclude_categories=("Cs", "Cn", "Co"), max_codepoint=0x1FAFF)


def ids_of(tokenizer, texts):
    return tokenizer(texts, padding=False, truncation=False, return_tensors=None)["input_ids"]


@pytest.mark.parametrize("text", TEXTS, ids=[f"{index}-{text[:12]!a}" for index, text in enumerate(TEXTS)])
def test_ids_equal_the_reference(real_tokenizer, real_reference, text):
    assert ids_of(real_tokenizer, text) == [real_reference.encode(text).ids]


@pytest.mark.parametrize("text", [text for text in TEXTS if text])
def test_ids_of_a_tiny_vocabulary_equal_the_reference(tiny_tokenizer, tiny_reference, text):
    assert ids_of(tiny_tokenizer, text[:500]) == [tiny_reference.encode(text[:500]).ids]


@settings(max_examples=50, deadline=None, derandomize=True)
@given(texts=st.lists(st.text(KNOWN), min_size=1, max_size=5))
def test_ids_of_any_text_equal_the_reference(real_tokenizer, real_reference, texts):
    assert ids_of(real_tokenizer, texts) == [real_reference.encode(text).ids for text in texts]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(text=st.text("aAbt'<|>sE endofx!1é\u0301", max_size=40))
def test_ids_of_text_near_the_rules_equal_the_reference(real_tokenizer, real_reference, text):
    assert ids_of(real_tokenizer, text) == [real_reference.encode(text).ids]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.binary(max_size=12) | st.lists(st.sampled_from([b"a", b"\xe2\x82", b"\xf0\x9f", b"\x80"])).map(b"".join))
def test_invalid_utf8_is_replaced_as_python_replaces_it(tiny_tokenizer, data):
    assert ids_of(tiny_tokenizer, data) == ids_of(tiny_tokenizer, data.decode("utf-8", errors="replace"))


def test_a_lone_surrogate_does_not_crash(tiny_tokenizer):
    assert ids_of(tiny_tokenizer, "a \ud800 b") == ids_of(tiny_tokenizer, "a ? b")


@pytest.mark.parametrize("text", ["a cat", b"a cat", np.str_("a cat"), ["a cat"], ("a cat",), np.array(["a cat"])])
def test_a_string_in_any_wrapping_is_a_batch_of_one(tiny_tokenizer, text):
    assert tiny_tokenizer(text)["input_ids"].shape[0] == 1
    assert ids_of(tiny_tokenizer, text) == ids_of(tiny_tokenizer, tf.constant("a cat"))


def test_the_graph_gives_what_eager_code_gives(tiny_tokenizer):
    eager = tiny_tokenizer(TEXTS)
    traced = tf.function(lambda texts: tiny_tokenizer(texts))(tf.constant(TEXTS))
    assert {name: tensor.numpy().tolist() for name, tensor in traced.items()} == {
        name: tensor.numpy().tolist() for name, tensor in eager.items()
    }


def test_a_dataset_gives_what_eager_code_gives(tiny_tokenizer):
    texts = ["a cat", "the dog isn't here", "", "banana"]
    dataset = tf.data.Dataset.from_tensor_slices(texts).batch(2)
    batches = list(dataset.map(lambda batch: tiny_tokenizer(batch, padding="max_length", max_length=9)["input_ids"]))
    eager = tiny_tokenizer(texts, padding="max_length", max_length=9)["input_ids"]
    np.testing.assert_array_equal(tf.concat(batches, axis=0), eager)


def test_batches_of_other_sizes_do_not_retrace(tiny_vocabulary, tiny_merges):
    tokenizer = CLIPTokenizer(tiny_vocabulary, tiny_merges)
    for count in range(1, 12):
        tokenizer(["a photo " * count] * count, max_length=5 + count, padding=(True, "max_length")[count % 2])
    assert tokenizer._traced_encode.experimental_get_tracing_count() == 1


def test_truncation_keeps_start_and_end(real_tokenizer):
    whole = ids_of(real_tokenizer, "one two three four five")[0]
    cut = real_tokenizer("one two three four five", max_length=5)["input_ids"].numpy().tolist()[0]
    assert cut == [*whole[:4], EOS]


def test_the_limit_is_the_tokenizers_own_unless_given(tiny_vocabulary, tiny_merges):
    tokenizer = CLIPTokenizer(tiny_vocabulary, tiny_merges, model_max_length=8)
    assert tokenizer("x" * 50)["input_ids"].shape == (1, 8)
    assert tokenizer("x" * 50, max_length=4)["input_ids"].shape == (1, 4)
    assert tokenizer("x" * 50, truncation=False)["input_ids"].shape == (1, 52)


@pytest.mark.parametrize("padding", [True, "longest"])
def test_padding_reaches_the_longest_text_and_the_mask_leaves_it_out(real_tokenizer, padding):
    outputs = real_tokenizer(["a cat", "", "a photo of a cat"], padding=padding, return_tensors=None)
    assert [len(row) for row in outputs["input_ids"]] == [7, 7, 7]
    assert outputs["input_ids"][1] == [BOS, EOS, EOS, EOS, EOS, EOS, EOS]
    assert outputs["attention_mask"] == [[1, 1, 1, 1, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0], [1] * 7]


def test_padding_to_max_length(real_tokenizer):
    outputs = real_tokenizer(["a cat", "the dog"], padding="max_length")
    assert outputs["input_ids"].shape == outputs["attention_mask"].shape == (2, 77)
    assert outputs["attention_mask"].numpy().sum(axis=1).tolist() == [4, 4]


def test_a_text_longer_than_max_length_without_truncation_is_neither_cut_nor_padded(tiny_tokenizer):
    outputs = tiny_tokenizer("x" * 20, padding="max_length", truncation=False, max_length=10)
    assert outputs["input_ids"].shape == (1, 22)


@pytest.mark.parametrize("padding", [False, "do_not_pad"])
def test_texts_of_one_length_need_no_padding(tiny_tokenizer, padding):
    assert tiny_tokenizer(["ab", "cd"], padding=padding)["attention_mask"].numpy().all()


def test_padding_with_id_zero_as_openclip_does(tiny_vocabulary, tiny_merges):
    tokenizer = CLIPTokenizer(tiny_vocabulary, tiny_merges, pad_token="!")
    assert tokenizer("a", padding="max_length", max_length=6)["input_ids"].numpy()[0, 3:].tolist() == [0, 0, 0]


@pytest.mark.parametrize(("return_tensors", "kind"), [("tf", tf.Tensor), ("np", np.ndarray), (None, list)])
def test_return_kinds_hold_the_same_ids(tiny_tokenizer, return_tensors, kind):
    outputs = tiny_tokenizer(["a cat", "banana"], return_tensors=return_tensors)
    assert all(isinstance(value, kind) for value in outputs.values())
    np.testing.assert_array_equal(outputs["input_ids"], tiny_tokenizer(["a cat", "banana"])["input_ids"])


def test_tensors_are_int32(tiny_tokenizer):
    assert {tensor.dtype for tensor in tiny_tokenizer("a").values()} == {tf.int32}


def test_no_texts_give_no_rows(tiny_tokenizer):
    assert tiny_tokenizer([])["input_ids"].shape[0] == 0


def test_tokenize_leaves_out_start_and_end(tiny_tokenizer):
    assert tiny_tokenizer.tokenize(["a cat", ""]).to_list() == [ids_of(tiny_tokenizer, "a cat")[0][1:-1], []]


def test_vocab_size_is_beyond_the_highest_id(real_tokenizer):
    assert real_tokenizer.vocab_size == 49408


def test_special_tokens_of_other_names_are_found_in_text():
    vocab = vocabulary_of([])
    vocab["[CLS]"], vocab["a+"] = vocab.pop("<|startoftext|>"), vocab.pop("<|endoftext|>")
    tokenizer = CLIPTokenizer(vocab, [], bos_token="[CLS]", eos_token="a+", pad_token="a+")
    assert tokenizer.tokenize("a+[CLS]c").numpy().tolist() == [vocab["a+"], vocab["[CLS]"], vocab["c</w>"]]


def test_a_special_token_that_begins_with_the_other_is_found_whole():
    vocab = vocabulary_of([])
    vocab["[x"], vocab["[x]"] = vocab.pop("<|startoftext|>"), vocab.pop("<|endoftext|>")
    tokenizer = CLIPTokenizer(vocab, [], bos_token="[x", eos_token="[x]", pad_token="[x]")
    assert tokenizer.tokenize("[x]z").numpy().tolist() == [vocab["[x]"], vocab["z</w>"]]


# Special tokens that a checkpoint calls normalized.

BOTH = ["<|startoftext|>", "<|endoftext|>"]


@pytest.fixture(scope="module", params=[BOTH[:1], BOTH[1:], BOTH], ids=["start", "end", "both"])
def normalized(request, tiny_vocabulary, tiny_merges):
    """A tokenizer with such tokens, and its reference."""
    tokenizer = CLIPTokenizer(tiny_vocabulary, tiny_merges, normalized_tokens=request.param)
    return tokenizer, reference_tokenizer(tiny_vocabulary, tiny_merges, normalized=request.param)


@pytest.mark.parametrize(
    "text",
    [
        *(text for text in TEXTS if "<|" in text),
        "<|STARTOFTEXT|>a<|EndOfText|>!!",
        "a<|StartOfText|>'s <|STARTOFTEXT|><|startoftext|>",
        "<|STARTOFTEX<|endoftext|>T|>",
        "<|STARTOFTEXT|",
        "<|ſTARTOFTEXT|>",  # its lower case is not "s"
        "<|startoftext|>\u0301 <|endoftext|>\u0301",
        "<|startoftext|>\u0338 <|endoftext|>\u0338",  # NFC makes one character of ">" and this
        "\u1100\u1161<|STARTOFTEXT|>\u11a8",
        "<|START\u3000OFTEXT|>",
    ],
)
def test_normalized_special_tokens_are_found_as_the_reference_finds_them(normalized, text):
    tokenizer, reference = normalized
    assert ids_of(tokenizer, text) == [reference.encode(text).ids]


@pytest.mark.slow
@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    text=st.lists(
        st.sampled_from(BOTH).flatmap(
            lambda token: st.lists(st.booleans(), min_size=len(token), max_size=len(token)).map(
                lambda upper: "".join(c.upper() if is_upper else c for c, is_upper in zip(token, upper, strict=True))
            )
        )
        | st.text([*"aT<|>! '\n", "\u0338", "é"], max_size=4),
        max_size=6,
    ).map("".join)
)
def test_special_tokens_in_mixed_case_are_what_the_reference_makes_of_them(normalized, text):
    tokenizer, reference = normalized
    assert ids_of(tokenizer, text) == [reference.encode(text).ids]
    assert tokenizer.tokenize_with_offsets(text)[0].numpy().tolist() == ids_of(tokenizer, text)[0][1:-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("bos", "eos", "pieces"),
    [
        ("ab", "bcd", ["abcd", "ABcd", "aBab", "a", "d "]),
        ("xab", "xa", ["xabx", "XAB", "xA", "b", "x"]),
        ("aba", "ba!", ["AB", "aba", "ba!", "!", " "]),
        ("[CLS]", "[E\u0301]", ["[cls]", "[CLS]", "[E\u0301]", "[É]", "é]", "["]),
        ("İ", "xi", ["İ", "I\u0307", "i", "x", "X"]),
        ("\u0301x", "eE", ["e", "\u0301x", "\u0301X", "E", " "]),
    ],
)
@pytest.mark.parametrize("which", [(), (0,), (0, 1)])
@pytest.mark.usefixtures("no_graphs")
def test_special_tokens_of_any_kind_are_what_the_reference_makes_of_them(bos, eos, pieces, which):
    vocab = vocabulary_of([])
    vocab[bos], vocab[eos] = vocab.pop("<|startoftext|>"), vocab.pop("<|endoftext|>")
    names = [(bos, eos)[index] for index in which]
    tokenizer = CLIPTokenizer(vocab, [], bos_token=bos, eos_token=eos, pad_token=eos, normalized_tokens=names)
    reference, generator = reference_tokenizer(vocab, [], bos, eos, names), random.Random(0)
    texts = ["".join(generator.choices(pieces, k=5)) for _ in range(200)]
    assert ids_of(tokenizer, texts) == [reference.encode(text).ids for text in texts]


def test_offsets_of_normalized_special_tokens_span_what_they_were(tiny_vocabulary, tiny_merges):
    tokenizer = CLIPTokenizer(tiny_vocabulary, tiny_merges, normalized_tokens=BOTH[:1])
    text = "é <|STARTOFTEXT|>a\t<|endoftext|><|StartOfText|>"
    _, starts, ends = tokenizer.tokenize_with_offsets(text)
    spans = [text.encode()[start:end].decode() for start, end in zip(starts.numpy(), ends.numpy(), strict=True)]
    assert spans == ["é", "é", "<|STARTOFTEXT|>", "a", "<|endoftext|>", "<|StartOfText|>"]


def test_a_graph_finds_normalized_special_tokens(normalized):
    tokenizer, _ = normalized
    texts = [text for text in TEXTS if "<|" in text]
    traced = tf.function(lambda texts: tokenizer(texts)["input_ids"])(tf.constant(texts))
    np.testing.assert_array_equal(traced, tokenizer(texts)["input_ids"])


def test_normalized_special_tokens_are_saved(normalized, tmp_path):
    tokenizer, _ = normalized
    tokenizer.save_pretrained(tmp_path)
    loaded = CLIPTokenizer.from_pretrained(tmp_path)
    library = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    texts = ["<|STARTOFTEXT|>", "a<|EndOfText|>", "<|startoftext|><|endoftext|>"]
    assert ids_of(loaded, texts) == ids_of(tokenizer, texts) == [library.encode(text).ids for text in texts]


@pytest.mark.parametrize(
    ("text", "decoded"),
    [
        ("A cat, isn't it?", "a cat , isn 't it ?"),
        ("été 日本語 👩‍🚀", "été 日本語 👩‍🚀"),
        ("", ""),
    ],
)
def test_decoding_gives_the_text_back(real_tokenizer, text, decoded):
    ids = real_tokenizer(text, padding="max_length")["input_ids"][0]
    assert real_tokenizer.decode(ids, skip_special_tokens=True) == decoded


@pytest.mark.parametrize("text", ["a cat", "", "<|endoftext|>a<|startoftext|>", "日本語 isn't"])
def test_decoding_with_special_tokens_equals_the_reference(real_tokenizer, real_reference, text):
    ids = ids_of(real_tokenizer, text)[0]
    # transformers puts the space in after the library has decoded.
    expected = real_reference.decode(ids, skip_special_tokens=False).replace("</w>", " ").strip()
    assert real_tokenizer.decode(ids) == expected


def test_decoding_half_a_letter_gives_the_replacement_character(tiny_tokenizer):
    ids = ids_of(tiny_tokenizer, "é")[0]
    assert tiny_tokenizer.decode(ids[1:2]) == "\ufffd"


def test_batch_decode_decodes_each_row(tiny_tokenizer):
    ids = tiny_tokenizer(["a cat", "banana"])["input_ids"]
    assert tiny_tokenizer.batch_decode(ids, skip_special_tokens=True) == ["a cat", "banana"]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.text("abc xyz", max_size=30))
def test_decoding_words_undoes_encoding(tiny_tokenizer, text):
    ids = ids_of(tiny_tokenizer, text)[0]
    assert tiny_tokenizer.decode(ids, skip_special_tokens=True) == " ".join(text.split())


def test_saved_files_load_to_an_equal_tokenizer(tiny_vocabulary, tiny_merges, tmp_path):
    tokenizer = CLIPTokenizer(tiny_vocabulary, tiny_merges, model_max_length=9, pad_token="!")
    tokenizer.save_pretrained(tmp_path)
    loaded = CLIPTokenizer.from_pretrained(tmp_path)
    assert (loaded.model_max_length, loaded.pad_token_id) == (9, 0)
    assert ids_of(loaded, TEXTS[:20]) == ids_of(tokenizer, TEXTS[:20])


def test_tokenizer_json_loads_to_an_equal_tokenizer(tiny_vocabulary, tiny_merges, tiny_tokenizer, tmp_path):
    (tmp_path / "tokenizer.json").write_text(reference_tokenizer(tiny_vocabulary, tiny_merges).to_str(), "utf-8")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 16}), "utf-8")
    loaded = CLIPTokenizer.from_pretrained(tmp_path)
    assert loaded.model_max_length == 16
    assert ids_of(loaded, TEXTS[:20]) == ids_of(tiny_tokenizer, TEXTS[:20])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"padding": "left"}, r"`padding` must be one of .*padding='left'"),
        ({"truncation": "only_second"}, r"`truncation` must be one of .*truncation='only_second'"),
        ({"max_length": 1}, r"`max_length` must leave room for .*max_length=1"),
        ({"padding_side": "up"}, r"`padding_side` must be one of .*padding_side='up'"),
        ({"return_tensors": "mlx"}, r"`return_tensors` must be one of .*return_tensors='mlx'"),
        ({"padding": False}, r"`padding` must be True or 'max_length'.*padding=False, lengths in tokens \[3, 4\]"),
    ],
)
def test_options_that_are_none_are_refused_by_name(tiny_tokenizer, options, message):
    with pytest.raises(ValueError, match=message):
        tiny_tokenizer(["a", "b b"], **options)


@pytest.mark.parametrize("text", [None, 3, ["a", None], [["a"]], {"a": 1}, tf.constant([1]), tf.constant([["a"]])])
def test_what_is_no_text_is_refused_by_name(tiny_tokenizer, text):
    with pytest.raises(TypeError, match=r"`text` must be a string.* Received: text "):
        tiny_tokenizer(text)


@pytest.mark.parametrize("index", [-1, 10**6])
def test_an_unknown_id_cannot_be_decoded(tiny_tokenizer, index):
    with pytest.raises(ValueError, match=rf"`ids` must be ids of the vocabulary\. Received: {index}"):
        tiny_tokenizer.decode([index])


# Hugging Face's surface.


def test_encode_neither_pads_nor_cuts(tiny_tokenizer):
    assert tiny_tokenizer.encode("x" * 100) == ids_of(tiny_tokenizer, "x" * 100)[0]
    assert len(tiny_tokenizer.encode("x" * 100, truncation=True)) == 77
    assert len(tiny_tokenizer.encode("a", padding="max_length", max_length=9)) == 9


def test_encode_without_special_tokens_is_tokenize(tiny_tokenizer):
    ids = tiny_tokenizer.encode("a cat", add_special_tokens=False)
    assert ids == tiny_tokenizer.tokenize("a cat").numpy().tolist()


@pytest.mark.parametrize("text", [["a cat"], None, 3, tf.constant("a")])
def test_encode_takes_one_string(tiny_tokenizer, text):
    with pytest.raises(TypeError, match=r"`text` must be one string.*call batch_encode"):
        tiny_tokenizer.encode(text)


def test_batch_encode_gives_a_row_for_each_text(tiny_tokenizer):
    outputs = tiny_tokenizer.batch_encode(["a cat", "", "x" * 100])
    assert outputs["input_ids"] == [tiny_tokenizer.encode(text) for text in ("a cat", "", "x" * 100)]
    assert outputs["attention_mask"] == [[1] * len(row) for row in outputs["input_ids"]]


def test_batch_encode_takes_the_options_of_a_call(tiny_tokenizer):
    options = {"padding": True, "truncation": True, "max_length": 6, "return_tensors": "np", "padding_side": "left"}
    outputs, called = tiny_tokenizer.batch_encode(TEXTS, **options), tiny_tokenizer(TEXTS, **options)
    np.testing.assert_array_equal(outputs["input_ids"], called["input_ids"])


def test_symbols_and_ids_are_looked_up_both_ways(real_tokenizer):
    assert real_tokenizer.convert_tokens_to_ids(["cat</w>", "<|endoftext|>"]) == [2368, EOS]
    assert real_tokenizer.convert_tokens_to_ids("cat</w>") == 2368
    assert real_tokenizer.convert_ids_to_tokens([2368, BOS]) == ["cat</w>", "<|startoftext|>"]
    assert real_tokenizer.convert_ids_to_tokens(2368) == "cat</w>"
    assert real_tokenizer.convert_ids_to_tokens(tf.constant([2368])) == ["cat</w>"]
    assert real_tokenizer.convert_ids_to_tokens([]) == []


def test_an_unknown_symbol_is_the_end_token(tiny_tokenizer):
    assert tiny_tokenizer.convert_tokens_to_ids(["no such symbol"]) == [tiny_tokenizer.eos_token_id]


@pytest.mark.parametrize("ids", [-1, [0, 10**6]])
def test_an_unknown_id_has_no_symbol(tiny_tokenizer, ids):
    with pytest.raises(ValueError, match=r"`ids` must be ids of the vocabulary\. Received: (-1|1000000)"):
        tiny_tokenizer.convert_ids_to_tokens(ids)


def test_special_tokens_go_around_ids(real_tokenizer):
    assert real_tokenizer.build_inputs_with_special_tokens([5, 6]) == [BOS, 5, 6, EOS]
    assert real_tokenizer.build_inputs_with_special_tokens([5], [6]) == [BOS, 5, EOS, EOS, 6, EOS]
    ids = real_tokenizer.encode("a cat", add_special_tokens=False)
    assert real_tokenizer.build_inputs_with_special_tokens(ids) == real_tokenizer.encode("a cat")


@pytest.mark.parametrize("second", [None, [], [7, 8]])
def test_masks_and_types_are_as_long_as_the_ids(real_tokenizer, second):
    ids = real_tokenizer.build_inputs_with_special_tokens([5, 6], second)
    mask = real_tokenizer.get_special_tokens_mask([5, 6], second)
    assert mask == [int(index in (BOS, EOS)) for index in ids]
    assert mask == real_tokenizer.get_special_tokens_mask(ids, already_has_special_tokens=True)
    assert real_tokenizer.create_token_type_ids_from_sequences([5, 6], second) == [0] * len(ids)


def test_two_texts_with_special_tokens_in_them_are_refused(tiny_tokenizer):
    with pytest.raises(ValueError, match="`token_ids_1` must be None when `already_has_special_tokens`"):
        tiny_tokenizer.get_special_tokens_mask([1], [2], already_has_special_tokens=True)


def test_the_vocabulary_is_saved_alone(tiny_tokenizer, tiny_vocabulary, tmp_path):
    paths = tiny_tokenizer.save_vocabulary(tmp_path / "new", "first")
    assert [path.name for path in sorted((tmp_path / "new").iterdir())] == ["first-merges.txt", "first-vocab.json"]
    assert json.loads(Path(paths[0]).read_text("utf-8")) == tiny_vocabulary
    assert tiny_tokenizer.save_vocabulary(tmp_path)[1] == str(tmp_path / "merges.txt")


def test_the_saved_tokenizer_json_alone_is_enough(tiny_tokenizer, tmp_path):
    tiny_tokenizer.save_pretrained(tmp_path)
    (tmp_path / "vocab.json").unlink()
    (tmp_path / "merges.txt").unlink()
    assert ids_of(CLIPTokenizer.from_pretrained(tmp_path), TEXTS[:20]) == ids_of(tiny_tokenizer, TEXTS[:20])


def test_the_saved_tokenizer_json_is_one_of_the_tokenizers_library(tiny_tokenizer, tmp_path):
    tiny_tokenizer.save_pretrained(tmp_path)
    loaded = tokenizers.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert [one.ids for one in loaded.encode_batch(TEXTS[:40])] == ids_of(tiny_tokenizer, TEXTS[:40])


# Padding, truncation and what comes back.


@pytest.fixture(scope="module")
def left_tokenizer(tiny_vocabulary, tiny_merges):
    return CLIPTokenizer(tiny_vocabulary, tiny_merges, padding_side="left", truncation_side="left", pad_token="!")


def test_padding_on_the_left(tiny_tokenizer, left_tokenizer):
    outputs = left_tokenizer(["a", "b c"], return_tensors=None)
    whole = ids_of(tiny_tokenizer, ["a", "b c"])
    assert outputs["input_ids"] == [[0, *whole[0]], whole[1]]
    assert outputs["attention_mask"] == [[0, 1, 1, 1], [1, 1, 1, 1]]


def test_a_call_may_pad_on_the_other_side(left_tokenizer):
    outputs = left_tokenizer(["a", "b c"], padding_side="right", return_tensors=None)
    assert outputs["attention_mask"] == [[1, 1, 1, 0], [1, 1, 1, 1]]


def test_truncation_on_the_left_keeps_the_last_words(left_tokenizer):
    whole = ids_of(left_tokenizer, "one two three")[0]
    cut = left_tokenizer("one two three", max_length=5, return_tensors=None)["input_ids"][0]
    assert cut == [whole[0], *whole[-4:]]


@pytest.mark.parametrize("truncation", [True, "longest_first", "only_first"])
def test_names_of_truncation_for_one_text_mean_the_same(tiny_tokenizer, truncation):
    assert tiny_tokenizer("x" * 50, truncation=truncation, max_length=7)["input_ids"].shape == (1, 7)


@pytest.mark.parametrize("truncation", [False, "do_not_truncate"])
def test_names_of_no_truncation_mean_the_same(tiny_tokenizer, truncation):
    assert tiny_tokenizer("x" * 50, truncation=truncation, max_length=7)["input_ids"].shape == (1, 52)


def test_without_special_tokens_the_limit_is_for_the_text_alone(tiny_tokenizer):
    outputs = tiny_tokenizer(["x" * 50, "a"], max_length=7, add_special_tokens=False, return_tensors=None)
    x, last = tiny_tokenizer.tokenize("xx").numpy().tolist()
    end = tiny_tokenizer.eos_token_id
    assert outputs["input_ids"] == [[x] * 7, [*tiny_tokenizer.tokenize("a").numpy().tolist(), *[end] * 6]]
    assert last not in outputs["input_ids"][0]


@pytest.mark.parametrize(("return_tensors", "module"), [("jax", "jax"), ("pt", "torch")])
def test_arrays_of_other_frameworks(tiny_tokenizer, return_tensors, module):
    pytest.importorskip(module)
    outputs = tiny_tokenizer(["a cat", "banana"], return_tensors=return_tensors)
    assert all(type(array).__module__.startswith(module) for array in outputs.values())
    np.testing.assert_array_equal(np.asarray(outputs["input_ids"]), tiny_tokenizer(["a cat", "banana"])["input_ids"])


def test_a_framework_that_is_not_installed_is_named(tiny_tokenizer, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    message = r"Received: return_tensors='pt', but torch cannot be imported .*Run `pip install torch`"
    with pytest.raises(ImportError, match=message):
        tiny_tokenizer("a", return_tensors="pt")


def test_texts_of_several_lengths_without_padding_fail_when_a_graph_runs(tiny_tokenizer):
    run = tf.function(lambda texts: tiny_tokenizer(texts, padding=False)["input_ids"])
    assert run(tf.constant(["a", "b"])).shape == (2, 3)
    with pytest.raises(
        tf.errors.InvalidArgumentError, match="`padding` must be True or .* for texts of several lengths"
    ):
        run(tf.constant(["a", "b c"]))


# tensorflow_text's interface.


def test_it_is_a_tokenizer_of_tensorflow_text(tiny_tokenizer):
    assert isinstance(tiny_tokenizer, (tensorflow_text.TokenizerWithOffsets, tensorflow_text.Tokenizer))
    assert isinstance(tiny_tokenizer, tensorflow_text.Detokenizer)


def test_one_string_gives_one_row_and_each_rank_one_more(tiny_tokenizer):
    a, bc = (tiny_tokenizer.encode(text, add_special_tokens=False) for text in ("a", "b c"))
    assert tiny_tokenizer.tokenize("a").numpy().tolist() == a
    assert tiny_tokenizer.tokenize(["a", "b c"]).to_list() == [a, bc]
    assert tiny_tokenizer.tokenize([["a", "b c"], ["", "a"]]).to_list() == [[a, bc], [[], a]]
    assert tiny_tokenizer.tokenize(tf.ragged.constant([["a", "b c"], [], ["a"]])).to_list() == [[a, bc], [], [a]]
    assert tiny_tokenizer.tokenize(tf.ragged.constant([[["a"], []], []], dtype=tf.string)).to_list() == [[[a], []], []]


def test_split_and_split_with_offsets_are_other_names(tiny_tokenizer):
    assert tiny_tokenizer.split(["a cat"]).to_list() == tiny_tokenizer.tokenize(["a cat"]).to_list()
    found, wanted = (
        [part.to_list() for part in method(["a cat"])]
        for method in (tiny_tokenizer.split_with_offsets, tiny_tokenizer.tokenize_with_offsets)
    )
    assert found == wanted


def test_no_strings_give_no_rows(tiny_tokenizer):
    empty = tf.constant([], tf.string)
    assert tiny_tokenizer.tokenize(empty).to_list() == []
    assert [part.to_list() for part in tiny_tokenizer.tokenize_with_offsets(empty)] == [[], [], []]


def test_strings_of_unknown_rank_are_refused(tiny_tokenizer):
    run = tf.function(tiny_tokenizer.tokenize, input_signature=[tf.TensorSpec(None, tf.string)])
    with pytest.raises(ValueError, match="`input` must have a known rank"):
        run.get_concrete_function()


def pieces_of(tokenizer, text):
    """Returns the bytes of a text that each token comes from."""
    text = text if isinstance(text, bytes) else text.encode()
    _, starts, ends = tokenizer.tokenize_with_offsets(text)
    return [text[start:end] for start, end in zip(starts.numpy(), ends.numpy(), strict=True)]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        (" A  Photo,\tof\n", ["A", "Photo", ",", "of"]),
        ("it's 19", ["it", "'s", "1", "9"]),
        ("café", ["café"]),
        ("cafe\u0301!", ["cafe\u0301", "!"]),
        ("a<|endoftext|>\r\n<|startoftext|>b", ["a", "<|endoftext|>", "<|startoftext|>", "b"]),
        ("\n\n<|endoftext|> é<|endoftext|>c", ["<|endoftext|>", "é", "<|endoftext|>", "c"]),
        ("İX", ["İ", "İ", "X"]),  # two letters of one, and the mark is no letter
        ("\u1100\u1161\u11a8x", ["\u1100\u1161\u11a8"] * 2 + ["x"]),
    ],
)
def test_offsets_are_where_tokens_come_from(real_tokenizer, text, pieces):
    assert pieces_of(real_tokenizer, text) == [piece.encode() for piece in pieces]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        (b"a\xff\xfeb", [b"a", b"\xff", b"\xfe", b"b"]),
        (b"\xf0\x9f\x98 x<|endoftext|>\xff", [b"\xf0\x9f\x98", b"x", b"<|endoftext|>", b"\xff"]),
        (b"a \xe2\x82", [b"a", b"\xe2\x82"]),
    ],
)
def test_offsets_of_invalid_utf8_are_those_of_its_bytes(real_tokenizer, text, pieces):
    assert pieces_of(real_tokenizer, text) == pieces


@pytest.mark.slow
@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.lists(st.lists(st.sampled_from([*"aE's !1<é👩가\u0301\t\n", "<|endoftext|>", "photo", " "])).map("".join)))
def test_offsets_rise_and_their_bytes_give_the_tokens(tiny_tokenizer, texts):
    texts = tf.constant(texts, tf.string, shape=[len(texts)])
    ids, starts, ends = tiny_tokenizer.tokenize_with_offsets(texts)
    assert ids.to_list() == tiny_tokenizer.tokenize(texts).to_list()
    for text, row, firsts, lasts in zip(texts.numpy(), *(part.to_list() for part in (ids, starts, ends)), strict=True):
        assert firsts == sorted(firsts) and lasts == sorted(lasts)
        assert all(0 <= start < end <= len(text) for start, end in zip(firsts, lasts, strict=True))
        # What no token comes from is white space.
        covered = {place for start, end in zip(firsts, lasts, strict=True) for place in range(start, end)}
        assert {place for place in range(len(text)) if text[place] not in b" \t\n"} <= covered
        assert all(start in lasts or start == 0 or text[start - 1] in b" \t\n" for start in firsts if row)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.data())
def test_detokenize_is_decode_without_special_tokens(real_tokenizer, data):
    ids = st.lists(st.integers(0, 511) | st.integers(0, EOS), max_size=8)
    rows = data.draw(st.lists(ids, min_size=1))
    found = real_tokenizer.detokenize(tf.ragged.constant(rows, tf.int32, ragged_rank=1))
    assert [text.decode() for text in found.numpy()] == real_tokenizer.batch_decode(rows, skip_special_tokens=True)


@pytest.mark.parametrize("space", ["\x1c", "\x1f"])
def test_detokenize_strips_what_python_strips(real_tokenizer, space):
    ids = real_tokenizer.tokenize(f"{space} a {space}")
    assert real_tokenizer.detokenize(ids).numpy().decode() == real_tokenizer.decode(ids) == "a"


def test_detokenize_takes_one_dimension_away(tiny_tokenizer):
    texts = tf.ragged.constant([["a cat", "banana"], [], ["the"]])
    assert tiny_tokenizer.detokenize(tiny_tokenizer.tokenize(texts)).to_list() == texts.to_list()
    assert tiny_tokenizer.detokenize(tiny_tokenizer.tokenize("a cat")).numpy() == b"a cat"
    assert tiny_tokenizer.detokenize(tiny_tokenizer(["a cat", "the"])["input_ids"]).numpy().tolist() == [
        b"a cat",
        b"the",
    ]
    assert tiny_tokenizer.detokenize([[], [0]]).numpy().tolist() == [b"", b"!"]


@pytest.mark.parametrize("index", [-1, 10**6])
def test_detokenize_refuses_an_unknown_id(tiny_tokenizer, index):
    with pytest.raises(tf.errors.InvalidArgumentError, match="is not in"):
        tiny_tokenizer.detokenize([index])


# Cleaning as OpenAI's code does.


def test_cleaning_repairs_encodings_and_html(tiny_vocabulary, tiny_merges, tiny_tokenizer):
    cleaning = CLIPTokenizer(tiny_vocabulary, tiny_merges, clean="openai")
    texts = ["&amp;amp; cafÃ© &lt;b&gt;", b"don\xe2\x80\x99t", "plain"]
    assert ids_of(cleaning, texts) == ids_of(tiny_tokenizer, ["& café <b>", "don't", "plain"])
    with pytest.raises(TypeError, match="`text` must be Python strings for a tokenizer with clean='openai'"):
        cleaning(tf.constant(["a"]))


def test_cleaning_without_ftfy_names_it(tiny_vocabulary, tiny_merges, monkeypatch):
    monkeypatch.setitem(sys.modules, "ftfy", None)
    with pytest.raises(ImportError, match=r"clean='openai' needs ftfy\. Install it"):
        CLIPTokenizer(tiny_vocabulary, tiny_merges, clean="openai")


def test_another_way_of_cleaning_is_refused(tiny_vocabulary, tiny_merges):
    with pytest.raises(ValueError, match=r"`clean` must be None or 'openai'\. Received: clean='canonicalize'"):
        CLIPTokenizer(tiny_vocabulary, tiny_merges, clean="canonicalize")


# What vocabularies and texts may bring.


def test_an_entry_that_merges_never_make_is_no_token():
    vocab = vocabulary_of([("c", "a")])
    vocab |= {"cat</w>": len(vocab), "é</w>": len(vocab) + 1, "CAT</w>": len(vocab) + 2, "a b</w>": len(vocab) + 3}
    tokenizer = CLIPTokenizer(vocab, [("c", "a")])
    assert tokenizer.tokenize("cat CAT").numpy().tolist() == [vocab[symbol] for symbol in ("ca", "t</w>")] * 2


def test_a_word_in_the_vocabulary_in_nfd_does_not_come_out():
    merges = [("Ì", "ģ</w>"), ("e", "Ìģ</w>")]  # the two bytes of U+0301, and "e" before them
    tokenizer = CLIPTokenizer(vocabulary_of(merges), merges)
    assert tokenizer.tokenize("e\u0301").numpy().tolist() == tokenizer.tokenize("é").numpy().tolist()


HOSTILE = {
    "one word of random letters": lambda count: bytes(random.Random(0).choices(range(97, 123), k=count)),
    "one letter": lambda count: b"x" * count,
    "zeros": lambda count: b"\0" * count,
    "one mark": lambda count: ("e" + "\u0301" * (count // 2)).encode(),
    "marks out of order": lambda count: ("e" + "\u0315\u0323" * (count // 4)).encode(),
    "jamo": lambda count: ("\u1100\u1161\u11a8" * (count // 9)).encode(),
    "invalid UTF-8": lambda count: b"\xff\xe2\x82" * (count // 3),
    "white space": lambda count: b" \n" * (count // 2),
    "contractions": lambda count: b"'s" * (count // 2),
    "brackets": lambda count: b"<|" * (count // 2),
    "special tokens": lambda count: b"<|endoftext|>" * (count // 13),
    "special tokens in capitals": lambda count: b"<|ENDOFTEXT|>" * (count // 13),
    "digits": lambda count: b"1" * count,
}


@pytest.fixture(scope="module")
def normalizing_tokenizer(real_vocabulary, real_merges):
    return CLIPTokenizer(real_vocabulary, real_merges, normalized_tokens=BOTH)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tokenizer", "kind"),
    [
        *(("real_tokenizer", kind) for kind in HOSTILE),
        *(("normalizing_tokenizer", kind) for kind in ("brackets", "special tokens in capitals")),
    ],
)
@pytest.mark.parametrize("method", ["tokenize", "tokenize_with_offsets"])
def test_time_is_linear_in_the_text(request, tokenizer, kind, method):
    tokenizer = request.getfixturevalue(tokenizer)

    def seconds(count, times):
        text, found = tf.constant(HOSTILE[kind](count)), []
        for _ in range(times):
            start = time.perf_counter()
            getattr(tokenizer, method)(text)
            found.append(time.perf_counter() - start)
        return min(found)

    # Quadratic time would be a hundred times as long.
    assert seconds(1_000_000, 1) < 35 * max(seconds(100_000, 3), 0.01)
