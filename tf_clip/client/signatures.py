"""The signatures of an exported model as a client sees them: their outputs, and the check of an answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from tf_clip.client.errors import ServingError


@dataclasses.dataclass(frozen=True)
class Signature:
    """One signature.

    Args:
        name: its name.
        outputs: from an output to its rank.
        status: the output with the status of each row.
        labels: the outputs that are strings, beside statuses.
        row_per_text: the outputs with a row for each of the texts that go with every batch.
        column_per_text: the outputs with a column for each of these texts.
    """

    name: str
    outputs: Mapping[str, int]
    status: str = "status"
    labels: frozenset[str] = frozenset()
    row_per_text: frozenset[str] = frozenset()
    column_per_text: frozenset[str] = frozenset()

    @property
    def strings(self) -> frozenset[str]:
        """The outputs that are strings."""
        return self.labels | self.row_per_text | {self.status}

    def checked(self, outputs: Mapping[str, Any], rows: int, texts: int) -> dict[str, np.ndarray]:
        """Returns an answer's outputs as arrays of the right kind and shape.

        Args:
            outputs: from a name to an array or to nested lists.
            rows: the number of rows sent.
            texts: the number of texts sent with them.

        Raises:
            ServingError: an output is missing, or has another shape.
        """
        missing = sorted(set(self.outputs) - set(outputs))
        if missing:
            raise self._unexpected(f"has no {', '.join(missing)}")
        arrays = {}
        for name, rank in self.outputs.items():
            wanted = texts if name in self.row_per_text else rows
            try:
                array = _strings(outputs[name]) if name in self.strings else _numbers(outputs[name])
            except (TypeError, ValueError) as error:
                raise self._unexpected(f"holds no table of values in {name!r} ({error})") from error
            if array.ndim != rank or len(array) != wanted:
                raise self._unexpected(f"has {name!r} of shape {list(array.shape)}, for {wanted} rows and {rank} axes")
            if name in self.column_per_text and array.shape[1] != texts:
                raise ServingError(
                    f"the answer has {name!r} of {array.shape[1]} columns for {texts} texts",
                    advice="Check that the server does not batch requests, which `similarity` does not allow.",
                )
            arrays[name] = array
        return arrays

    def _unexpected(self, what: str) -> ServingError:
        return ServingError(
            f"the answer for the signature {self.name!r} {what}",
            advice="Check that the model was exported by tf_clip, and that `similarity` is served without batching.",
        )


def _numbers(values: Any) -> np.ndarray:
    array = np.asarray(values, np.float32)
    if not np.isfinite(array).all():
        raise ValueError("not all are finite numbers")
    return array


def _strings(values: Any) -> np.ndarray:
    array = np.asarray(values, object)
    decoded = [one.decode("utf-8", "replace") if isinstance(one, bytes) else one for one in array.ravel()]
    if not all(isinstance(one, str) for one in decoded):
        raise ValueError("not all are strings")
    return np.array(decoded, object).reshape(array.shape)


ENCODE_IMAGE = Signature("encode_image", {"image_embeds": 2, "status": 1})
ENCODE_TEXT = Signature("encode_text", {"text_embeds": 2, "status": 1})
CLASSIFY = Signature(
    "classify", {"labels": 2, "scores": 2, "probabilities": 2, "status": 1}, labels=frozenset({"labels"})
)
SIMILARITY_PAIRS = Signature("similarity_pairs", {"logits": 1, "status": 1})
SIMILARITY = Signature(
    "similarity",
    {"logits_per_image": 2, "probabilities": 2, "image_status": 1, "text_status": 1},
    status="image_status",
    row_per_text=frozenset({"text_status"}),
    column_per_text=frozenset({"logits_per_image", "probabilities"}),
)
