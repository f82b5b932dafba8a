"""CSV, TSV, JSONL and Parquet: what is read, and what a broken row costs."""

import base64
import json

import pyarrow
import pyarrow.parquet
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.pair_files import all_pairs, faults, image, write_csv, write_images
from tf_clip import read_pairs
from tf_clip.data import text_tables
from tf_clip.data.skipped import ExampleError

IMAGES = [image(index) for index in range(3)]
CAPTIONS = ['a "red" apple, ripe', "zwei\nZeilen", "ein Ö"]
EXPECTED = [(image, [caption]) for image, caption in zip(IMAGES, CAPTIONS, strict=True)]


@pytest.fixture
def folder(tmp_path):
    write_images(tmp_path, 3)
    return tmp_path


def write_table(path):
    rows = [(f"{index}.png", caption) for index, caption in enumerate(CAPTIONS)]
    kind = path.suffix[1:]
    if kind in ("csv", "tsv"):
        return write_csv(path, rows, delimiter="\t" if kind == "tsv" else ",")
    values = [{"image": image, "caption": caption} for image, caption in rows]
    if kind == "jsonl":
        path.write_text("\n".join(map(json.dumps, values)), encoding="utf-8")
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(values), path)
    return path


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_each_kind_of_table_gives_the_same_pairs(folder, kind):
    path = write_table(folder / f"pairs.{kind}")
    pairs = read_pairs(path)
    assert all_pairs(pairs) == EXPECTED
    assert list(pairs.skipped) == [] and pairs.groups is None
    renamed = path.rename(folder / "pairs.data")
    assert all_pairs(read_pairs(renamed, format=kind)) == EXPECTED


def test_any_file_system_of_tensorflow_will_do():
    for index, data in enumerate(IMAGES):
        tf.io.gfile.makedirs("ram://shop/images")
        with tf.io.gfile.GFile(f"ram://shop/images/{index}.png", "wb") as file:
            file.write(data)
    with tf.io.gfile.GFile("ram://shop/pairs.csv", "w") as file:
        file.write("image,caption\nimages/0.png,one\nram://shop/images/1.png,two\nimages/9.png,none\n")
    pairs = read_pairs("ram://shop/*.csv")
    assert (pairs.read(0), pairs.read(1)) == ((IMAGES[0], ["one"]), (IMAGES[1], ["two"]))
    with pytest.raises(ExampleError, match="does not exist"):
        pairs.read(2)


def test_an_image_may_have_several_captions(folder):
    several = write_csv(folder / "a.csv", [("0.png", "one", "", "two")], ("image", "caption", "caption", "title"))
    assert all_pairs(read_pairs(several))[0][1] == ["one"]
    assert all_pairs(read_pairs(several, caption_column=["title", "caption"]))[0][1] == ["two", "one"]
    path = folder / "b.jsonl"
    path.write_text('{"image": "0.png", "caption": ["one", "", "two"]}\n{"image": "1.png", "caption": [null]}\n')
    pairs = read_pairs(path)
    assert all_pairs(pairs)[0][1] == ["one", "two"]
    assert faults(pairs.skipped) == [("b.jsonl:2", "the caption is empty")]


def test_rows_of_one_image_or_one_group_belong_together(folder):
    rows = [("0.png", "one", "x"), ("1.png", "two", "y"), ("0.png", "three", "z"), ("2.png", "four", "y")]
    path = write_csv(folder / "pairs.csv", rows, ("image", "caption", "product"))
    assert read_pairs(path).groups.tolist() == [0, 1, 0, 2]
    assert read_pairs(path, group_column="product").groups.tolist() == [0, 1, 2, 1]


def test_images_may_be_inside_a_table(folder):
    uri = "data:image/png;base64," + base64.b64encode(IMAGES[0]).decode()
    pairs = read_pairs(write_csv(folder / "a.csv", [(uri, "one"), ("data:image/png,x", "two")]))
    assert pairs.read(0).image == IMAGES[0]
    with pytest.raises(ExampleError, match="not base64"):
        pairs.read(1)


@pytest.mark.parametrize("kind", ["bytes", "hugging face"])
def test_images_may_be_bytes_in_parquet(tmp_path, kind):
    images = [*IMAGES, None, b""]
    captions = [*CAPTIONS, "none", "nothing"]
    column = images if kind == "bytes" else [{"bytes": image, "path": "x.png"} for image in images]
    table = pyarrow.table({"image": column, "caption": captions, "other": range(5)})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet", row_group_size=2)
    pairs = read_pairs([tmp_path / "a.parquet"] * 2)
    assert [pairs.read(row) for row in (0, 1, 2, 7)] == [*EXPECTED, EXPECTED[2]]
    for row in (3, 4):
        with pytest.raises(ExampleError, match="the image is empty"):
            pairs.read(row)
    assert pairs.where(8).endswith("a.parquet:3")


