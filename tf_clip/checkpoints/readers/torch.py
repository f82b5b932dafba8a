"""Reads files saved by PyTorch, without PyTorch and without running what a pickle could run.

Three layouts: the zip of `torch.save`, the same zip around a TorchScript archive, and the stream
that `torch.save` wrote before version 1.6.
"""

from __future__ import annotations

import dataclasses
import io
import itertools
import math
import os
import struct
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tf_clip.checkpoints.errors import CheckpointError
from tf_clip.checkpoints.readers.restricted_unpickler import (
    MAX_PICKLE_BYTES,
    Refused,
    ScriptModule,
    TensorView,
    shown,
    unpickle,
)
from tf_clip.checkpoints.readers.stored import Array, FileRegion, StoredTensor, numpy_dtype

_ZIP_START = b"PK\x03\x04"
# The number 0x1950a86a20f9469cfc6c as a pickle of its own, then the version 1001.
_LEGACY_START = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."
_LEGACY_VERSION = 1001

_MAX_DEPTH = 100
_MAX_VALUES = 1_000_000
_MAX_NAME = 1000
_MAX_AXES = 32
_MAX_REPEATED = 2**24  # elements of a tensor that uses some elements of its storage repeatedly

_DAMAGED = "Download it again."
_SAVE_ANEW = "Load it with a current PyTorch and save `model.state_dict()` anew."


@dataclasses.dataclass(frozen=True)
class _Extent:
    """Where a storage's bytes lie in the file."""

    offset: int
    length: int


def read_torch_file(path: str | Path) -> dict[str, StoredTensor]:
    """Reads the names, shapes and dtypes of a PyTorch file; the numbers stay there until they are loaded.

    Takes what `torch.save` writes, now and before version 1.6, and TorchScript archives such as
    OpenAI's `.pt` files. Nested dicts, lists and modules are flattened into dotted names; what is no
    tensor is dropped. Of a training checkpoint, a dict under `"state_dict"` or else `"model"` is read
    alone when it holds tensors. A prefix `module.` that all names share, as DistributedDataParallel
    adds, is removed. An archive does not tell buffers from other tensor attributes, so all are returned.

    Args:
        path: the file.

    Returns:
        From a tensor's name to the tensor, in the file's order. Tensors can share a storage, and an
        array can be read-only.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: it is no PyTorch file, is damaged or holds anything but tensors and plain
            containers.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"`path` must be a file saved by PyTorch. Received: path={str(path)!r}, which is none. Check its spelling."
        )
    try:
        with path.open("rb") as file:
            start = file.read(512)
            if start.startswith(_ZIP_START):
                content, extents = _read_zip(file)
            elif start.startswith(_LEGACY_START):
                content, extents = _read_legacy(file)
            else:
                raise Refused(_what_it_is(start))
        views = _without_wrapping(_named_tensors(_weights(content)))
        for name, view in views.items():
            _check_view(name, view)
        return {name: _stored(path, view, extents[view.storage.key]) for name, view in views.items()}
    except Refused as error:
        raise CheckpointError(f"{path} {error}") from error
    except Exception as error:  # bytes at random can fail anywhere in zipfile and pickletools, in any way
        reason = f"{type(error).__name__}: {error}"[:200]
        raise CheckpointError(f"{path} is not a whole PyTorch file ({reason}). {_DAMAGED}") from error


def _what_it_is(start: bytes) -> str:
    if start.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer, not the file itself. Run `git lfs pull` in its repository, or download the file."
    if start.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"<":
        return "is a web page, not a PyTorch file. Download the file itself and look at what the page says."
    if not start:
        return f"must be a PyTorch file, but is empty. {_DAMAGED}"
    return (
        f"must be a PyTorch file: a zip file or one of the older layout. It starts with {start[:16]!r}. Check which "
        "format it has, or save `model.state_dict()` with `torch.save`."
    )


def _read_zip(file: BinaryIO) -> tuple[Any, dict[str, _Extent]]:
    """Returns what `data.pkl` of an archive holds, and where the storages lie that it refers to."""
    with zipfile.ZipFile(file) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        if len(entries) != len(archive.infolist()):
            raise Refused(f"has two entries of one name. {_SAVE_ANEW}")
    # Nothing is ever unpacked, but such a name shows that no PyTorch wrote the file.
    for name in entries:
        if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/") or ":" in name.split("/")[0]:
            raise Refused(f"has an entry outside of its own folder, {shown(name)}. Get it from a place that you trust.")
    roots = [name.removesuffix("data.pkl") for name in entries if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(roots) != 1:
        raise Refused(
            f"is a zip file with {len(roots)} pickles `<name>/data.pkl`, where PyTorch writes one. {_DAMAGED}"
        )
    order = _small_entry(file, entries, f"{roots[0]}byteorder", 16) if f"{roots[0]}byteorder" in entries else b"little"
    if order != b"little":
        raise Refused(f"has the byte order {order!r}; only little is read. Save it anew on a little-endian machine.")
    content, storages = unpickle(io.BytesIO(_small_entry(file, entries, f"{roots[0]}data.pkl", MAX_PICKLE_BYTES)))
    extents = {}
    for storage in storages.values():
        extents[storage.key] = extent = _entry_extent(file, entries, f"{roots[0]}data/{storage.key}")
        needed = storage.size * numpy_dtype(storage.dtype).itemsize
        if extent.length < needed:
            raise Refused(f"needs {needed} bytes of storage {shown(storage.key)} but has {extent.length}. {_DAMAGED}")
    return content, extents


def _entry_extent(file: BinaryIO, entries: dict[str, zipfile.ZipInfo], name: str) -> _Extent:
    """Returns where an entry's bytes lie: as they are, so that they can be read without unpacking."""
    entry = entries.get(name)
    if entry is None:
        raise Refused(f"has no entry {shown(name)}, which its pickle refers to. {_DAMAGED}")
    if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 or entry.file_size != entry.compress_size:
        raise Refused(f"has a compressed or encrypted entry {shown(name)}, which PyTorch never writes. {_SAVE_ANEW}")
    # The length of the entry's own header is known only there.
    file.seek(entry.header_offset)
    signature, name_length, extra_length = struct.unpack("<4s22xHH", file.read(30))
    extent = _Extent(entry.header_offset + 30 + name_length + extra_length, entry.file_size)
    if signature != _ZIP_START or extent.offset + extent.length > os.fstat(file.fileno()).st_size:
        raise Refused(f"is cut off or damaged: the entry {shown(name)} is not where it should be. {_DAMAGED}")
    return extent


