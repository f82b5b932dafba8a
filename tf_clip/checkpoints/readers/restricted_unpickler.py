"""Reads the pickles inside PyTorch files without running anything: tensors and plain containers only.

A pickle is a small program. This module interprets it itself instead of handing it to `pickle`: only the
operations below exist, names are looked up in a fixed table and never imported, and whatever else a
file asks for is refused. `pickletools` does no more than split the bytes into operations.
"""

from __future__ import annotations

import dataclasses
import io
import pickletools
from collections.abc import Callable
from typing import Any

MAX_PICKLE_BYTES = 16 * 2**20
"""Far above any real file: a tensor takes about 150 bytes here, its numbers lie elsewhere."""
MAX_OPERATIONS = 4_000_000
"""One byte can ask for an object of a hundred, so the bytes alone do not bound the memory."""
_MAX_SIZE = 2**48  # so that later sums and products stay small numbers

# The torch storage classes that can be read, and the numpy dtype of their elements.
_STORAGE_DTYPES = {
    "torch.FloatStorage": "float32",
    "torch.DoubleStorage": "float64",
    "torch.HalfStorage": "float16",
    "torch.BFloat16Storage": "bfloat16",
    "torch.LongStorage": "int64",
    "torch.IntStorage": "int32",
    "torch.ShortStorage": "int16",
    "torch.CharStorage": "int8",
    "torch.ByteStorage": "uint8",
    "torch.BoolStorage": "bool",
}
# Values that carry no weight, but occur beside weights: a state of training, attributes of a module.
_TORCH_CONSTANTS = {
    f"torch.{name}"
    for name in "float32 float64 float16 bfloat16 int64 int32 int16 int8 uint8 bool strided channels_last".split()
}


class Refused(Exception):
    """What was found in a file and what to do next; the caller adds the file's name."""


@dataclasses.dataclass(frozen=True)
class Storage:
    """A run of numbers of a file: the key under which it is found, its dtype and how many there are."""

    key: str
    dtype: str
    size: int


@dataclasses.dataclass(frozen=True)
class TensorView:
    """A tensor as a view of a storage; nothing has been checked against the storage yet."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclasses.dataclass
class ScriptModule:
    """An object of a TorchScript archive: its attributes as data, without its class."""

    fields: dict[Any, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class _StorageType:
    dtype: str


@dataclasses.dataclass(frozen=True)
class _ScriptClass:
    name: str


@dataclasses.dataclass(frozen=True)
class _Function:
    """A stand-in for one of PyTorch's functions, called with what the pickle holds for that one."""

    name: str
    call: Callable[..., Any]


def shown(value: object) -> str:
    """Returns a short form of something from a file, for a message.

    Only of flat values: a file can hold texts of megabytes and nested tuples that take forever to print.
    """
    flat = isinstance(value, (str, bytes)) or _is_size(value)
    if type(value) is tuple:
        flat = all(_is_size(item) for item in value)
    text = repr(value) if flat else type(value).__name__
    return text if len(text) <= 120 else text[:120] + "..."


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value <= _MAX_SIZE


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_rest: Any) -> TensorView:
    if type(storage) is not Storage or not all(_is_size(number) for number in (offset, *shape, *strides)):
        raise Refused("holds a tensor whose storage, offset, shape or strides cannot be right. Download it again.")
    return TensorView(storage, offset, tuple(shape), tuple(strides))


def _parameter(tensor: Any, *_rest: Any) -> TensorView:
    if type(tensor) is not TensorView:
        raise Refused(f"holds a parameter that is no tensor but {shown(tensor)}. Download it again.")
    return tensor


def _ordered_dict(pairs: Any = ()) -> dict[Any, Any]:
    result: dict[Any, Any] = {}
    for key, value in pairs:
        _set_item(result, key, value)
    return result


def _first(value: Any, *_rest: Any) -> Any:
    return value


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "collections.OrderedDict": _ordered_dict,
    "torch.Size": _first,
    "torch.device": lambda *_: None,
    # How TorchScript marks the type of a list or a dict.
    "torch.jit._pickle.build_intlist": _first,
    "torch.jit._pickle.build_doublelist": _first,
    "torch.jit._pickle.build_boollist": _first,
    "torch.jit._pickle.build_tensorlist": _first,
    "torch.jit._pickle.restore_type_tag": _first,
}


def _look_up(name: str) -> object:
    """Returns the stand-in of a name of the table; nothing is imported."""
    if name in _FUNCTIONS:
        return _Function(name, _FUNCTIONS[name])
    if name in _STORAGE_DTYPES:
        return _StorageType(_STORAGE_DTYPES[name])
    if name in _TORCH_CONSTANTS:
        return None
    if name.startswith("__torch__."):
        return _ScriptClass(name)
    raise Refused(
        f"holds more than tensors and plain containers; to read it would run code: {shown(name)}. Nothing was run. "
        "Save `model.state_dict()` alone or as safetensors where the file comes from, or use "
        "another file of the checkpoint."
    )


def _set_item(target: Any, key: Any, value: Any) -> None:
    # Tuples as keys would be hashed, which nested ones can make endless.
    if type(target) is not dict or not isinstance(key, (str, int, float, bytes, type(None))):
        raise Refused(f"sets the entry {shown(key)} of a {shown(target)}, which is no plain dict. Download it again.")
    target[key] = value


def _storage(identity: Any) -> Storage:
    if type(identity) is tuple and len(identity) in (5, 6):
        kind, storage_type, key, _device, size, *view = identity
        if kind == "storage" and type(storage_type) is _StorageType and view in ([], [None]):
            if type(key) is str and _is_size(size):
                return Storage(key, storage_type.dtype, size)
    raise Refused(
        "refers to data outside of its pickle in a way that no current PyTorch does. Load it with PyTorch and save "
        "`model.state_dict()` anew."
    )


