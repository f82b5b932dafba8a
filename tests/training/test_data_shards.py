"""WebDataset shards, TFRecord files and class folders: what is read, and what a broken part costs."""

import gzip
import io
import struct
import tarfile
import tracemalloc

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.pair_files import all_pairs, faults, image, write_records, write_tar
from tf_clip import read_pairs
from tf_clip.data.skipped import ExampleError
from tf_clip.data.tfrecords import _masked_crc

IMAGES = [image(index) for index in range(4)]


def test_shards_are_read_where_they_lie(tmp_path):
    write_tar(tmp_path / "0.tar", [("a/0.png", IMAGES[0]), ("a/0.txt", "one\n"), ("a/0.json", {"caption": "no"})])
    members = [("1.jpg", IMAGES[1]), ("1.0.txt", "two"), ("1.de.txt", "zwei"), ("1.cls", "7")]
    members += [("2.JSON", {"caption": ["three", "drei"]}), ("2.PNG", IMAGES[2])]
    write_tar(tmp_path / "1.tar", members)
    pairs = read_pairs(tmp_path / "*.tar")
    expected = [["one"], ["two", "zwei"], ["three", "drei"]]
    assert all_pairs(pairs) == list(zip(IMAGES[:3], expected, strict=True))
    assert list(pairs.skipped) == [] and pairs.groups is None
    assert pairs.where(0).endswith("0.tar: a/0")
    assert sorted(pairs.shuffled(np.random.default_rng(0))) == [0, 1, 2]


def test_long_names_and_other_file_systems_will_do(tmp_path):
    name = "long/" * 40 + "ö"
    data = write_tar(tmp_path / "a.tar", [(f"{name}.png", IMAGES[0]), (f"{name}.txt", "one")]).read_bytes()
    with tf.io.gfile.GFile("ram://long.tar", "wb") as file:
        file.write(data)
    pairs = read_pairs("ram://long.tar")
    assert all_pairs(pairs) == [(IMAGES[0], ["one"])] and pairs.where(0).endswith(name)


def link(name, kind=tarfile.SYMTYPE):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "../../../etc/passwd"
    return info


def test_broken_samples_cost_their_own_row(tmp_path):
    members = [
        ("0.png", IMAGES[0]),
        ("0.txt", "one"),
        ("1.png", IMAGES[1]),
        ("2.txt", "no image"),
        ("3.png", IMAGES[1]),
        ("3.jpg", IMAGES[1]),
        ("3.txt", "two images"),
        ("4.png", link("4.png")),
        ("4.txt", "a link"),
        ("5.png", IMAGES[1]),
        ("5.txt", b"caf\xe9"),
        ("6.png", IMAGES[1]),
        ("6.txt", " \n"),
        ("7.png", IMAGES[1]),
        ("7.json", "[" * 100_000),
        ("8.png", IMAGES[1]),
        ("8.json", {"text": "other"}),
        ("9.png", IMAGES[1]),
        ("9.txt", b"x" * (1 << 21)),
        ("../10.png", IMAGES[2]),
        ("../10.txt", "a name is but a name"),
    ]
    pairs = read_pairs(write_tar(tmp_path / "a.tar", members))
    assert faults(pairs.skipped) == [
        ("a.tar: '1'", "neither a .txt nor a .json beside the image"),
        ("a.tar: '2'", "no images"),
        ("a.tar: '3'", "2 images"),
        ("a.tar: '4'", "a link or a special file"),
    ]
    assert pairs.read(0) == (IMAGES[0], ["one"]) and pairs.read(6) == (IMAGES[2], ["a name is but a name"])
    reasons = ["not valid UTF-8", "the caption is empty", "is not JSON", "has no 'caption'", "more than 1048576"]
    for row, reason in enumerate(reasons, 1):
        with pytest.raises(ExampleError, match=reason):
            pairs.read(row)


def claims(size):
    """Returns a member's header that says so many bytes follow."""
    info = tarfile.TarInfo("9.png")
    info.size = size
    return info.tobuf(tarfile.GNU_FORMAT)