def test_row_groups_are_shuffled_as_wholes(tmp_path):
    import numpy as np

    table = pyarrow.table({"image": [b"x"] * 60, "caption": [str(row) for row in range(60)]})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet", row_group_size=5)
    order = read_pairs(tmp_path / "a.parquet").shuffled(np.random.default_rng(0))
    assert sorted(order) == list(range(60)) and list(order[:20]) != sorted(order[:20])
    groups = [{int(row) // 5 for row in order[first : first + 20]} for first in (0, 20, 40)]
    assert [len(group) for group in groups] == [4, 4, 4]


BROKEN_LINES = {
    "bad UTF-8": (b"0.png,caf\xe9\n", "the caption is not valid UTF-8"),
    "bad UTF-8 in the path": (b"\xff.png,coffee\n", "the image's path is not valid UTF-8"),
    "too many columns": (b"0.png,a,b\n", "3 columns where the first line has 2"),
    "too few columns": (b"0.png\n", "1 columns where the first line has 2"),
    "no caption": (b"0.png,\n", "the caption is empty"),
    "a caption of spaces": (b"0.png,   \n", "the caption is empty"),
    "no image": (b",nothing\n", "the image is empty"),
    "an open quotation mark": (b'0.png,"open\n', "unexpected end of data"),
    "a field of 10 MB": (b"0.png," + b"x" * 10_000_000 + b"\n", "the row is too long"),
}


@pytest.mark.parametrize("name", BROKEN_LINES)
def test_a_broken_line_costs_its_own_row(folder, name):
    line, why = BROKEN_LINES[name]
    path = folder / "pairs.csv"
    path.write_bytes(b"\xef\xbb\xbfimage,caption\r\n0.png,one\r\n" + line + b"\n1.png,two\n2.png,three\n")
    pairs = read_pairs(path)
    assert [captions for _, captions in all_pairs(pairs)] == [["one"], ["two"], ["three"]]
    ((where, reason),) = faults(pairs.skipped)
    assert where == "pairs.csv:3" and reason.startswith(why)


def test_an_open_quotation_mark_does_not_take_the_next_one_with_it(folder):
    path = folder / "pairs.csv"
    path.write_text('image,caption\n0.png,"open\n1.png,two\n2.png,"three, closed"\n')
    pairs = read_pairs(path)
    assert [captions for _, captions in all_pairs(pairs)] == [["two"], ["three, closed"]]
    assert [where for where, _ in faults(pairs.skipped)] == ["pairs.csv:2"]


BROKEN_OBJECTS = {
    "not JSON": (b"{", "the line is not JSON"),
    "deep": (b"[" * 100_000, "the line is not JSON"),
    "no object": (b"[1]", "the line is not a JSON object"),
    "bad UTF-8": (b'{"image": "\xff"}', "the line is not valid UTF-8"),
    "a number": (b'{"image": "0.png", "caption": 3}', "the caption is not text but int"),
    "half a letter": (b'{"image": "0.png", "caption": "\\ud800"}', "the caption is not valid UTF-8"),
    "no caption": (b'{"image": "0.png"}', "there is no 'caption'"),
    "no path": (b'{"image": [], "caption": "x"}', "the image is not a path"),
    "long": (b" " * (text_tables.MAX_LINE_BYTES + 1), "the line has more than"),
}


@pytest.mark.parametrize("name", BROKEN_OBJECTS)
def test_a_broken_object_costs_its_own_row(folder, name):
    line, why = BROKEN_OBJECTS[name]
    path = folder / "pairs.jsonl"
    path.write_bytes(b'{"image": "0.png", "caption": "one"}\n' + line + b'\n{"image": "1.png", "caption": "two"}')
    pairs = read_pairs(path)
    assert [captions for _, captions in all_pairs(pairs)] == [["one"], ["two"]]
    ((where, reason),) = faults(pairs.skipped)
    assert where == "pairs.jsonl:2" and reason.startswith(why)


TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(str.strip)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(captions=st.lists(TEXTS, min_size=1, max_size=6), kind=st.sampled_from(["csv", "tsv", "jsonl"]))
def test_every_text_comes_back(tmp_path_factory, captions, kind):
    path = tmp_path_factory.mktemp("pairs") / f"pairs.{kind}"
    rows = [("0.png", caption) for caption in captions]
    if kind == "jsonl":
        lines = [json.dumps({"image": image, "caption": text}, ensure_ascii=False) for image, text in rows]
        path.write_bytes("\n".join(lines).encode())
    else:
        write_csv(path, rows, delimiter="\t" if kind == "tsv" else ",")
    pairs = read_pairs(path)
    assert list(pairs.skipped) == []
    assert [list(row) for row in pairs._captions] == [[caption] for caption in captions]


PIECES = [b'"', b",", b"\n", b"\r", b"\0", b"\xff", b"a", b"0.png", b"{", b'{"image":']
HOSTILE = st.one_of(
    st.binary(max_size=300),
    st.lists(
        st.sampled_from([b'"', b",", b"\n", b"\r", b"\0", b"\xff", b"a", b"0.png", b"{", b'{"image":']), max_size=80
    ).map(b"".join),
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(data=HOSTILE, kind=st.sampled_from(["csv", "tsv", "jsonl"]), has_header=st.booleans())
def test_hostile_text_is_refused_or_left_out(tmp_path_factory, data, kind, has_header):
    path = tmp_path_factory.getbasetemp() / f"hostile.{kind}"
    header = {"csv": b"image,caption\n", "tsv": b"image\tcaption\n", "jsonl": b'{"image": "a", "caption": "b"}\n'}
    path.write_bytes((header[kind] if has_header else b"") + data)
    try:
        pairs = read_pairs(path)
    except ValueError as error:
        assert "`source` must" in str(error)
    else:
        assert len(pairs) and all(caption.strip().encode() for row in pairs._captions for caption in row)


def test_a_line_is_read_again_only_so_often(tmp_path, monkeypatch):
    """Each line opens a quotation mark that the next one closes and opens again."""
    path, lines, given = tmp_path / "pairs.csv", 1_000, []
    path.write_bytes(b"image,caption\n0.png,x\n" + b'b","y\n' * lines)
    following = text_tables._CSVLines.__next__
    monkeypatch.setattr(text_tables._CSVLines, "__next__", lambda self: given.append(0) or following(self))
    assert len(read_pairs(path).skipped) == lines
    assert len(given) < (lines + 3) * (text_tables.MAX_LINES_OF_A_ROW + 1)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(place=st.floats(0, 1), value=st.integers(0, 255), is_cut=st.booleans(), has_bytes=st.booleans())
def test_hostile_parquet_is_refused_or_left_out(tmp_path_factory, place, value, is_cut, has_bytes):
    path = tmp_path_factory.getbasetemp() / "hostile.parquet"
    images = IMAGES if has_bytes else ["0.png", "1.png", "2.png"]
    pyarrow.parquet.write_table(pyarrow.table({"image": images, "caption": CAPTIONS}), path)
    data = bytearray(path.read_bytes())
    at = int(place * (len(data) - 1))
    data[at] = value
    path.write_bytes(data[:at] if is_cut else data)
    try:
        pairs = read_pairs(path)
        for row in range(len(pairs)):
            pairs.read(row)
    except (ValueError, ExampleError) as error:
        assert isinstance(error, ExampleError) or "`source` must" in str(error)


def test_a_caption_column_is_needed(folder):
    with pytest.raises(ValueError, match="`caption_column` must name a column"):
        read_pairs(write_csv(folder / "pairs.csv", [("0.png", "x")]), caption_column=[])


def test_what_cannot_be_read_as_a_whole_is_refused(folder):
    path = write_csv(folder / "pairs.csv", [("0.png", "one")])
    with pytest.raises(FileNotFoundError, match="`source` must name existing files"):
        read_pairs(folder / "none.csv")
    with pytest.raises(ValueError, match="`source` must have a known ending"):
        read_pairs(folder / "0.png")
    with pytest.raises(ValueError, match="`source` must be of one format"):
        read_pairs([path, write_table(folder / "b.tsv")])
    with pytest.raises(ValueError, match="`format` must be one of"):
        read_pairs(path, format="xlsx")
    with pytest.raises(ValueError, match="`template` must go with one of .'folder'.*Leave it out"):
        read_pairs(path, template="{}")
    with pytest.raises(ValueError, match="must have the columns .'image', 'text'"):
        read_pairs(path, caption_column="text")
    empty = folder / "empty.csv"
    empty.write_text("image,caption\n0.png,\n")
    with pytest.raises(
        ValueError, match="`source` must have a readable example.*\n.*empty.csv:2: the caption is empty"
    ):
        read_pairs(empty)
    utf_16 = folder / "utf16.csv"
    utf_16.write_bytes("image,caption\n0.png,one\n".encode("utf-16"))
    with pytest.raises(ValueError, match="column names, in UTF-8"):
        read_pairs(utf_16)
