"""What a signature takes and gives, as the exported files tell programs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf


def described_sides(signature: tf.types.experimental.ConcreteFunction) -> dict[str, dict[str, Any]]:
    """Returns dtype and shape of each input and output; None in a shape is a free axis."""
    inputs = {spec.name: spec for spec in signature.structured_input_signature[0]}
    return {"inputs": _tensors(inputs), "outputs": _tensors(signature.structured_outputs)}


def _tensors(specs: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: {"dtype": spec.dtype.name, "shape": spec.shape.as_list()} for name, spec in specs.items()}
