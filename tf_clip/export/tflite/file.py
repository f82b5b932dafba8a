"""The bytes of a .tflite file: converted from functions, described, and inspected."""

from __future__ import annotations

import json
import tempfile
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tf_clip.export.tflite.graph import Signatures
from tf_clip.export.tflite.runtime import DESCRIPTION, require_litert
from tf_clip.export.weights import StoredWeights

# Operations of a file whose weights were not stored in it.
_OF_VARIABLES = frozenset({"VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE"})


def converted(
    signatures: Signatures, weights: StoredWeights, set_up: Callable[[tf.lite.TFLiteConverter], None] | None = None
) -> bytes:
    """Makes a file of functions; each weight is in it once, however many of them use it.

    Args:
        signatures: the functions, under their names.
        weights: the variables they read.
        set_up: sets a converter's options.

    Raises:
        ValueError: the converter fails.
    """
    root = tf.Module(name="tf_clip")
    # The variables themselves: the converter does not find those inside a Keras model, and reports no error.
    root.weights = weights.variables
    with tempfile.TemporaryDirectory() as folder:
        options = tf.saved_model.SaveOptions(experimental_custom_gradients=False)
        tf.saved_model.save(root, folder, signatures=signatures, options=options)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=list(signatures))
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        # Who made the file and how is in its description; this would take it apart and put it together once more.
        converter.exclude_conversion_metadata = True
        if set_up is not None:
            set_up(converter)
        try:
            with warnings.catch_warnings():
                # Its calibration warns of an interpreter of its own.
                warnings.simplefilter("ignore")
                return bytes(converter.convert())
        except Exception as error:
            raise ValueError(
                f"`model` must be one that LiteRT's converter takes. Received: {', '.join(signatures)}, of which it "
                f"says: {str(error)[:500]}. Try quantization='float32'; if that fails, report it."
            ) from error


class _PackedOnce:
    """A part of a file that several others refer to; packed once, when it is first met."""

    def __init__(self, table: Any) -> None:
        self._table = table
        self._offset: int | None = None

    def Pack(self, builder: Any) -> int:
        """Returns where it is."""
        if self._offset is None:
            self._offset = self._table.Pack(builder)
        return self._offset


def finished(file: bytes, description: Mapping[str, Any]) -> bytes:
    """Puts a description into a file, and leaves out what is in it several times or of no use.

    The converter stores the scales of weights and the names of tensors once for each signature. In 8 bits, the scales
    are some hundredths of the file.
    """
    require_litert()
    from ai_edge_litert import schema_py_generated as schema
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(file))
    for stored in model.buffers:
        # The quantizer puts large buffers behind the flatbuffer, where packing the file again would lose them.
        if stored.offset:
            stored.data = np.frombuffer(file, np.uint8, stored.size, stored.offset)
            stored.offset = stored.size = 0
    known: dict[Any, _PackedOnce] = {}
    for graph in model.subgraphs:
        of_signature = {*graph.inputs, *graph.outputs}
        for index, tensor in enumerate(graph.tensors):
            if index not in of_signature:
                tensor.name = None
            if tensor.quantization is not None:
                once = _PackedOnce(tensor.quantization)
                tensor.quantization = known.setdefault(_content(tensor.quantization), once)
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = list(json.dumps(description, ensure_ascii=False).encode())
    entry.name, entry.buffer = DESCRIPTION, len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or []), entry]
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _content(quantization: Any) -> Any:
    """Returns a key that only equal quantizations share. Those of blocks are short, and each has a key of its own."""
    if quantization.detailsType:
        return id(quantization)
    lists = (quantization.scale, quantization.zeroPoint, quantization.min, quantization.max)
    return (quantization.quantizedDimension, *(None if one is None else np.asarray(one).tobytes() for one in lists))


def operations_of(file: bytes) -> list[str]:
    """Lists the operations that a file uses, sorted; those that are not built in are written `CUSTOM name`."""
    require_litert()
    from ai_edge_litert import schema_py_generated as schema

    names = {value: name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}
    model = schema.Model.GetRootAs(file, 0)
    codes = [model.OperatorCodes(index) for index in range(model.OperatorCodesLength())]
    # Old files have the number in another field.
    found = [names[max(code.BuiltinCode(), code.DeprecatedBuiltinCode())] for code in codes]
    return sorted(
        {
            f"CUSTOM {(code.CustomCode() or b'').decode()}" if name == "CUSTOM" else name
            for code, name in zip(codes, found, strict=True)
        }
    )


def require_built_in(operations: list[str]) -> None:
    """Checks that every runtime has a file's operations, and that its weights are in it.

    Raises:
        ValueError: it needs TensorFlow's operations or others, or reads variables.
    """
    custom = [name for name in operations if name.startswith("CUSTOM")]
    if custom:
        raise ValueError(
            "The file must use LiteRT's built-in operations alone. "
            f"Received: {', '.join(custom)}. Report it, with the model's config.json."
        )
    lost = sorted(_OF_VARIABLES.intersection(operations))
    if lost:
        raise ValueError(
            f"The file must hold its weights. Received: a file that looks for variables ({', '.join(lost)}). "
            "Report it, with the versions of TensorFlow and Keras."
        )
