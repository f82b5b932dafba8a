"""Describes a signature's inputs and outputs, for the description inside exported files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tensorflow as tf


def described_sides(signature: tf.types.experimental.ConcreteFunction) -> dict[str, dict[str, Any]]:
    """Returns dtype and shape of each input and output; None in a shape is an axis of any size."""
    inputs = {spec.name: spec for spec in signature.structured_input_signature[0]}
    return {"inputs": _tensors(inputs), "outputs": _tensors(signature.structured_outputs)}


def _tensors(specs: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {name: {"dtype": spec.dtype.name, "shape": spec.shape.as_list()} for name, spec in specs.items()}
