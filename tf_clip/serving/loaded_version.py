"""One version of a model: a SavedModel that bare TensorFlow has loaded, and its signatures' inputs and outputs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from google.protobuf.json_format import MessageToDict

from tf_clip.serving.errors import RequestError, shown

Arrays = dict[str, np.ndarray]

DESCRIPTION = Path("assets.extra", "tf_clip.json")


@dataclass(frozen=True)
class TensorKind:
    """The dtype and shape of a named input or output.

    Args:
        dtype: NumPy's; `object` stands for strings, whose elements are bytes.
        shape: None where a length is free.
    """

    dtype: np.dtype
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        lengths = ", ".join("n" if length is None else str(length) for length in self.shape)
        return f"{self.dtype_name} [{lengths}]"

    @property
    def dtype_name(self) -> str:
        """TensorFlow's name of the dtype."""
        return "string" if self.dtype == object else self.dtype.name

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Says whether an array of this shape is valid here."""
        return len(shape) == len(self.shape) and all(
            own in (None, given) for own, given in zip(self.shape, shape, strict=True)
        )


class Signature:
    """One named function of a version.

    Args:
        name: its name in requests.
        definition: its SignatureDef.
        session: the session that runs it.
        batchable: whether rows of several requests may be run together and the answers cut apart.

    Raises:
        ValueError: when an input or output has no known rank.
    """

    def __init__(self, name: str, definition: Any, session: Any, *, batchable: bool) -> None:
        self.name = name
        self.batchable = batchable
        self.inputs = {key: _kind(name, key, info) for key, info in definition.inputs.items()}
        self.outputs = {key: _kind(name, key, info) for key, info in definition.outputs.items()}
        self._run = session.make_callable(
            [definition.outputs[key].name for key in self.outputs], [definition.inputs[key].name for key in self.inputs]
        )

    def run(self, inputs: Mapping[str, np.ndarray]) -> Arrays:
        """Computes the outputs.

        Args:
            inputs: an array for each name in `inputs`, of its kind.

        Returns:
            An array for each name in `outputs`.

        Raises:
            RequestError: when the model refuses the input (400), or the machine has no room for it (503).
        """
        try:
            outputs = self._run(*(inputs[name] for name in self.inputs))
        except tf.errors.InvalidArgumentError as error:
            raise RequestError(400, f"the model refuses the input: {_reason(error)}") from error
        except tf.errors.ResourceExhaustedError as error:
            raise RequestError(503, f"there is no memory left for this request: {_reason(error)}") from error
        return dict(zip(self.outputs, outputs, strict=True))


class LoadedVersion:
    """A version that is ready to answer, until it is closed.

    A session runs it, as in TensorFlow Serving. The functions of `tf.saved_model.load` prepare data at their first call
    that is never freed: about ten times the size of a small model at every change of version.

    Args:
        folder: the SavedModel's, named by its number.

    Raises:
        OSError, tf.errors.OpError: when files are missing, cut short or no SavedModel.
        ValueError: when a signature has an input or output of unknown rank.
    """

    def __init__(self, folder: Path) -> None:
        self.number = int(folder.name)
        self.in_flight = 0  # requests being answered, counted in the event loop alone
        graph = tf.Graph()
        self._session = tf.compat.v1.Session(graph=graph, config=_session_options())
        with graph.as_default():
            definitions = tf.compat.v1.saved_model.load(self._session, ["serve"], str(folder)).signature_def
        described = _described(folder)
        self.signature_defs = {name: _as_dict(definition) for name, definition in definitions.items()}
        self.signatures = {
            name: Signature(name, definition, self._session, batchable=bool(described.get(name, {}).get("batchable")))
            for name, definition in definitions.items()
            if definition.method_name  # the initializer of the tables has none
        }

    def signature(self, name: str) -> Signature:
        """Returns the signature of that name.

        Raises:
            RequestError: 400, when there is none.
        """
        if name not in self.signatures:
            known = ", ".join(sorted(self.signatures))
            raise RequestError(400, f"`signature_name` must be one of {known}, received {shown(name)}")
        return self.signatures[name]

    def warm(self) -> None:
        """Runs every signature once: TensorFlow's first run is slower than all others."""
        for signature in self.signatures.values():
            try:
                signature.run({name: _sample(name, kind) for name, kind in signature.inputs.items()})
            except RequestError:
                pass  # the model refuses the sample; it has run all the same

    def close(self) -> None:
        """Frees its memory; no request may be running."""
        self._session.close()


def _session_options() -> Any:
    options = tf.compat.v1.ConfigProto()
    # It doubles the time to the first answer and makes the exported graph no faster.
    options.graph_options.rewrite_options.disable_meta_optimizer = True
    return options


def _kind(signature: str, name: str, info: Any) -> TensorKind:
    if info.tensor_shape.unknown_rank:
        raise ValueError(f"signature {signature!r}: the rank of {name!r} must be known. Export it with a shape.")
    dtype = tf.as_dtype(info.dtype)
    shape = tuple(None if dim.size < 0 else dim.size for dim in info.tensor_shape.dim)
    return TensorKind(np.dtype(object if dtype == tf.string else dtype.as_numpy_dtype), shape)


def _reason(error: tf.errors.OpError) -> str:
    # TensorFlow puts the trace before the reason and the node behind it.
    message: str = error.message
    return message.partition("\n\t [[")[0].rpartition("\n")[2][:300]


def _as_dict(definition: Any) -> dict[str, Any]:
    fields: dict[str, Any] = MessageToDict(
        definition, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return fields


def _described(folder: Path) -> dict[str, Any]:
    """Returns the exporter's description of each signature; nothing for a SavedModel from elsewhere."""
    path = folder / DESCRIPTION
    if not path.is_file():
        return {}
    signatures: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["signatures"]
    return signatures


def _sample(name: str, kind: TensorKind) -> np.ndarray:
    shape = tuple(length or 1 for length in kind.shape)
    if kind.dtype != object:
        return np.ones(shape, kind.dtype)
    image: bytes = tf.io.encode_png(tf.fill([1, 1, 3], tf.constant(128, tf.uint8))).numpy()
    return np.full(shape, image if name.endswith("_bytes") else b"a", dtype=object)
