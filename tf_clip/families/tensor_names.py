"""`TensorNames`: a family's table from this library's variable paths to the tensor names of Hugging Face's files."""

from __future__ import annotations

import dataclasses
import re

import numpy as np

from tf_clip.checkpoints.readers.stored import Array

Leaf = tuple[str, str, "tuple[int, ...] | None"]


@dataclasses.dataclass(frozen=True)
class SourceTensor:
    """Where a variable's value is found: a tensor's name, and the axes from our layout to its.

    Args:
        name: the tensor's name.
        axes: as `numpy.transpose` takes them; None where the layouts are the same.
    """

    name: str
    axes: tuple[int, ...] | None

    def file_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Returns the shape that the file must have for a variable's shape."""
        return shape if self.axes is None else tuple(shape[axis] for axis in self.axes)

    def to_variable_layout(self, array: Array) -> Array:
        """Turns the file's array into the variable's layout."""
        return array if self.axes is None else array.transpose(np.argsort(self.axes))

    def to_file_layout(self, array: Array) -> Array:
        """Turns the variable's array into the file's layout."""
        return array if self.axes is None else array.transpose(self.axes)


@dataclasses.dataclass(frozen=True)
class TensorNames:
    """A translation that does not depend on a model's size.

    Args:
        leaves: patterns of the last components of a path, their replacements, and the axes that turn our layout into
            the file's; the first that matches counts.
        renames: patterns and replacements, applied one after the other.
    """

    leaves: tuple[Leaf, ...] = ()
    renames: tuple[tuple[str, str], ...] = ()

    def __call__(self, path: str) -> SourceTensor:
        """Returns the tensor of a variable path such as `text_encoder/final_layer_norm/gamma`."""
        axes = None
        for pattern, replacement, leaf_axes in self.leaves:
            path, count = re.subn(pattern, replacement, path)
            if count:
                axes = leaf_axes
                break
        for pattern, replacement in self.renames:
            path = re.sub(pattern, replacement, path)
        return SourceTensor(path.replace("/", "."), axes)