_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
}
_LITERALS = set(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINSTRING SHORT_BINSTRING UNICODE BINUNICODE "
    "SHORT_BINUNICODE BINUNICODE8 BINBYTES SHORT_BINBYTES BINBYTES8".split()
)
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class _Machine:
    """Runs the operations of one pickle on a stack, as the format defines them."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks under each open MARK
        self.memo: dict[int, Any] = {}  # not a list: a file chooses the numbers
        self.storages: dict[str, Storage] = {}

    def step(self, operation: str, argument: Any) -> None:
        """Runs one operation."""
        if operation in _LITERALS:
            self.stack.append(argument)
        elif operation in _CONSTANTS:
            self.stack.append(_CONSTANTS[operation]())
        elif operation in ("BINPUT", "LONG_BINPUT", "PUT"):
            self.memo[argument] = self.stack[-1]
        elif operation == "MEMOIZE":
            self.memo[len(self.memo)] = self.stack[-1]
        elif operation in ("BINGET", "LONG_BINGET", "GET"):
            self.stack.append(self.memo[argument])
        elif operation == "GLOBAL":
            self.stack.append(_look_up(argument.replace(" ", ".", 1)))
        elif operation == "STACK_GLOBAL":
            name = self.stack.pop()
            self.stack.append(_look_up(f"{self.stack.pop()}.{name}"))
        elif operation == "BINPERSID":
            self._persistent()
        elif operation in ("REDUCE", "NEWOBJ", "BUILD"):
            self._object(operation)
        elif operation not in ("PROTO", "FRAME", "STOP"):
            self._container(operation)

    def _container(self, operation: str) -> None:
        if operation == "MARK":
            self.below.append(self.stack)
            self.stack = []
        elif operation in _TUPLES:
            count = _TUPLES[operation]
            items = self.stack[-count:]
            del self.stack[-count:]
            self.stack.append(tuple(items))
        elif operation == "POP":
            self.stack.pop()
        elif operation in ("APPEND", "SETITEM"):
            count = 1 if operation == "APPEND" else 2
            items = self.stack[-count:]
            del self.stack[-count:]
            self._extend(operation, items)
        elif operation in ("TUPLE", "LIST", "DICT", "POP_MARK", "APPENDS", "SETITEMS"):
            items, self.stack = self.stack, self.below.pop()
            if operation == "TUPLE":
                self.stack.append(tuple(items))
            elif operation in ("LIST", "DICT"):
                self.stack.append([] if operation == "LIST" else {})
                self._extend("APPENDS" if operation == "LIST" else "SETITEMS", items)
            elif operation != "POP_MARK":
                self._extend(operation, items)
        else:
            raise Refused(
                f"uses the pickle operation {operation}, which no file of tensors needs. Nothing was run. Get the "
                "checkpoint from a place that you trust, best as safetensors."
            )

    def _extend(self, operation: str, items: list[Any]) -> None:
        target = self.stack[-1]
        if operation.startswith("SETITEM"):
            for key, value in zip(items[::2], items[1::2], strict=True):
                _set_item(target, key, value)
        elif type(target) is list:
            target.extend(items)
        else:
            raise Refused(f"appends to a {shown(target)}, which is no list. Download it again.")

    def _persistent(self) -> None:
        storage = _storage(self.stack.pop())
        if self.storages.setdefault(storage.key, storage) != storage:
            raise Refused(
                f"describes the storage {shown(storage.key)} in two ways. Load it with PyTorch and save "
                "`model.state_dict()` anew."
            )
        self.stack.append(storage)

    def _object(self, operation: str) -> None:
        """Calls a function of the table, makes a module's object or gives it its attributes."""
        argument, target = self.stack.pop(), self.stack.pop()
        if operation == "REDUCE" and type(target) is _Function and type(argument) is tuple:
            self.stack.append(target.call(*argument))
        elif operation == "NEWOBJ" and type(target) is _ScriptClass and argument == ():
            self.stack.append(ScriptModule())
        elif operation == "BUILD" and type(target) is ScriptModule and type(argument) is dict:
            target.fields = argument
            self.stack.append(target)
        elif operation == "BUILD" and type(target) is dict:
            self.stack.append(target)  # attributes of an OrderedDict, such as a state dict's versions
        else:
            raise Refused(
                f"applies {operation} to a {shown(target)}, which no file of tensors needs. Nothing was run. Get the "
                "checkpoint from a place that you trust, best as safetensors."
            )


def unpickle(data: io.BytesIO) -> tuple[Any, dict[str, Storage]]:
    """Reads one pickle, up to its end, and leaves the stream there.

    Args:
        data: a stream in memory, of at most `MAX_PICKLE_BYTES`, so that no length in it can ask for more.

    Returns:
        What it holds, made of dicts, lists, tuples, numbers, texts, `TensorView` and `ScriptModule`; and
        the storages it refers to, by key. A container may contain itself.

    Raises:
        Refused: it holds anything else.
        Exception: of many kinds, where the bytes are no pickle at all.
    """
    machine = _Machine()
    for count, (operation, argument, _position) in enumerate(pickletools.genops(data)):
        if count >= MAX_OPERATIONS:
            raise Refused(f"has a pickle of more than {MAX_OPERATIONS} operations. Save `model.state_dict()` alone.")
        machine.step(operation.name, argument)
    (result,) = machine.stack
    return result, machine.storages
