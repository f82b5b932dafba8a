"""The signatures of an exported model as a client sees them: inputs, outputs, and the check of an answer."""

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
        outputs: from an output to its rank; strings have the rank of their rows.
        strings: the outputs that are strings.
    """

    name: str
    outputs: Mapping[str, int]
    strings: frozenset[str] = frozenset({"status"})

    def checked(self, outputs: Mapping[str, Any], rows: Mapping[str, int]) -> dict[str, np.ndarray]:
        """Returns an answer's outputs as arrays of the right kind and rank.

        Args:
            outputs: from a name to an array or to nested lists.
            rows: from an output to how many rows it must have.

        Raises:
            ServingError: an output is missing, or has another shape.
        """
        missing = sorted(set(self.outputs) - set(outputs))
        if missing:
            raise self._odd(f"has no {', '.join(missing)}")
        arrays = {}
        for name, rank in self.outputs.items():
            try:
                arrays[name] = _strings(outputs[name]) if name in self.strings else _numbers(outputs[name])
            except (TypeError, ValueError) as error:
                raise self._odd(f"holds no table of values in {name!r} ({error})") from error
            if arrays[name].ndim != rank or len(arrays[name]) != rows[name]:
                shape = list(arrays[name].shape)
                raise self._odd(f"has {name!r} of shape {shape}, for {rows[name]} rows and {rank} axes")
        return arrays

    def _odd(self, what: str) -> ServingError:
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
    "classify", {"labels": 2, "scores": 2, "probabilities": 2, "status": 1}, frozenset({"labels", "status"})
)
SIMILARITY_PAIRS = Signature("similarity_pairs", {"logits": 1, "status": 1})
SIMILARITY = Signature(
    "similarity",
    {"logits_per_image": 2, "probabilities": 2, "image_status": 1, "text_status": 1},
    frozenset({"image_status", "text_status"}),
)