def _small_entry(file: BinaryIO, entries: dict[str, zipfile.ZipInfo], name: str, limit: int) -> bytes:
    extent = _entry_extent(file, entries, name)
    if extent.length > limit:
        raise Refused(
            f"has an entry {shown(name)} of {extent.length} bytes; at most {limit} are read. Save `model.state_dict()` "
            "alone, without the state of training."
        )
    file.seek(extent.offset)
    return file.read(extent.length)


def _read_legacy(file: BinaryIO) -> tuple[Any, dict[str, _Extent]]:
    """Returns what an older file's pickle holds, and where the storages lie that follow it."""
    file.seek(0)
    head = io.BytesIO(file.read(MAX_PICKLE_BYTES))
    _magic, (version, _), (system, _), (content, storages), (keys, _) = (unpickle(head) for _ in range(5))
    if version != _LEGACY_VERSION or type(system) is not dict or type(keys) is not list:
        raise Refused(
            f"is of version {shown(version)} of the older layout; only {_LEGACY_VERSION} is read. {_SAVE_ANEW}"
        )
    if system.get("little_endian") is not True:
        raise Refused("was saved on a big-endian machine. Save it anew on a little-endian one.")
    if not all(type(key) is str for key in keys) or sorted(keys) != sorted(storages):
        raise Refused(f"lists other storages than its pickle refers to. {_DAMAGED}")
    end = os.fstat(file.fileno()).st_size
    offset = head.tell()
    extents = {}
    for key in keys:
        storage = storages[key]
        file.seek(offset)
        (size,) = struct.unpack("<q", file.read(8))
        extents[key] = extent = _Extent(offset + 8, storage.size * numpy_dtype(storage.dtype).itemsize)
        offset = extent.offset + extent.length
        if size != storage.size or offset > end:
            raise Refused(f"is cut off or damaged at storage {shown(key)} of {storage.size} elements. {_DAMAGED}")
    return content, extents