SAMPLE = [("0.png", IMAGES[0]), ("0.txt", "one")]
NO_END = slice(None, -1024)
BROKEN_TAILS = {
    "a size of gigabytes": claims(5_000_000_000),
    "a size of exabytes": claims(1 << 62),
    "a size below zero": claims(-1024),
    "a header cut short": claims(0)[:300],
    "a header with a wrong byte": b"x" + claims(0)[1:],
    "a long header": tarfile.TarInfo.create_pax_global_header({"x": "y" * 3_000_000}),
    "noise": bytes(range(256)) * 4,
}


@pytest.mark.parametrize("name", BROKEN_TAILS)
def test_a_broken_tar_keeps_what_comes_before(tmp_path, name):
    path = write_tar(tmp_path / "a.tar", SAMPLE)
    data = path.read_bytes().rstrip(b"\0")
    whole = data + b"\0" * (-len(data) % 512)
    path.write_bytes(whole + BROKEN_TAILS[name])
    tracemalloc.start()
    pairs = read_pairs(path)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert all_pairs(pairs) == [(IMAGES[0], ["one"])] and most < 30_000_000
    (example,) = pairs.skipped
    assert example.reason.startswith("cut short or broken behind '0'")


def test_other_files_are_no_shards(tmp_path):
    path = write_tar(tmp_path / "a.tar", SAMPLE)
    for data in (b"", b"hello", path.read_bytes()[:400], gzip.compress(path.read_bytes())):
        path.write_bytes(data)
        with pytest.raises(ValueError, match="`source` must be tar files that are whole and not compressed"):
            read_pairs(path)
        with pytest.raises(ValueError, match="`source` must"):
            read_pairs(path, format="tfrecord")


def read_or_refuse(path):
    """Reads all there is; every error but the documented ones gets through."""
    try:
        pairs = read_pairs(path)
    except ValueError as error:
        assert "`source` must" in str(error)
        return
    for row in range(len(pairs)):
        try:
            pair = pairs.read(row)
        except ExampleError:
            continue
        assert all(caption.strip().encode() for caption in pair.captions) and pairs.where(row)


def record_file(path):
    return write_records(path, [{"image": [IMAGES[0]], "caption": [b"one", b"two"]}, {"image": [b"x"]}])


CHANGES = st.lists(st.tuples(st.floats(0, 1), st.binary(min_size=1, max_size=12)), max_size=4)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(changes=CHANGES, length=st.floats(0, 1), is_cut=st.booleans(), kind=st.sampled_from(["tar", "tfrecord"]))
def test_hostile_shards_are_refused_or_left_out(tmp_path_factory, changes, length, is_cut, kind):
    path = tmp_path_factory.getbasetemp() / f"hostile.{kind}"
    if kind == "tar":
        write_tar(path, [*SAMPLE, ("1.png", b"x"), ("1.json", {"caption": "y"}), ("n" * 200 + ".png", b"z")])
    else:
        record_file(path)
    data = bytearray(path.read_bytes())
    for place, values in changes:
        at = int(place * len(data))
        data[at : at + len(values)] = values
    path.write_bytes(data[: int(length * len(data))] if is_cut else data)
    read_or_refuse(path)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(fields=st.dictionaries(st.integers(0, 156), st.binary(min_size=1, max_size=12), max_size=3))
def test_hostile_headers_are_refused_or_left_out(tmp_path_factory, fields):
    """Sizes, kinds and names of members are anything, and their checksums are right."""
    path = write_tar(tmp_path_factory.getbasetemp() / "headers.tar", [*SAMPLE, ("1.png", b"x"), ("1.txt", "y")])
    data = bytearray(path.read_bytes())
    header = bytearray(data[:512])
    for place, values in fields.items():
        header[place : place + len(values)] = values
    header[148:156] = b"%06o\0 " % (sum(header[:148]) + 8 * 32 + sum(header[156:512]))
    data[:512] = header[:512]
    path.write_bytes(data)
    read_or_refuse(path)


