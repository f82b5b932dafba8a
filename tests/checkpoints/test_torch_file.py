"""PyTorch files without PyTorch: three layouts, exact values, and nothing in a file is ever run."""

import io
import pickle
import struct
import tracemalloc
import zipfile

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.torch_files import STORAGE_TYPES, Call, Module, Raw, Tensor, name_of, operations, write_legacy, write_zip
from tf_clip.checkpoints.errors import CheckpointError
from tf_clip.checkpoints.readers import restricted_unpickler
from tf_clip.checkpoints.readers import torch as torch_file
from tf_clip.checkpoints.readers.restricted_unpickler import Refused, unpickle
from tf_clip.checkpoints.readers.torch import read_torch_file

WRITERS = pytest.mark.parametrize("write", [write_zip, write_legacy])
A = np.arange(6, dtype="float32").reshape(2, 3)
B = np.array([-1, 2**40], "int64")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "weights.bin"


def arrays(path):
    """Reads and loads everything, and checks that what was promised was right."""
    result = {}
    for name, tensor in read_torch_file(path).items():
        result[name] = array = tensor.load()
        assert (array.shape, array.dtype.name) == (tensor.shape, tensor.dtype)
    return result


def refused(path, *fragments):
    with pytest.raises(CheckpointError) as error:
        read_torch_file(path)
    message = str(error.value)
    assert message.startswith(str(path)) and len(message) < 700
    for fragment in fragments:
        assert fragment in message
    return message


def nested(count, step, start):
    """Doubles a container `count` times: short in the file, endless to walk."""
    return Raw(start + step * count)


@WRITERS
@pytest.mark.parametrize("dtype", STORAGE_TYPES)
def test_every_dtype_is_read_exactly(path, write, dtype):
    numpy_dtype = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
    expected = (np.random.default_rng(0).normal(size=(3, 4)) * 50).astype(numpy_dtype)
    got = arrays(write(path, {"a": Tensor("0", expected), "b": Tensor("1", expected[0, 0])}))
    assert list(got) == ["a", "b"]
    np.testing.assert_array_equal(got["a"], expected)
    np.testing.assert_array_equal(got["b"], expected[0, 0])


@WRITERS
def test_views_of_one_storage(path, write):
    base = np.arange(24, dtype="float32").reshape(2, 3, 4)

    def view(**how):
        return Tensor("0", base, **how)

    got = arrays(
        write(
            path,
            {
                "base": view(),
                "transposed": view(shape=(4, 2, 3), strides=(1, 12, 4)),
                "slice": view(offset=13, shape=(2, 2), strides=(4, 2)),
                "last": view(offset=23, shape=(), strides=()),
                "empty": view(offset=24, shape=(0, 4), strides=(4, 1)),
                "repeated": view(offset=1, shape=(5, 3), strides=(0, 1)),
            },
        )
    )
    expected = {
        "base": base,
        "transposed": base.transpose(2, 0, 1),
        "slice": base[1, :2, 1::2],
        "last": base[-1, -1, -1],
        "empty": base[0, 3:],
        "repeated": np.broadcast_to(base[0, 0, 1:], (5, 3)),
    }
    assert set(got) == set(expected)
    for name, array in expected.items():
        np.testing.assert_array_equal(got[name], array, strict=True)


@WRITERS
def test_a_training_checkpoint_gives_the_weights_alone(path, write):
    weights = {"module.visual.proj": Tensor("0", A), "module.steps": Tensor("1", B)}
    checkpoint = {
        "epoch": 3,
        "optimizer": {"state": {0: {"exp_avg": Tensor("2", A)}}, "param_groups": [{"betas": (0.9, 0.98)}]},
        "state_dict": weights,
        "scaler": None,
    }
    got = arrays(write(path, checkpoint))
    assert list(got) == ["visual.proj", "steps"]
    np.testing.assert_array_equal(got["steps"], B)
    assert list(arrays(write(path, {"model": {"w": Tensor("0", A)}, "lr": 0.1}))) == ["w"]
    # Neither a text nor an empty dict of that name hides the tensors beside it.
    assert list(arrays(write(path, {"model": "ViT-B-32", "state_dict": {}, "w": Tensor("0", A)}))) == ["w"]
    assert list(arrays(write(path, {"module.a": Tensor("0", A), "b": Tensor("1", B)}))) == ["module.a", "b"]


