"""Named tensors through a pipe, in bytes that Python, C and JavaScript read alike.

All numbers are little-endian. A request is the signature's name, the number of inputs, the inputs, the number of
outputs and their names; an answer is a byte that is 0, the number of outputs and the outputs, or a byte that is 1
and a message. A string is its length as uint32 and its bytes; a tensor is its name, TensorFlow's number for its
dtype as int32, its rank as uint32, its lengths as int64, and its values, or for strings each string.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

DTYPES: dict[int, Any] = {1: np.dtype("float32"), 3: np.dtype("int32"), 4: np.dtype("uint8"), 7: np.dtype(object)}
NUMBERS = {dtype: number for number, dtype in DTYPES.items()}


def write_string(stream: Any, data: bytes) -> None:
    stream.write(struct.pack("<I", len(data)) + data)


def read_string(stream: Any) -> Any:
    return _exactly(stream, struct.unpack("<I", _exactly(stream, 4))[0])


def write_tensor(stream: Any, name: str, array: Any) -> None:
    write_string(stream, name.encode())
    stream.write(struct.pack("<iI", NUMBERS[array.dtype], array.ndim))
    stream.write(struct.pack(f"<{array.ndim}q", *array.shape))
    if array.dtype == object:
        for element in array.flat:
            write_string(stream, element)
    else:
        stream.write(np.ascontiguousarray(array).tobytes())


def read_tensor(stream: Any) -> Any:
    name = read_string(stream).decode()
    number, rank = struct.unpack("<iI", _exactly(stream, 8))
    shape = struct.unpack(f"<{rank}q", _exactly(stream, 8 * rank))
    dtype, count = DTYPES[number], int(np.prod(shape))
    if dtype.kind == "O":
        values = np.array([read_string(stream) for _ in range(count)] + [None], object)[:-1]
    else:
        values = np.frombuffer(_exactly(stream, count * dtype.itemsize), dtype)
    return name, values.reshape(shape)


def write_request(stream: Any, signature: str, inputs: Any, outputs: Any) -> None:
    write_string(stream, signature.encode())
    stream.write(struct.pack("<I", len(inputs)))
    for name, array in inputs.items():
        write_tensor(stream, name, array)
    stream.write(struct.pack("<I", len(outputs)))
    for name in outputs:
        write_string(stream, name.encode())
    stream.flush()


def read_request(stream: Any) -> Any:
    """Returns a signature, its inputs and the outputs wanted, or None when the pipe has been closed."""
    head = stream.read(4)
    if not head:
        return None
    signature = _exactly(stream, struct.unpack("<I", head)[0]).decode()
    inputs = dict(read_tensor(stream) for _ in range(struct.unpack("<I", _exactly(stream, 4))[0]))
    count = struct.unpack("<I", _exactly(stream, 4))[0]
    return signature, inputs, [read_string(stream).decode() for _ in range(count)]


def write_answer(stream: Any, outputs: Any) -> None:
    stream.write(b"\0" + struct.pack("<I", len(outputs)))
    for name, array in outputs.items():
        write_tensor(stream, name, array)
    stream.flush()


def write_error(stream: Any, message: str) -> None:
    stream.write(b"\1")
    write_string(stream, message.encode())
    stream.flush()


def read_answer(stream: Any) -> Any:
    """Returns the outputs.

    Raises:
        RuntimeError: with the other side's message, when it has failed.
    """
    if _exactly(stream, 1) == b"\1":
        raise RuntimeError(read_string(stream).decode())
    return dict(read_tensor(stream) for _ in range(struct.unpack("<I", _exactly(stream, 4))[0]))


def _exactly(stream: Any, count: int) -> Any:
    data = stream.read(count)
    if len(data) != count:
        raise EOFError("the other side has ended")
    return data
