"""Tokenizer files, read and written."""

import json

import pytest
import tokenizers

from helpers.reference_tokenizer import reference_tokenizer
from tf_clip import CLIPTokenizer
from tf_clip.preprocessing.text import vocabulary as module

DEFAULTS = CLIPTokenizer.defaults
DEFAULT_MAX_LENGTH = DEFAULTS["model_max_length"]


class Vocabulary(module.Vocabulary):
    """A vocabulary with CLIP's defaults."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **{**DEFAULTS, **options})

    @classmethod
    def read(cls, folder):
        return super().read(folder, DEFAULTS)

    def write(self, folder):
        super().write(folder, CLIPTokenizer.hugging_face_class, DEFAULTS)


@pytest.fixture
def vocabulary(tiny_vocabulary, tiny_merges):
    return Vocabulary(tiny_vocabulary, tuple(tiny_merges), pad_token="!", model_max_length=12)


@pytest.fixture
def folder(tmp_path, vocabulary):
    vocabulary.write(tmp_path / "new" / "folder")
    return tmp_path / "new" / "folder"


def rewrite(path, change):
    values = json.loads(path.read_text(encoding="utf-8"))
    change(values)
    path.write_text(json.dumps(values), encoding="utf-8")


def with_tokenizer_json(folder, spelling):
    """Replaces a folder's vocab.json and merges.txt by one tokenizer.json, as `tokenizers` writes it."""
    vocabulary = Vocabulary.read(folder)
    values = json.loads(reference_tokenizer(vocabulary.symbols, vocabulary.merges).to_str())
    values["model"]["merges"] = [spelling(*merge) for merge in vocabulary.merges]
    (folder / "tokenizer.json").write_text(json.dumps(values), encoding="utf-8")
    (folder / "vocab.json").unlink()
    (folder / "merges.txt").unlink()


def test_written_files_read_back_equal(folder, vocabulary):
    assert Vocabulary.read(folder) == vocabulary


# Which special tokens are found in normalized text. What is expected was asked of transformers 5.23.

START, END = "<|startoftext|>", "<|endoftext|>"


def described(content, normalized):
    return {"content": content, "lstrip": False, "normalized": normalized, "__type": "AddedToken"}


def listed(start, end):
    return {"510": described(START, start), "511": described(END, end)}


@pytest.mark.parametrize(
    ("config", "names", "tokens", "normalized"),
    [
        ({}, None, None, set()),
        ({"bos_token": START, "eos_token": END}, None, None, set()),
        # The end token has other names, and one without a description says that it is not normalized.
        ({"bos_token": described(START, True), "eos_token": described(END, True)}, None, None, {START}),
        ({"eos_token": described(END, True), "pad_token": described(END, False)}, None, None, set()),
        ({"eos_token": END, "unk_token": described(END, True)}, None, None, {END}),
        ({"eos_token": described(END, False), "pad_token": described(END, True)}, None, None, {END}),
        ({"bos_token": {"content": START}}, None, None, set()),
        # Files of names come after the config.
        ({}, {"bos_token": described(START, True)}, None, {START}),
        ({"bos_token": described(START, True)}, {"bos_token": START}, None, set()),
        ({"bos_token": described(START, False)}, {"bos_token": described(START, True)}, None, {START}),
        # Lists come after names.
        ({"bos_token": described(START, True)}, None, [described(START, False)], set()),
        ({}, None, [described(START, True), described(END, True)], {START, END}),
        ({"bos_token": described(START, True)}, {"bos_token": described(START, True)}, [], {START}),
        # The config's list is the only file then.
        ({"added_tokens_decoder": listed(True, True)}, None, None, {START, END}),
        ({"added_tokens_decoder": listed(True, False)}, None, [described(END, True)], {START}),
        ({"added_tokens_decoder": listed(False, False)}, {"bos_token": described(START, True)}, None, set()),
        ({"added_tokens_decoder": {}}, None, [described(START, True)], set()),
        ({"added_tokens_decoder": {}, "bos_token": described(START, True)}, None, [described(START, False)], {START}),
        # As OpenAI's files on the Hub have it.
        (
            {"bos_token": described(START, True), "eos_token": described(END, True), "pad_token": END},
            {"bos_token": described(START, True), "eos_token": described(END, True), "pad_token": END},
            [described(START, True), described(END, False)],
            {START},
        ),
    ],
)
def test_files_say_which_tokens_are_normalized(folder, config, names, tokens, normalized):
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    if names is not None:
        (folder / "special_tokens_map.json").write_text(json.dumps(names))
    if tokens is None:
        (folder / "tokenizer.json").unlink()
    else:
        rewrite(folder / "tokenizer.json", lambda values: values.update(added_tokens=tokens))
    assert Vocabulary.read(folder).normalized_tokens == normalized


