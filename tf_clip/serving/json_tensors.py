"""Tensors as JSON: requests in TensorFlow Serving's row and column form, and the answers to them.

Row form is `{"instances": [row, ...]}`, answered by `{"predictions": [row, ...]}`; column form is
`{"inputs": {name: tensor}}`, answered by `{"outputs": {name: tensor}}`. With one input or one output its name is
left out. Bytes are `{"b64": "..."}`, under any input's name and under outputs whose name ends in `_bytes`.

Source: TensorFlow Serving's RESTful API. One difference: a key that nothing reads is an error.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from tf_clip.serving.errors import RequestError, shown
from tf_clip.serving.loaded_version import Arrays, Signature, TensorKind

DEFAULT_SIGNATURE = "serving_default"


@dataclass(frozen=True)
class Body:
    """A request's JSON, before it is known what the signature takes.

    Args:
        signature_name: the signature asked for.
        in_rows: whether it is in row form.
        value: the rows, or the columns.
    """

    signature_name: str
    in_rows: bool
    value: Any


def read_body(body: bytes) -> Body:
    """Reads a request's JSON.

    Args:
        body: as it came.

    Returns:
        Its parts.

    Raises:
        RequestError: 400, when it is not JSON in UTF-8, or not of row or column form.
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
    in_rows = "instances" in content
    return Body(name, in_rows, content["instances" if in_rows else "inputs"])


def to_arrays(body: Body, signature: Signature) -> Arrays:
    """Returns a request's tensors.

    Args:
        body: a request.
        signature: the one it asks for.

    Returns:
        An array for each input, of its dtype; lengths are not checked yet.

    Raises:
        RequestError: 400, when names are missing or unknown, or values are not of the input's dtype.
    """
    columns = _columns_of_rows(body.value, signature) if body.in_rows else _named(body.value, signature)
    return {name: _array(name, columns[name], kind) for name, kind in signature.inputs.items()}


def to_json(outputs: Arrays, in_rows: bool) -> bytes:
    """Returns an answer.

    Args:
        outputs: what the model gave.
        in_rows: the form the request came in.

    Returns:
        JSON.

    Raises:
        RequestError: 400, when the outputs have no rows in common to be given in row form.
    """
    values = {name: _strings_out(name, array) if array.dtype == object else array for name, array in outputs.items()}
    content: dict[str, Any]
    if not in_rows:
        content = {"outputs": values if len(values) > 1 else next(iter(values.values()))}
    else:
        counts = {array.shape[:1] for array in outputs.values()}
        if len(counts) > 1 or () in counts:
            raise RequestError(400, 'this signature must be asked in column form ("inputs"): its outputs have no rows')
        if len(values) > 1:
            rows = zip(*values.values(), strict=True)
            content = {"predictions": [dict(zip(values, row, strict=True)) for row in rows]}
        else:
            content = {"predictions": next(iter(values.values()))}
    answer: bytes = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    return answer


def _columns_of_rows(rows: Any, signature: Signature) -> dict[str, Any]:
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
    except (ValueError, TypeError, OverflowError, binascii.Error) as error:
        raise RequestError(400, f"`{name}` must be {kind}, received {shown(value)} ({error})") from error


def _strings_in(value: Any, rank: int) -> Any:
    if rank:
        if not isinstance(value, list):
            raise TypeError("not a list")
        return [_strings_in(element, rank - 1) for element in value]
    if isinstance(value, str):
        return value.encode("utf-8")
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
    if array.ndim:
        return [
            _strings_out(name, element) if isinstance(element, np.ndarray) else _text(name, element)
            for element in array
        ]
    return _text(name, array.item())


def _text(name: str, element: bytes) -> Any:
    if name.endswith("_bytes"):
        return {"b64": base64.b64encode(element).decode("ascii")}
    return element.decode("utf-8")
