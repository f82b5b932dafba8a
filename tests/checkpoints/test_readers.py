"""Readers of HDF5, msgpack and safetensors: exact values from honest files, one kind of error from all others."""

import contextlib
import json
import random
import tempfile
import time
import tracemalloc
from pathlib import Path

import h5py
import ml_dtypes
import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from helpers.format_files import FLAX_SCALAR, flax_chunks, flax_extension, flax_tree, write_h5
from tf_clip.checkpoints.errors import CheckpointError
from tf_clip.checkpoints.readers.hdf5 import read_hdf5_file
from tf_clip.checkpoints.readers.msgpack import read_msgpack_file
from tf_clip.checkpoints.readers.safetensors import read_safetensors_file

A = np.arange(6, dtype="float32").reshape(2, 3)
B = np.array(-1.5, "float32")
DTYPES = ("float16", "bfloat16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool")
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 605247071\n"


def read_safetensors(path):
    return read_safetensors_file(path)[0]


READERS = {".h5": read_hdf5_file, ".msgpack": read_msgpack_file, ".safetensors": read_safetensors}


def arrays(path):
    """Reads and loads everything, and checks that what was promised was right."""
    result = {}
    for name, tensor in READERS[path.suffix](path).items():
        result[name] = array = tensor.load()
        assert (array.shape, array.dtype.name) == (tensor.shape, tensor.dtype)
    return result


def refused(path, match):
    with pytest.raises(CheckpointError, match=match) as error:
        READERS[path.suffix](path)
    assert str(error.value).startswith(str(path)) and len(str(error.value)) < 900


def of_dtype(dtype):
    values = np.random.default_rng(0).normal(size=(3, 4)) * 50
    return values.astype(ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)