def test_parameters_and_what_else_pytorch_writes(path):
    hooks = Call("collections.OrderedDict", ())
    versions = {"": {"version": 1}}
    content = {
        "parameter": Call("torch._utils._rebuild_parameter", (Tensor("0", A), True, hooks)),
        "tagged": Call("torch._utils._rebuild_parameter_with_state", (Tensor("1", B), True, hooks, {"note": "x"})),
        "old": Tensor("2", A, function="torch._utils._rebuild_tensor"),
        "pairs": Call("collections.OrderedDict", ([["w", Tensor("3", B)]],)),
        "device": Call("torch.device", ("cuda", 0)),
        "size": Call("torch.Size", ((2, 3),)),
        "dtype": Raw(name_of("torch.float16")),
    }
    # A state dict carries its versions as an attribute.
    with_attributes = Raw(b"".join(operations(part, {}) for part in ({}, {"_metadata": versions})) + b"b")
    got = arrays(write_zip(path, content | {"attributes": with_attributes}))
    assert list(got) == ["parameter", "tagged", "old", "pairs.w"]
    np.testing.assert_array_equal(got["parameter"], A)
    np.testing.assert_array_equal(got["pairs.w"], B)


def test_a_torchscript_archive(path):
    layer = Module(
        "__torch__.torch.nn.modules.linear.Linear",
        {"training": False, "_is_full_backward_hook": None, "weight": Tensor("0", A.astype("float16"))},
    )
    archive = Module(
        "__torch__.multimodal.model.Multimodal",
        {
            "training": False,
            "input_resolution": Tensor("1", np.array(224)),
            "vocab_size": 49408,
            "name": "clip",
            "sizes": Call("torch.jit._pickle.build_intlist", ([1, 2],)),
            "visual": Module("__torch__.___torch_mangle_7.Visual", {"0": layer, "proj": Tensor("2", A)}),
        },
    )

    def add_code(entries):
        entries["code/__torch__/multimodal/model.py"] = b"raise SystemExit" * 20
        entries["constants.pkl"] = b"cos\nsystem\n(X\x04\x00\x00\x00exittR."

    got = arrays(write_zip(path, archive, change=add_code, compressed=("code/__torch__/multimodal/model.py",)))
    assert list(got) == ["input_resolution", "visual.0.weight", "visual.proj"]
    assert got["input_resolution"] == 224
    np.testing.assert_array_equal(got["visual.0.weight"], A.astype("float16"), strict=True)


@WRITERS
def test_a_tensor_is_read_when_it_is_loaded_and_once(path, write):
    big = np.ones((500, 1000), "float32")
    tensors = read_torch_file(write(path, {"big": Tensor("0", big), "small": Tensor("1", A)}))
    tracemalloc.start()
    array = tensors["big"].load()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(array, big)
    assert peak < 1.1 * big.nbytes
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="has become shorter"):
        tensors["big"].load()
    path.unlink()
    with pytest.raises(FileNotFoundError):
        tensors["small"].load()