@pytest.mark.parametrize("names", [(START,), (END,), (START, END)])
@pytest.mark.parametrize("lost", ["tokenizer.json", "tokenizer_config.json"])
def test_one_file_is_enough_to_know_which_tokens_are_normalized(tiny_vocabulary, tmp_path, names, lost):
    vocabulary = Vocabulary(tiny_vocabulary, (), normalized_tokens=frozenset(names))
    vocabulary.write(tmp_path)
    (tmp_path / lost).unlink()
    assert Vocabulary.read(tmp_path) == vocabulary


def test_names_of_special_tokens_may_have_a_file_of_their_own(folder):
    (folder / "special_tokens_map.json").write_text('{"pad_token": {"content": "#"}}')
    assert Vocabulary.read(folder).pad_token == "!"
    rewrite(folder / "tokenizer_config.json", lambda values: values.pop("added_tokens_decoder"))
    assert Vocabulary.read(folder).pad_token == "#"


def test_a_normalized_token_that_is_no_special_one_is_refused(tiny_vocabulary):
    with pytest.raises(ValueError, match=r"`normalized_tokens` must be among bos_token and eos_token\. Received: '!'"):
        Vocabulary(tiny_vocabulary, (), normalized_tokens=frozenset("!"))


def test_a_keras_hub_preset_has_them_elsewhere(folder, vocabulary):
    (folder / "assets" / "tokenizer").mkdir(parents=True)
    (folder / "vocab.json").rename(folder / "assets" / "tokenizer" / "vocabulary.json")
    (folder / "merges.txt").rename(folder / "assets" / "tokenizer" / "merges.txt")
    (folder / "tokenizer.json").write_text('{"class_name": "CLIPTokenizer"}')  # a Keras config, of the same name
    assert Vocabulary.read(folder) == vocabulary


@pytest.mark.parametrize("spelling", ["{} {}".format, lambda *pair: list(pair)], ids=["text", "pair"])
def test_tokenizer_json_reads_like_vocab_and_merges(folder, vocabulary, spelling):
    with_tokenizer_json(folder, spelling)
    assert Vocabulary.read(folder) == vocabulary


def test_special_tokens_may_stand_beside_the_model_in_tokenizer_json(folder, vocabulary):
    with_tokenizer_json(folder, "{} {}".format)

    def take_out(values):
        for token in ("<|startoftext|>", "<|endoftext|>"):
            del values["model"]["vocab"][token]

    rewrite(folder / "tokenizer.json", take_out)
    assert Vocabulary.read(folder).symbols == vocabulary.symbols


def test_without_a_config_the_defaults_are_clips(folder):
    (folder / "tokenizer_config.json").unlink()
    read = Vocabulary.read(folder)
    assert (read.pad_token, read.model_max_length) == ("<|endoftext|>", DEFAULT_MAX_LENGTH)


def test_a_special_token_may_be_described_by_an_object(folder):
    rewrite(folder / "tokenizer_config.json", lambda values: values.update(pad_token={"content": "#", "lstrip": False}))
    assert Vocabulary.read(folder).pad_token == "#"


@pytest.mark.parametrize("limit", [None, 1e30, int(1e30)])
def test_no_limit_means_clips_own(folder, limit):
    rewrite(folder / "tokenizer_config.json", lambda values: values.update(model_max_length=limit))
    assert Vocabulary.read(folder).model_max_length == DEFAULT_MAX_LENGTH


def test_windows_line_ends_do_not_enter_symbols(folder, vocabulary):
    text = (folder / "merges.txt").read_bytes()
    (folder / "merges.txt").write_bytes(text.replace(b"\n", b"\r\n"))
    assert Vocabulary.read(folder).merges == vocabulary.merges


def test_the_written_config_names_what_transformers_reads(folder):
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert config["tokenizer_class"] == "CLIPTokenizer"
    assert config["unk_token"] == config["eos_token"] == "<|endoftext|>"


@pytest.mark.parametrize("file_name", ["vocab.json", "merges.txt"])
def test_without_both_of_vocab_and_merges_tokenizer_json_is_read(folder, vocabulary, file_name):
    (folder / file_name).unlink()
    assert Vocabulary.read(folder) == vocabulary


@pytest.mark.parametrize("file_name", ["vocab.json", "merges.txt"])
def test_half_a_tokenizer_is_refused(folder, file_name):
    (folder / file_name).unlink()
    (folder / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"`folder` must hold vocab.json and merges.txt, or tokenizer.json"):
        Vocabulary.read(folder)