def _weights(content: Any) -> Any:
    """Returns the weights of a training checkpoint, or all of what another file holds."""
    if type(content) is dict:
        for key in ("state_dict", "model"):
            inner = content.get(key)
            if isinstance(inner, (dict, ScriptModule)) and next(_tensors(inner), None):
                return inner
    elif type(content) is not ScriptModule:
        raise Refused(f"must hold a dict of tensors or a module. It holds: {type(content).__name__}. {_SAVE_ANEW}")
    return content


def _named_tensors(content: Any) -> dict[str, TensorView]:
    named: dict[str, TensorView] = {}
    for name, view in _tensors(content):
        if name in named:
            raise Refused(f"has two tensors of the name {shown(name)}. {_SAVE_ANEW}")
        named[name] = view
    if not named:
        raise Refused("holds no tensors. Check that it is the file with the weights.")
    return named


def _tensors(content: Any) -> Iterator[tuple[str, TensorView]]:
    """Yields every tensor in nested containers with its dotted name."""
    # Containers that hold each other twice over are few in the file, yet have no end of paths through them.
    seen = itertools.count()

    def walk(value: Any, name: str, depth: int) -> Iterator[tuple[str, TensorView]]:
        if depth > _MAX_DEPTH or len(name) > _MAX_NAME or next(seen) > _MAX_VALUES:
            raise Refused(f"has containers within containers without end, at {shown(name)}. {_SAVE_ANEW}")
        items: Iterable[tuple[Any, Any]] = ()
        if type(value) is TensorView:
            yield name, value
        elif type(value) is ScriptModule:
            items = value.fields.items()
        elif type(value) is dict:
            items = value.items()
        elif type(value) in (list, tuple):
            items = enumerate(value)
        for key, item in items:
            yield from walk(item, f"{name}.{key}" if name else str(key), depth + 1)

    return walk(content, "", 0)


def _without_wrapping(named: dict[str, TensorView]) -> dict[str, TensorView]:
    if all(name.startswith("module.") for name in named):
        return {name.removeprefix("module."): view for name, view in named.items()}
    return named


def _check_view(name: str, view: TensorView) -> None:
    """Refuses a tensor that does not lie within its storage."""
    shape, strides, storage = view.shape, view.strides, view.storage
    if len(shape) != len(strides) or len(shape) > _MAX_AXES:
        raise Refused(f"has a tensor {shown(name)} of shape {shown(shape)} and strides {shown(strides)}. {_DAMAGED}")
    if view.offset + _span(view) > storage.size:
        raise Refused(
            f"has a tensor {shown(name)} that reaches beyond its storage of {storage.size} elements: shape "
            f"{shown(shape)}, strides {shown(strides)}, offset {shown(view.offset)}. {_DAMAGED}"
        )
    # Of axes with stride 0, which would take any size.
    if math.prod(size or 1 for size in shape) > max(storage.size, _MAX_REPEATED):
        raise Refused(f"has a tensor {shown(name)} of shape {shown(shape)} on {storage.size} elements. {_DAMAGED}")


def _span(view: TensorView) -> int:
    """Returns how many elements of the storage lie between a tensor's first and last, both included."""
    if 0 in view.shape:
        return 0
    return 1 + sum((size - 1) * stride for size, stride in zip(view.shape, view.strides, strict=True))


def _stored(path: Path, view: TensorView, extent: _Extent) -> StoredTensor:
    dtype = numpy_dtype(view.storage.dtype)
    start = extent.offset + view.offset * dtype.itemsize
    if _is_in_order(view):
        region = FileRegion(path, start, view.shape, view.storage.dtype)
        return StoredTensor(view.shape, view.storage.dtype, region)

    def load() -> Array:
        elements = FileRegion(path, start, (_span(view),), view.storage.dtype)()  # only what the tensor spans
        strides = [stride * dtype.itemsize for stride in view.strides]
        return np.lib.stride_tricks.as_strided(elements, view.shape, strides, writeable=False)

    return StoredTensor(view.shape, view.storage.dtype, load)


def _is_in_order(view: TensorView) -> bool:
    if 0 in view.shape:
        return True
    step = 1
    for size, stride in reversed(list(zip(view.shape, view.strides, strict=True))):
        if size != 1 and stride != step:
            return False
        step *= size
    return True