@pytest.mark.parametrize("protocol", range(6))
def test_plain_containers_are_read_as_pickle_reads_them(protocol):
    shared = ["x", 2**70, -1]
    value = {
        "a": [shared, shared, (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
        "b": {1: None, 2.5: True, "ü": False, "empty": [{}, [], ""]},
        "c": [*range(-3, 2000), 1e300, "long" * 100],
    }
    value["bytes"] = b"\x00\xff" * 200 if protocol >= 3 else "none"
    data = io.BytesIO(pickle.dumps(value, protocol) + b"more")
    got, storages = unpickle(data)
    assert got == value and storages == {} and data.read() == b"more"
    assert got["a"][0] is got["a"][1]


# What a pickle can call: none of it is on the list.
@WRITERS
@pytest.mark.parametrize(
    "function",
    "os.mkdir posix.mkdir builtins.open __builtin__.eval torch.load torch.storage._load_from_bytes torch.os.system "
    "argparse.Namespace numpy.core.multiarray.scalar collections.OrderedDict.fromkeys __torch__x.y "
    "torch._utils._rebuild_tensor_v2.__globals__ copyreg._reconstructor".split(),
)
def test_a_call_of_anything_else_is_refused_and_not_made(path, tmp_path, write, function):
    write(path, {"w": Tensor("0", A), "x": Call(function, (str(tmp_path / "made"),))})
    refused(path, f"would run code: '{function}'", "Nothing was run.", "safetensors")
    assert not (tmp_path / "made").exists()


def test_protocol_4_names_are_looked_up_alike(path):
    by_stack = operations("os", {}) + operations("system", {}) + b"\x93"
    refused(write_zip(path, {"w": Raw(by_stack)}), "would run code: 'os.system'")


@pytest.mark.parametrize(
    ("content", "fragment"),
    [
        (Raw(b"(X\x02\x00\x00\x00idios\nsystem\n"), "operation INST"),
        (Raw(b"(" + name_of("__torch__.a.B") + b"o"), "operation OBJ"),
        (Raw(b"\x82\x01"), "operation EXT1"),
        (Raw(b"\x83\x01\x00"), "operation EXT2"),
        (Raw(b"\x84\x01\x00\x00\x00"), "operation EXT4"),
        (Raw(name_of("__torch__.a.B") + b")}\x92"), "operation NEWOBJ_EX"),
        (Raw(b"Pstorage\n"), "operation PERSID"),
        (Raw(b"\x8f"), "operation EMPTY_SET"),
        (Raw(b"\x97"), "operation NEXT_BUFFER"),
        (Raw(name_of("collections.OrderedDict") + b")\x81"), "applies NEWOBJ to a _Function"),
        (Raw(name_of("collections.OrderedDict") + b"}b"), "applies BUILD to a _Function"),
        (Raw(name_of("__torch__.a.B") + b")R"), "applies REDUCE to a _ScriptClass"),
        (Raw(name_of("__torch__.a.B") + b"}b"), "applies BUILD to a _ScriptClass"),
        (Module("__torch__.a.B", (None, {"__class__": 1})), "applies BUILD to a ScriptModule"),
        (Call("torch._utils._rebuild_parameter", ("no tensor",)), "a parameter that is no tensor"),
        (Raw(operations(("module", "x", "y"), {}) + b"Q"), "refers to data outside of its pickle"),
        ({(1, 2): 3}, "sets the entry (1, 2) of a dict"),
        ({((1,), 2): 3}, "sets the entry tuple of a dict"),
        (Raw(b")K\x01a"), "appends to a ()"),
        (5, "It holds: int"),
        (Tensor("0", A), "It holds: TensorView"),
        ({"a": 1}, "holds no tensors"),
        ({"a.b": Tensor("0", A), "a": {"b": Tensor("1", B)}}, "two tensors of the name 'a.b'"),
        ({"a": Tensor("0", A), "b": Tensor("0", B)}, "describes the storage '0' in two ways"),
    ],
)
def test_what_no_file_of_tensors_needs_is_refused(path, content, fragment):
    refused(write_zip(path, content), fragment)


def test_a_module_gets_data_and_no_attributes(path):
    module = Module("__torch__.a.B", {"__class__": "x", "__setstate__": "y", "fields": Tensor("0", A)})
    assert list(arrays(write_zip(path, module))) == ["fields"]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(Raw(b"]q\x00h\x00a"), id="a list in itself"),
        pytest.param(Raw(b"}q\x00X\x01\x00\x00\x00ah\x00s"), id="a dict in itself"),
        pytest.param({"model": Raw(b"}q\x00X\x01\x00\x00\x00ah\x00s")}, id="a model in itself"),
        pytest.param(Module("__torch__.a.B", Raw(b"}q\x00X\x01\x00\x00\x00ah\x00s")), id="a module in itself"),
        pytest.param({"a": nested(60, b"q\x00h\x00\x86", b")")}, id="tuples twice over"),
        pytest.param({"a": nested(60, b"q\x000](h\x00h\x00e", b"]")}, id="lists twice over"),
        pytest.param({"a": nested(20_000, b"\x85", b")")}, id="tuples deep down"),
        pytest.param({"a": {"x" * 2000: {"y": Tensor("0", A)}}}, id="a long name"),
    ],
)
def test_containers_without_end_are_refused_at_once(path, content):
    root = content if isinstance(content, (dict, Module)) else {"a": content}
    refused(write_zip(path, root), "containers within containers without end")


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(
            Raw(b"}" + nested(60, b"q\x00h\x00\x86", b")").operations + b"Ns"), id="a key that takes forever to hash"
        ),
        pytest.param(Raw(b"Nr\xff\xff\xff\xff"), id="a memo of billions"),
        pytest.param(Raw(b"\x95" + struct.pack("<Q", 2**60)), id="a frame of an exabyte"),
        pytest.param(Raw(b"\x8d" + struct.pack("<Q", 2**60)), id="a text of an exabyte"),
        pytest.param(Raw(b"\x8e" + struct.pack("<Q", 2**60)), id="bytes of an exabyte"),
        pytest.param(Raw(b"\x8b" + struct.pack("<i", 2**31 - 1)), id="a number of gigabytes"),
        pytest.param(Raw(b"h\x07"), id="a memo that is empty"),
        pytest.param(Raw(b"00000"), id="a stack that is empty"),
        pytest.param(Raw(b"uuuu"), id="no mark"),
        pytest.param(Raw(b"NN"), id="two values"),
    ],
)
def test_pickles_that_ask_for_too_much_or_are_none(path, content):
    tracemalloc.start()
    refused(write_zip(path, content))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**22