def test_records_are_read_where_they_lie(tmp_path):
    rows = [
        {"image": [IMAGES[0]], "caption": [b"one", b"", b"two"]},
        {"image": [IMAGES[1]], "caption": ["drei Ö".encode()]},
        {"caption": [b"no image"]},
        {"image": [IMAGES[1], IMAGES[2]], "caption": [b"two images"]},
        {"image": [IMAGES[1]], "caption": [b"\xff"]},
        {"image": [IMAGES[1]], "caption": []},
        {"image": [IMAGES[1]]},
    ]
    write_records(tmp_path / "a.tfrecord-00000-of-00002", rows)
    write_records(tmp_path / "a.tfrecord-00001-of-00002", rows[:1])
    pairs = read_pairs(tmp_path / "a.tfrecord*")
    assert len(pairs) == 8
    for row in (0, 7):
        assert pairs.read(row) == (IMAGES[0], ["one", "two"])
    assert pairs.read(1) == (IMAGES[1], ["drei Ö"]) and pairs.where(7).endswith("00001-of-00002: record 0")
    reasons = ["no values of 'image'", "2 values", "not valid UTF-8", "the caption is empty", "has no 'caption'"]
    for row, reason in enumerate(reasons, 2):
        with pytest.raises(ExampleError, match=reason):
            pairs.read(row)
    other = write_records(tmp_path / "b.tfrec", [{"image/encoded": [IMAGES[0]], "title": [b"x"], "text": [b"y"]}])
    pairs = read_pairs(other, image_column="image/encoded", caption_column=["text", "title"])
    assert all_pairs(pairs) == [(IMAGES[0], ["y", "x"])]


@pytest.mark.parametrize("length", [5_000_000_000, (1 << 64) - 1, 2_000])
def test_a_broken_record_file_keeps_what_comes_before(tmp_path, length):
    path = record_file(tmp_path / "a.tfrecord")
    size = struct.pack("<Q", length)
    path.write_bytes(path.read_bytes() + size + struct.pack("<I", _masked_crc(size)) + b"x" * 100)
    pairs = read_pairs(path)
    assert len(pairs) == 2 and pairs.read(0) == (IMAGES[0], ["one", "two"])
    assert faults(pairs.skipped) == [("a.tfrecord: record 2", "broken or cut short, and all behind it")]


def test_a_record_too_large_costs_its_own_row(tmp_path, monkeypatch):
    monkeypatch.setattr("tf_clip.data.tfrecords.MAX_FILE_BYTES", 1_000)
    pairs = read_pairs(record_file(tmp_path / "a.tfrecord"))
    with pytest.raises(ExampleError, match="more than 1000"):
        pairs.read(0)


def test_classes_are_captions(tmp_path):
    for name, count in (("golden_retriever", 2), ("cat", 1)):
        (tmp_path / name).mkdir()
        for index in range(count):
            (tmp_path / name / f"{index}.png").write_bytes(IMAGES[index])
    (tmp_path / "cat" / ".hidden").touch()
    (tmp_path / "cat" / "more").mkdir()
    (tmp_path / "README.md").touch()
    pairs = read_pairs(tmp_path)
    expected = [(IMAGES[0], ["a photo of a cat."])]
    expected += [(IMAGES[index], ["a photo of a golden retriever."]) for index in range(2)]
    assert all_pairs(pairs) == expected
    assert pairs.groups.tolist() == [0, 1, 1]
    assert faults(pairs.skipped) == [("more", "a folder inside a class folder")]
    assert read_pairs(tmp_path, template=["{}", "my {}"]).read(0).captions == ["cat", "my cat"]
    with pytest.raises(ValueError, match="`source` must be a folder with a folder of images for each class"):
        read_pairs(tmp_path / "cat")
    with pytest.raises(ValueError, match="`group_column` must go with"):
        read_pairs(tmp_path, group_column="x")
    with pytest.raises(ValueError, match="`source` must be a single one in this format"):
        read_pairs([tmp_path, tmp_path])


def test_a_template_is_text_but_for_the_place_of_the_class(tmp_path):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "0.png").write_bytes(IMAGES[0])
    assert read_pairs(tmp_path, template="{x} {}, {0}").read(0).captions == ["{x} cat, {0}"]
    for template in ("", "a photo", [], ["{}", "a photo"]):
        with pytest.raises(ValueError, match="`template` must be prompts with {}"):
            read_pairs(tmp_path, template=template)


def test_a_whole_shard_is_never_in_memory(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for index in range(20):
            for name, data in ((f"{index}.png", bytes(2_000_000)), (f"{index}.txt", b"x")):
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    tracemalloc.start()
    pairs = read_pairs(path)
    assert len(pairs) == 20 and len(pairs.read(7).image) == 2_000_000
    assert tracemalloc.get_traced_memory()[1] < 5_000_000
    tracemalloc.stop()
