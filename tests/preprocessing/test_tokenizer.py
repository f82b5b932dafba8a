"""`CLIPTokenizer` against Hugging Face's, and its own options."""

import json

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from reference_tokenizer import reference_tokenizer, vocabulary_of

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


@settings(max_examples=100, deadline=None, derandomize=True)
@given(texts=st.lists(st.text(KNOWN), min_size=1, max_size=5))
def test_ids_of_any_text_equal_the_reference(real_tokenizer, real_reference, texts):
    assert ids_of(real_tokenizer, texts) == [real_reference.encode(text).ids for text in texts]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(text=st.text("aAbt'<|>sE endofx!1é\u0301", max_size=40))
def test_ids_of_text_near_the_rules_equal_the_reference(real_tokenizer, real_reference, text):
    assert ids_of(real_tokenizer, text) == [real_reference.encode(text).ids]


@settings(max_examples=60, deadline=None, derandomize=True)
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
    pytest.importorskip("tokenizers")
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