@pytest.mark.parametrize("file_name", ["vocab.json", "tokenizer_config.json"])
@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"{", "must be valid JSON"),
        (b"\xff", "must be valid JSON"),
        (b"[1]", r"must hold a JSON object\. Received: list"),
    ],
)
def test_broken_json_is_refused_by_name(folder, file_name, content, problem):
    (folder / file_name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{file_name} {problem}"):
        Vocabulary.read(folder)


@pytest.mark.parametrize("line", ["a", "a b c"])
def test_a_merge_of_other_than_two_symbols_is_refused(folder, line):
    with (folder / "merges.txt").open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    with pytest.raises(ValueError, match=rf"merges.txt must list merges as two symbols each\. Received: '{line}'"):
        Vocabulary.read(folder)


@pytest.mark.parametrize("change", [{"type": "WordPiece"}, {"end_of_word_suffix": None}], ids=["kind", "suffix"])
def test_another_kind_of_tokenizer_json_is_refused(folder, change):
    with_tokenizer_json(folder, "{} {}".format)
    rewrite(folder / "tokenizer.json", lambda values: values["model"].update(change))
    with pytest.raises(ValueError, match=r"tokenizer.json must describe CLIP's byte-pair encoding .*Received: type="):
        Vocabulary.read(folder)


@pytest.mark.parametrize("name", ["bos_token", "eos_token", "pad_token"])
def test_a_special_token_outside_the_vocabulary_is_refused(tiny_vocabulary, name):
    with pytest.raises(
        ValueError, match=rf"`{name}` must be one of the vocabulary's symbols\. Received: {name}='<no>'"
    ):
        Vocabulary(tiny_vocabulary, (), **{name: "<no>"})


@pytest.mark.parametrize("name", ["bos_token", "eos_token", "pad_token"])
@pytest.mark.parametrize("token", ["", " ", "a b", "a\n"])
def test_a_special_token_with_white_space_is_refused(tiny_vocabulary, name, token):
    with pytest.raises(ValueError, match=rf"`{name}` must hold no white space\. Received: {name}="):
        Vocabulary({**tiny_vocabulary, token: len(tiny_vocabulary)}, (), **{name: token})


@pytest.mark.parametrize("name", ["padding_side", "truncation_side"])
def test_a_side_that_is_none_is_refused(tiny_vocabulary, name):
    with pytest.raises(ValueError, match=rf"`{name}` must be one of .*Received: {name}='middle'"):
        Vocabulary(tiny_vocabulary, (), **{name: "middle"})


def test_sides_are_saved_and_read(tiny_vocabulary, tmp_path):
    vocabulary = Vocabulary(tiny_vocabulary, (), padding_side="left", truncation_side="left")
    vocabulary.write(tmp_path)
    assert Vocabulary.read(tmp_path) == vocabulary


def test_sides_that_a_config_leaves_open_are_right(folder):
    rewrite(folder / "tokenizer_config.json", lambda values: values.update(padding_side=None, truncation_side=None))
    read = Vocabulary.read(folder)
    assert (read.padding_side, read.truncation_side) == ("right", "right")


@pytest.mark.parametrize("normalizer", [None, {"type": "NFKC"}, {"type": "Sequence", "normalizers": [{"type": "NFC"}]}])
def test_a_tokenizer_json_that_normalizes_in_another_way_is_refused(folder, normalizer):
    with_tokenizer_json(folder, "{} {}".format)
    rewrite(folder / "tokenizer.json", lambda values: values.update(normalizer=normalizer))
    with pytest.raises(ValueError, match=r"tokenizer.json must normalize as CLIP does: .*Received: \["):
        Vocabulary.read(folder)


def test_the_written_tokenizer_json_says_what_the_reference_writes(folder, vocabulary):
    reference = reference_tokenizer(vocabulary.symbols, vocabulary.merges)
    wanted = json.loads(reference.to_str())
    loaded = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert {**json.loads(loaded.to_str()), "decoder": None} == {**wanted, "decoder": None}


def test_files_with_a_prefix_lie_beside_others(tiny_vocabulary, tiny_merges, tmp_path):
    vocabulary = Vocabulary(tiny_vocabulary, tuple(tiny_merges))
    names = {path.rpartition("/")[2] for prefix in (None, "my") for path in vocabulary.write_symbols(tmp_path, prefix)}
    assert (
        names
        == {path.name for path in tmp_path.iterdir()}
        == {*("vocab.json", "merges.txt", "my-vocab.json", "my-merges.txt")}
    )
