"""Writes files in PyTorch's layouts without PyTorch, honest ones and others."""

from __future__ import annotations

import dataclasses
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

STORAGE_TYPES = {
    "float32": "Float",
    "float64": "Double",
    "float16": "Half",
    "bfloat16": "BFloat16",
    "int64": "Long",
    "int32": "Int",
    "int16": "Short",
    "int8": "Char",
    "uint8": "Byte",
    "bool": "Bool",
}
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
SYSTEM = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}


@dataclasses.dataclass
class Raw:
    """Operations of a pickle, as they are."""

    operations: bytes


@dataclasses.dataclass
class Call:
    """A function's name, `module.name`, and what it is called with."""

    function: str
    arguments: Any


@dataclasses.dataclass
class Module:
    """A module of a TorchScript archive."""

    name: str
    fields: Any


@dataclasses.dataclass
class Tensor:
    """A view of a storage; of all of it, in the array's shape, unless told otherwise. Same key: same storage."""

    key: str
    array: np.ndarray
    offset: Any = 0
    shape: Any = None
    strides: Any = None
    size: Any = None
    function: str = "torch._utils._rebuild_tensor_v2"


def name_of(dotted: Any) -> Any:
    module, _, name = dotted.rpartition(".")
    return f"c{module}\n{name}\n".encode()


def operations(value: Any, storages: Any) -> Any:
    """Returns the operations that leave a value on the stack; collects storages by key."""

    def of(item: Any) -> Any:
        return operations(item, storages)

    if isinstance(value, Raw):
        return value.operations
    if value is None or isinstance(value, bool):
        return {None: b"N", True: b"\x88", False: b"\x89"}[value]
    if isinstance(value, str):
        return b"X" + struct.pack("<I", len(value.encode())) + value.encode()
    if isinstance(value, int):
        encoded = pickle.encode_long(value)
        return b"\x8a" + bytes([len(encoded)]) + encoded
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    if isinstance(value, tuple):
        return b"(" + b"".join(map(of, value)) + b"t"
    if isinstance(value, list):
        return b"](" + b"".join(map(of, value)) + b"e"
    if isinstance(value, dict):
        return b"}(" + b"".join(of(part) for item in value.items() for part in item) + b"u"
    if isinstance(value, Call):
        return name_of(value.function) + of(value.arguments) + b"R"
    if isinstance(value, Module):
        return name_of(value.name) + b")\x81" + of(value.fields) + b"b"
    storages[value.key] = value.array
    storage_type = Raw(name_of(f"torch.{STORAGE_TYPES[value.array.dtype.name]}Storage"))
    size = value.array.size if value.size is None else value.size
    storage = Raw(of(("storage", storage_type, value.key, "cpu", size)) + b"Q")
    shape = value.array.shape if value.shape is None else value.shape
    if value.strides is None:
        value.strides = tuple(int(np.prod(shape[axis + 1 :])) for axis in range(len(shape)))
    return of(
        Call(value.function, (storage, value.offset, shape, value.strides, False, Call("collections.OrderedDict", ())))
    )


def pickled(value: Any, storages: Any = None) -> Any:
    return b"\x80\x02" + operations(value, {} if storages is None else storages) + b"."


def write_zip(path: Path, content: Any, *, root: Any = "archive", change: Any = None, compressed: Any = ()) -> Any:
    """Writes an archive; `change` may alter its entries, a dict from name to bytes."""
    storages: dict[str, Any] = {}
    entries = {"data.pkl": pickled(content, storages), "byteorder": b"little", "version": b"3\n"}
    entries |= {f"data/{key}": array.tobytes() for key, array in storages.items()}
    if change:
        change(entries)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            method = zipfile.ZIP_DEFLATED if name in compressed else zipfile.ZIP_STORED
            archive.writestr(name if name.startswith(("/", "..")) else f"{root}/{name}", data, method)
    return path


def write_legacy(
    path: Path, content: Any, *, version: int = 1001, system: Any = SYSTEM, keys: Any = None, shorter: Any = 0
) -> Any:
    """Writes the layout from before PyTorch 1.6."""
    storages: dict[str, Any] = {}
    parts = [
        pickled(LEGACY_MAGIC),
        pickled(version),
        pickled(system),
        pickled(content, storages),
        pickled(sorted(storages) if keys is None else keys),
    ]
    for _, array in sorted(storages.items()):
        parts += [struct.pack("<q", array.size), array.tobytes()]
    data = b"".join(parts)
    path.write_bytes(data[: len(data) - shorter])
    return path