def equal(got, expected):
    assert sorted(got) == sorted(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(got[name], array, err_msg=name)


# Any format


@pytest.mark.parametrize("suffix", READERS)
def test_an_empty_file(tmp_path, suffix):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(b"")
    refused(path, "is not a whole")


@pytest.mark.parametrize("suffix", READERS)
def test_a_git_lfs_pointer_is_called_one(tmp_path, suffix):
    path = tmp_path / f"model{suffix}"
    path.write_bytes(POINTER)
    refused(path, "is a Git LFS pointer, not the file itself. Run `git lfs pull`")


def honest(suffix):
    """Writes a small file; returns its bytes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"model{suffix}"
        if suffix == ".h5":
            write_h5(path, {"clip/a/x:0": A, "clip/b:0": B}, ["clip"])
        elif suffix == ".msgpack":
            write_msgpack(path, {"a": {"x": flax_extension(A)}, "b": flax_extension(B), "c": flax_chunks(A, 4)})
        else:
            save_file({"a.x": A, "b": B}, path, metadata={"format": "pt"})
        return path.read_bytes()


def spoil(data, seed):
    """Cuts bytes short or changes some."""
    chance = random.Random(seed)
    if chance.random() < 0.3:
        return data[: chance.randrange(len(data))]
    spoiled = bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 4])):
        spoiled[chance.randrange(len(data))] = chance.choice([0, 1, 127, 128, 255, chance.randrange(256)])
    return bytes(spoiled)


@pytest.mark.parametrize(("suffix", "examples"), [(".h5", 40), (".msgpack", 400), (".safetensors", 200)])
def test_a_spoiled_file_gives_arrays_or_one_kind_of_error(tmp_path, suffix, examples):
    data, path = honest(suffix), tmp_path / f"model{suffix}"

    @settings(max_examples=examples, deadline=None, database=None, derandomize=True)
    @given(st.integers(0, 2**32))
    def check(seed):
        path.write_bytes(spoil(data, seed))
        with contextlib.suppress(CheckpointError):
            arrays(path)

    check()


@pytest.mark.parametrize("suffix", [".msgpack", ".safetensors"])
def test_every_shorter_file_is_refused(tmp_path, suffix):
    data, path = honest(suffix), tmp_path / f"model{suffix}"
    for length in range(len(data)):
        path.write_bytes(data[:length])
        refused(path, "must hold|is not a whole")


@settings(max_examples=300, deadline=None, database=None)
@given(st.binary(max_size=200))
def test_bytes_at_random_are_no_flax_file(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "random.msgpack"
    path.write_bytes(data)
    with contextlib.suppress(CheckpointError):
        arrays(path)


# safetensors


def write_safetensors(path, header, data=b""):
    encoded = json.dumps(header).encode()
    path.write_bytes(len(encoded).to_bytes(8, "little") + encoded + data)
    return path


@pytest.mark.parametrize("dtype", DTYPES)
def test_safetensors_dtypes(tmp_path, dtype):
    expected = of_dtype(dtype)
    save_file({"a": expected, "b": expected[0, :1]}, tmp_path / "model.safetensors")
    equal(arrays(tmp_path / "model.safetensors"), {"a": expected, "b": expected[0, :1]})


def test_a_safetensors_header_of_gigabytes(tmp_path):
    path = tmp_path / "model.safetensors"
    path.write_bytes((2**31).to_bytes(8, "little") + b"{}")
    refused(path, "is not a whole safetensors file")


def test_a_safetensors_dtype_that_is_not_common(tmp_path):
    header = {"a": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}
    refused(write_safetensors(tmp_path / "model.safetensors", header, b"12"), "Received: a as F8_E4M3")


@pytest.mark.parametrize("shape", [[0, 2**62, 2], [1] * 40 + [0]], ids=["too large", "too many axes"])
def test_a_safetensors_shape_that_no_array_has(tmp_path, shape):
    header = {"a": {"dtype": "F32", "shape": shape, "data_offsets": [0, 0]}}
    refused(write_safetensors(tmp_path / "model.safetensors", header), "must hold arrays|is not a whole")


def test_a_safetensors_tensor_outside_of_the_file(tmp_path):
    header = {"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}
    refused(write_safetensors(tmp_path / "model.safetensors", header, b"1234"), "is not a whole safetensors file")


# msgpack


def write_msgpack(path, tree):
    path.write_bytes(msgpack.packb(tree, use_bin_type=True))
    return path


@pytest.fixture
def flax(tmp_path):
    return tmp_path / "flax_model.msgpack"


def extension(*parts, kind=1):
    return msgpack.ExtType(kind, msgpack.packb(parts, use_bin_type=True))


@pytest.mark.parametrize("dtype", DTYPES)
def test_flax_dtypes(flax, dtype):
    expected = of_dtype(dtype)
    write_msgpack(flax, {"a": {"b": flax_extension(expected)}, "c": flax_extension(expected[0, 0], FLAX_SCALAR)})
    equal(arrays(flax), {"a/b": expected, "c": expected[0, 0]})


@pytest.mark.parametrize("count", [1, 15, 16, 70_000], ids=["fixmap", "largest fixmap", "map 16", "map 32"])
def test_flax_maps_of_every_size(flax, count):
    write_msgpack(flax, {str(number): flax_extension(B) for number in range(count)})
    assert len(read_msgpack_file(flax)) == count


@pytest.mark.parametrize("size", [0, 1, 100, 30_000])
def test_flax_arrays_of_every_size(flax, size):
    expected = np.arange(size, dtype="int32")
    equal(arrays(write_msgpack(flax, {"a": flax_extension(expected), "b": flax_extension(B)})), {"a": expected, "b": B})


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_flax_chunks(flax, dtype):
    expected = of_dtype(dtype)
    write_msgpack(flax, {"a": {"b": flax_chunks(expected, 5)}, "c": flax_extension(B), "d": flax_chunks(A, 6)})
    equal(arrays(flax), {"a/b": expected, "c": B, "d": A})


def test_more_than_ten_flax_chunks_stay_in_order(flax):
    expected = np.arange(25, dtype="float32")
    equal(arrays(write_msgpack(flax, {"a": flax_chunks(expected, 2)})), {"a": expected})


@pytest.mark.parametrize(
    "change",
    [
        lambda chunked: chunked["chunks"].pop("1"),
        lambda chunked: chunked["chunks"].update({"7": flax_extension(A[0])}),
        lambda chunked: chunked.update(shape={"0": 7}),
        lambda chunked: chunked.update(shape={"0": -2, "1": -3}),
        lambda chunked: chunked.update(chunks={}),
        lambda chunked: chunked.pop("chunks"),
        lambda chunked: chunked["chunks"].update({"1": flax_extension(A.reshape(-1)[4:].astype("float64"))}),
        lambda chunked: chunked["chunks"].update({"1": flax_extension(A[:1, :2])}),
    ],
    ids=["lost", "surplus", "other shape", "negative shape", "empty", "none", "two dtypes", "not flat"],
)
def test_flax_chunks_that_do_not_fit(flax, change):
    chunked = flax_chunks(A, 4)
    change(chunked)
    refused(write_msgpack(flax, {"a": chunked}), "must hold all chunks of a/")


def test_a_flax_shape_that_is_no_map(flax):
    refused(write_msgpack(flax, {"a": {**flax_chunks(A, 4), "shape": 5}}), "is not a whole Flax file")


@pytest.mark.parametrize(
    ("value", "match"),
    [
        (msgpack.ExtType(2, b"12"), "must hold arrays. Received: Flax's kind 02"),
        (msgpack.ExtType(5, b"12345"), "must hold arrays. Received: Flax's kind 05"),
        (1.5, "must hold maps and arrays only"),
        ([1, 2], "must hold maps and arrays only"),
        (b"1234", "must hold maps and arrays only"),
        (extension([2], "float32"), "must hold arrays as Flax writes them"),
        (extension([2], "float32", "text"), "must hold arrays as bytes"),
        (
            extension([2], "float32", b"1234"),
            r"must hold its arrays whole. Received: 4 bytes for shape \[2\] of float32",
        ),
        (extension([2], "complex64", b"1234"), "must hold arrays of numbers. Received: 'complex64'"),
        (extension([-2, -2], "int8", b"1234"), "must hold arrays of numbers"),
        (extension([2.0], "int8", b"12"), "must hold arrays of numbers"),
        (extension([0, 2**63, 2**63], "int8", b""), "must hold arrays of numbers"),
        (extension([1] * 65, "int8", b"1"), "must hold arrays of numbers"),
        (extension(7, "int8", b"1234567"), "is not a whole Flax file"),
    ],
)
def test_flax_values_that_are_no_arrays(flax, value, match):
    refused(write_msgpack(flax, {"a": value}), match)


def test_flax_lengths_that_contradict_each_other(flax):
    inside = msgpack.packb([[4], "int8", b"1234"])
    wrong = inside.replace(b"\xc4\x041234", b"\xc4\x031234")
    refused(write_msgpack(flax, {"a": msgpack.ExtType(1, wrong)}), "must hold its arrays whole. Received: 3 bytes")


def test_bytes_behind_the_end_of_a_flax_file(flax):
    write_msgpack(flax, {"a": flax_extension(A)})
    flax.write_bytes(flax.read_bytes() + b"\0")
    refused(flax, "must end with its map")


def test_a_flax_file_that_is_no_map(flax):
    refused(write_msgpack(flax, [1, 2]), "is not a whole Flax file")


def test_maps_in_maps_are_counted(flax):
    flax.write_bytes(b"\x81\xa1a" * 1000 + b"\xc0")
    refused(flax, "must hold maps at most 64 deep")


@pytest.mark.parametrize(
    "start",
    [b"\xdf\xff\xff\xff\xff", b"\x81\xdb\xff\xff\xff\xff", b"\x81\xa1a\xc9\xff\xff\xff\xff\x01\x93\x91\x01"],
    ids=["entries", "a name", "an array"],
)
def test_headers_that_claim_gigabytes_take_no_memory(flax, start):
    flax.write_bytes(start)
    tracemalloc.start()
    try:
        refused(flax, "is not a whole Flax file")
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_a_long_flax_name(flax):
    name = "n" * 3000
    equal(arrays(write_msgpack(flax, flax_tree({f"a/{name}": flax_extension(A)}))), {f"a/{name}": A})


# HDF5


@pytest.fixture
def h5(tmp_path):
    return tmp_path / "tf_model.h5"


@contextlib.contextmanager
def added_to(path):
    with h5py.File(path, "a") as file:
        file["a"] = A
        yield file


@pytest.mark.parametrize("dtype", [dtype for dtype in DTYPES if dtype != "bfloat16"])
def test_hdf5_dtypes(h5, dtype):
    expected = of_dtype(dtype)
    write_h5(h5, {"clip/tfclip_model/clip/a:0": expected, "clip/b:0": expected[0, 0]}, ["clip"])
    equal(arrays(h5), {"clip/tfclip_model/clip/a:0": expected, "clip/b:0": expected[0, 0]})


def test_hdf5_bfloat16_as_keras_writes_it(h5):
    expected = of_dtype("bfloat16")
    with h5py.File(h5, "w") as file:
        file.create_dataset("vars/0", data=expected).attrs["dtype"] = "bfloat16"
    equal(arrays(h5), {"vars/0": expected})


def test_hdf5_numbers_in_the_other_byte_order(h5):
    with h5py.File(h5, "w") as file:
        file["a"] = A.astype(">f4")
    equal(arrays(h5), {"a": A})


def test_hdf5_compressed(h5):
    expected = np.arange(1000, dtype="float32").reshape(10, 100)
    with h5py.File(h5, "w") as file:
        file.create_dataset("a", data=expected, chunks=(5, 7), compression="gzip", shuffle=True)
    equal(arrays(h5), {"a": expected})


@pytest.mark.parametrize("keep", [1, 8, 96, 500, 1000, 2000, -1])
def test_an_hdf5_file_cut_short(h5, keep):
    write_h5(h5, {"clip/a:0": A}, ["clip"])
    h5.write_bytes(h5.read_bytes()[:keep])
    refused(h5, "is not a whole HDF5 file")


def test_hdf5_links_are_not_followed(h5, tmp_path):
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["x"] = A
    for name, link in (("external", h5py.ExternalLink("secret.h5", "/x")), ("soft", h5py.SoftLink("/a"))):
        h5.unlink(missing_ok=True)
        with added_to(h5) as file:
            file[f"group/{name}"] = link
        refused(h5, f"must hold its tensors itself. Received: group/{name}, a link")


def test_hdf5_numbers_in_another_file(h5, tmp_path):
    (tmp_path / "secret").write_bytes(b"12345678")
    with added_to(h5) as file:
        file.create_dataset("outside", (2,), "float32", external=[("secret", 0, 8)])
    refused(h5, "must hold its tensors itself. Received: outside, kept in another file")


def test_a_virtual_hdf5_dataset(h5):
    layout = h5py.VirtualLayout((2, 3), "float32")
    layout[:] = h5py.VirtualSource("secret.h5", "x", (2, 3))
    with added_to(h5) as file:
        file.create_virtual_dataset("outside", layout)
    refused(h5, "must hold its tensors itself. Received: outside, kept in another file")


CHUNKS = {"chunks": (2**10, 2**10)}


@pytest.mark.parametrize(
    ("shape", "how"),
    [
        ((2**20, 2**10), CHUNKS),
        ((2**30, 2**30), {}),
        ((2**30, 2**30), CHUNKS),
        ((2**30, 2**30), {**CHUNKS, "compression": "gzip"}),
        ((2**32, 2**32), CHUNKS),  # as many elements as 64 bits count as none
        ((0, 2**62), {}),
    ],
)
def test_an_absurd_hdf5_shape(h5, shape, how):
    with added_to(h5) as file:
        file.create_dataset("vast", shape, "float32", **how)
    refused(h5, "must be large enough for its tensors. Received: vast of shape")


@pytest.mark.parametrize("value", ["text", np.array([b"a", b"b"]), np.array([1j]), h5py.Empty("float32")])
def test_hdf5_values_that_are_no_numbers(h5, value):
    with added_to(h5) as file:
        file["words"] = value
    refused(h5, "must hold numbers. Received: words as")


def test_an_hdf5_group_inside_itself_is_not_walked_forever(h5):
    with added_to(h5) as file:
        group = file.create_group("group")
        group["left"] = group["right"] = group
    started = time.monotonic()
    refused(h5, "must hold groups under one name each")
    assert time.monotonic() - started < 5


def test_hdf5_groups_in_groups_are_counted(h5):
    with added_to(h5) as file:
        file.create_group("/".join("g" * 200))
    refused(h5, "at most 64 deep")
