"""Translates between this library's variable paths and Hugging Face's tensor names.

`text_encoder/layers_0/self_attn/q_proj/kernel` is `text_model.encoder.layers.0.self_attn.q_proj.weight`,
transposed. The table below is the whole translation; it does not depend on a model's size.
"""

from __future__ import annotations

import dataclasses
import re

import numpy as np

_RENAMES = (
    (r"^text_encoder/text_projection/", "text_projection/"),
    (r"^image_encoder/visual_projection/", "visual_projection/"),
    (r"^text_encoder/", "text_model/"),
    (r"^image_encoder/", "vision_model/"),
    (r"/layers_(\d+)/", r"/encoder/layers/\1/"),
    (r"/pre_layernorm/", "/pre_layrnorm/"),  # misspelt in every file ever published
)

# Last component of the path -> name there, and the axes that turn our layout into torch's.
_LEAVES: tuple[tuple[str, str, tuple[int, ...] | None], ...] = (
    (r"patch_embedding/kernel$", "patch_embedding/weight", (3, 2, 0, 1)),  # HWIO -> OIHW
    (r"/kernel$", "/weight", (1, 0)),  # (in, out) -> (out, in)
    (r"/gamma$", "/weight", None),
    (r"/beta$", "/bias", None),
    (r"_embedding/embeddings$", "_embedding/weight", None),
)

_IGNORED = re.compile(r"^(text_model|vision_model)\.embeddings\.position_ids$")


@dataclasses.dataclass(frozen=True)
class SourceTensor:
    """Where a variable's value is found: a tensor's name, and the axes from our layout to its."""

    name: str
    axes: tuple[int, ...] | None

    def to_variable_layout(self, array: np.ndarray) -> np.ndarray:
        """Turns the file's array into the variable's layout."""
        return array if self.axes is None else array.transpose(np.argsort(self.axes))

    def to_file_layout(self, array: np.ndarray) -> np.ndarray:
        """Turns the variable's array into the file's layout."""
        return array if self.axes is None else array.transpose(self.axes)


def source_tensor(path: str) -> SourceTensor:
    """Returns the Hugging Face tensor of a variable path such as `text_encoder/final_layer_norm/gamma`."""
    axes = None
    for pattern, replacement, leaf_axes in _LEAVES:
        path, count = re.subn(pattern, replacement, path)
        if count:
            axes = leaf_axes
            break
    for pattern, replacement in _RENAMES:
        path = re.sub(pattern, replacement, path)
    return SourceTensor(path.replace("/", "."), axes)


def is_ignored(name: str) -> bool:
    """Says whether a tensor of a file carries no weight: old files store the positions 0..n-1."""
    return _IGNORED.match(name) is not None
