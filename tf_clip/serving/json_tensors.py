"""Tensors as JSON: requests in TensorFlow Serving's row and column form, and the answers to them.

Row form is `{"instances": [row, ...]}`, answered by `{"predictions": [row, ...]}`; column form is
`{"inputs": {name: tensor}}`, answered by `{"outputs": {name: tensor}}`. With one input or one output its name is
left out. Bytes are `{"b64": "..."}`, under any input's name and under outputs whose name ends in `_bytes`.

Source: TensorFlow Serving's RESTful API. One difference: a key that nothing reads is an error.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import numpy as np
import orjson

from tf_clip.serving.errors import RequestError, shown
from tf_clip.serving.loaded_version import Arrays, Signature, TensorKind

DEFAULT_SIGNATURE = "serving_default"


def read_request(body: bytes | bytearray, signature_of: Callable[[str], Signature]) -> tuple[Signature, Arrays, bool]:
    """Reads a request's JSON.

    Args:
        body: as it was received.
        signature_of: gives the signature of a name.

    Returns:
        The signature asked for; an array for each of its inputs, of the input's dtype, with shapes not checked yet;
        and whether the request is in row form.

    Raises:
        RequestError: 400, when the body is not JSON in UTF-8 or in neither form, when there is no such signature, when
            names are missing or unknown, or when values are not of the input's dtype.
    """
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(400, f"the body must be JSON in UTF-8: {error}") from error
    if not isinstance(content, dict) or len({"instances", "inputs"} & content.keys()) != 1:
        raise RequestError(400, 'the body must be an object with either "instances" (rows) or "inputs" (columns)')
    unread = content.keys() - {"instances", "inputs", "signature_name"}
    if unread:
        raise RequestError(400, f"the body must have no other keys, received {shown(min(unread))}")
    name = content.get("signature_name", DEFAULT_SIGNATURE)
    if not isinstance(name, str):
        raise RequestError(400, f"`signature_name` must be a string, received {shown(name)}")
    signature = signature_of(name)
    in_rows = "instances" in content
    columns = _columns(content["instances"], signature) if in_rows else _named(content["inputs"], signature)
    return signature, {key: _array(key, columns[key], kind) for key, kind in signature.inputs.items()}, in_rows


def to_json(outputs: Arrays, in_rows: bool) -> bytes:
    """Returns an answer as JSON.

    Args:
        outputs: the model's.
        in_rows: the form of the request, and so of the answer.

    Raises:
        RequestError: 400, when row form is asked for and the outputs have different numbers of rows, or none.
    """
    if in_rows and (len({array.shape[:1] for array in outputs.values()}) > 1 or not next(iter(outputs.values())).ndim):
        raise RequestError(400, 'this signature must be asked in column form ("inputs"): its outputs have no rows')
    columns = {name: _strings_out(name, array) if array.dtype == object else array for name, array in outputs.items()}
    values: Any = columns
    if len(columns) == 1:
        (values,) = columns.values()
    elif in_rows:
        values = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    content = {"predictions" if in_rows else "outputs": values}
    answer: bytes = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    return answer


def _columns(rows: Any, signature: Signature) -> dict[str, Any]:
    if not isinstance(rows, list) or not rows:
        raise RequestError(400, f'"instances" must be a list of rows, at least one, received {shown(rows)}')
    named = [_named(row, signature) for row in rows]
    return {name: [row[name] for row in named] for name in signature.inputs}


def _named(value: Any, signature: Signature) -> dict[str, Any]:
    """Returns values by input name; a signature with one input may leave the name out."""
    names = signature.inputs.keys()
    if len(names) == 1 and (not isinstance(value, dict) or (value.keys() == {"b64"} and "b64" not in names)):
        return dict.fromkeys(names, value)
    if not isinstance(value, dict) or value.keys() != names:
        received = f"names {shown(list(value))}" if isinstance(value, dict) else shown(value)
        raise RequestError(400, f"the inputs must be an object of {', '.join(names)}, received {received}")
    return value


def _array(name: str, value: Any, kind: TensorKind) -> np.ndarray:
    try:
        if kind.dtype == object:
            return np.array(_strings_in(value, len(kind.shape)), dtype=object)
        return _numbers(value, kind.dtype)
    except (ValueError, TypeError, OverflowError) as error:
        raise RequestError(400, f"`{name}` must be {kind}, received {shown(value)} ({error})") from error


def _strings_in(value: Any, rank: int) -> Any:
    if rank:
        if not isinstance(value, list):
            raise TypeError("not a list")
        return [_strings_in(element, rank - 1) for element in value]
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, dict) and value.keys() == {"b64"} and isinstance(value["b64"], str):
        return base64.b64decode(value["b64"], validate=True)
    raise TypeError('neither a string nor {"b64": "..."}')


def _numbers(value: Any, dtype: np.dtype) -> np.ndarray:
    try:
        array = np.array(value)
    except ValueError as error:
        raise ValueError("rows of different lengths") from error
    if array.dtype.kind not in {"f": "fiu", "i": "iu", "u": "iu", "b": "b"}.get(dtype.kind, ""):
        raise TypeError("not all of it numbers of that kind")
    if dtype.kind in "iu" and array.size:
        range_of = np.iinfo(dtype)
        if array.min() < range_of.min or array.max() > range_of.max:
            raise OverflowError(f"not all of it within {range_of.min}..{range_of.max}")
    return array.astype(dtype)


def _strings_out(name: str, array: np.ndarray) -> Any:
    def as_json(element: bytes) -> Any:
        return {"b64": base64.b64encode(element).decode()} if name.endswith("_bytes") else element.decode()

    return np.asarray(np.frompyfunc(as_json, 1, 1)(array), object).tolist()