@WRITERS
@pytest.mark.parametrize(
    ("how", "fragment"),
    [
        ({"offset": 1}, "reaches beyond its storage of 6 elements"),
        ({"shape": (2, 4)}, "reaches beyond its storage"),
        ({"shape": (2, 3), "strides": (4, 1)}, "reaches beyond its storage"),
        ({"shape": (2, 3), "strides": (2**40, 1)}, "reaches beyond its storage"),
        ({"shape": (0,), "offset": 7}, "reaches beyond its storage"),
        ({"offset": -1}, "cannot be right"),
        ({"shape": (2, -3)}, "cannot be right"),
        ({"shape": (2, 3), "strides": (-3, 1)}, "cannot be right"),
        ({"shape": (2, 2**62), "strides": (0, 0)}, "cannot be right"),
        ({"shape": (2.0, 3), "strides": (3, 1)}, "cannot be right"),
        ({"shape": (True, 3), "strides": (3, 1)}, "cannot be right"),
        ({"shape": (2, 3), "strides": (3,)}, "strides (3,)"),
        ({"shape": (1,) * 40}, "of shape (1, 1"),
        ({"shape": (2**24, 2), "strides": (0, 0)}, "on 6 elements"),
        ({"shape": (0, 2**40, 2**40), "strides": (0, 0, 0)}, "on 6 elements"),
        ({"size": -1}, "refers to data outside"),
        ({"size": 2**60}, "refers to data outside"),
    ],
)
def test_a_tensor_outside_of_its_storage_is_refused(path, write, how, fragment):
    refused(write(path, {"w": Tensor("0", A, **how)}), fragment)


@pytest.mark.parametrize(
    ("change", "fragment"),
    [
        (lambda entries: entries.update({"../evil": b""}), "outside of its own folder"),
        (lambda entries: entries.update({"/etc/evil": b""}), "outside of its own folder"),
        (lambda entries: entries.update({"a\\..\\evil": b""}), "outside of its own folder"),
        (lambda entries: entries.pop("data/0"), "no entry 'archive/data/0'"),
        (lambda entries: entries.pop("data.pkl"), "0 pickles `<name>/data.pkl`"),
        (lambda entries: entries.update({"../archive2/data.pkl": b""}), "outside of its own folder"),
        (lambda entries: entries.update({"data/0": b"short"}), "needs 24 bytes of storage '0' but has 5"),
        (lambda entries: entries.update({"byteorder": b"big"}), "byte order b'big'"),
        (lambda entries: entries.update({"byteorder": b"little" * 9}), "at most 16 are read"),
        (lambda entries: entries.update({"data.pkl": b""}), "not a whole PyTorch file"),
        (lambda entries: entries.update({"data.pkl": entries["data.pkl"][:-9]}), "not a whole PyTorch file"),
    ],
)
def test_a_zip_that_pytorch_did_not_write_is_refused(path, change, fragment):
    refused(write_zip(path, {"w": Tensor("0", A)}, change=change), fragment)


@pytest.mark.parametrize("name", ["data.pkl", "data/0", "byteorder"])
def test_compressed_entries_are_refused(path, name):
    refused(
        write_zip(path, {"w": Tensor("0", np.zeros(9999))}, compressed=(name,)),
        f"compressed or encrypted entry '{'archive/' + name}",
    )


def test_no_byte_order_is_little(path):
    write_zip(path, {"w": Tensor("0", A)}, change=lambda entries: entries.pop("byteorder"))
    np.testing.assert_array_equal(arrays(path)["w"], A)


def test_two_entries_of_one_name_are_refused(path):
    write_zip(path, {"w": Tensor("0", A)})
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("archive/data/0", b"x" * 24)
    refused(path, "two entries of one name")


@pytest.mark.parametrize(
    ("how", "fragment"),
    [
        ({"version": 1000}, "version 1000"),
        ({"system": {"little_endian": False}}, "big-endian"),
        ({"system": []}, "version 1001"),
        ({"keys": []}, "lists other storages"),
        ({"keys": ["0", "0"]}, "lists other storages"),
        ({"keys": [["0"]]}, "lists other storages"),
        ({"shorter": 1}, "cut off or damaged at storage '0'"),
        ({"shorter": 30}, "not a whole PyTorch file"),
    ],
)
def test_an_older_file_that_is_damaged_is_refused(path, how, fragment):
    refused(write_legacy(path, {"w": Tensor("0", A)}, **how), fragment)


def test_an_older_file_with_another_count_is_refused(path):
    write_legacy(path, {"w": Tensor("0", A)})
    path.write_bytes(path.read_bytes().replace(struct.pack("<q", 6) + A.tobytes(), struct.pack("<q", 7) + A.tobytes()))
    refused(path, "cut off or damaged at storage '0'")


@pytest.mark.parametrize(
    ("start", "fragment"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00",
            "a Git LFS pointer, not the file itself. Run `git",
        ),
        (b"\n <!DOCTYPE html><html>", "a web page"),
        (b"", "empty"),
        (b"\x89HDF\r\n\x1a\n", "starts with b'\\x89HDF"),
        (pickle.dumps({"a": 1}, 2), "starts with b'\\x80\\x02}"),
        (b"PK\x03\x04 and no more", "not a whole PyTorch file (BadZipFile"),
    ],
)
def test_what_is_no_pytorch_file_is_named(path, start, fragment):
    path.write_bytes(start)
    refused(path, fragment)


def test_a_missing_file_is_named(tmp_path):
    for path in (tmp_path, tmp_path / "none.bin"):
        with pytest.raises(FileNotFoundError, match="`path` must be a file saved by PyTorch. Received: path="):
            read_torch_file(path)


def test_pickles_have_a_limit(path, monkeypatch):
    write_zip(path, {"w": Tensor("0", A)})
    monkeypatch.setattr(torch_file, "MAX_PICKLE_BYTES", 100)
    refused(path, "'archive/data.pkl' of", "at most 100 are read")
    monkeypatch.setattr(restricted_unpickler, "MAX_OPERATIONS", 3)
    with pytest.raises(Refused, match="more than 3 operations"):
        unpickle(io.BytesIO(pickle.dumps([1, 2, 3], 2)))


def test_many_tensors(path):
    got = read_torch_file(write_zip(path, {f"w{i}": Tensor("0", A) for i in range(3000)}))
    assert len(got) == 3000


VALID = {"a": Tensor("0", A), "visual": {"b": Tensor("1", B, shape=(2, 2), strides=(0, 1))}, "steps": [3, 0.5, None]}


@pytest.fixture(scope="module", params=["zip", "legacy", "archive"])
def valid_file(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("torch") / "valid.pt"
    write = write_legacy if request.param == "legacy" else write_zip
    write(path, Module("__torch__.a.B", VALID) if request.param == "archive" else VALID)
    return path, path.read_bytes()


@settings(max_examples=300, deadline=2000)
@given(data=st.data())
def test_damage_is_an_error_or_does_not_matter(valid_file, data):
    path, good = valid_file
    damaged = bytearray(good)
    places = st.tuples(st.integers(0, len(good) - 1), st.integers(0, 255))
    for place, byte in data.draw(st.lists(places, min_size=1, max_size=4)):
        damaged[place] = byte
    cut = data.draw(st.one_of(st.none(), st.integers(0, len(good))))
    path.write_bytes(damaged[:cut])
    try:
        arrays(path)
    except CheckpointError as error:
        assert str(path) in str(error)
