"""Translates between this library's variable paths and Hugging Face's tensor names.

`text_encoder/layers_0/self_attn/q_proj/kernel` is `text_model.encoder.layers.0.self_attn.q_proj.weight`,
transposed. The table below is the whole translation; it does not depend on a model's size. Hugging Face has no
ResNet towers: theirs keep OpenAI's names below `vision_model`.
"""

from __future__ import annotations

import dataclasses
import re

import numpy as np

from tf_clip.checkpoints.readers.stored import Array, StoredTensor, StoredTensors

_RENAMES = (
    (r"^text_encoder/text_projection/", "text_projection/"),
    (r"^image_encoder/visual_projection/", "visual_projection/"),
    (r"^text_encoder/", "text_model/"),
    (r"^image_encoder/", "vision_model/"),
    (r"/layers_(\d+)/", r"/encoder/layers/\1/"),
    (r"/pre_layernorm/", "/pre_layrnorm/"),  # misspelled in every file ever published
    (r"/stem/", "/"),
    (r"/stage(\d+)_(\d+)/", r"/layer\1/\2/"),
    (r"/downsample_conv/", "/downsample/0/"),
    (r"/downsample_bn/", "/downsample/1/"),
    (r"/attention_pool/", "/attnpool/"),
)

_CONVOLUTION = (3, 2, 0, 1)  # HWIO -> OIHW

# Last component of the path -> name there, and the axes that turn our layout into torch's.
_LEAVES: tuple[tuple[str, str, tuple[int, ...] | None], ...] = (
    (r"patch_embedding/kernel$", "patch_embedding/weight", _CONVOLUTION),
    (r"(conv\d|downsample_conv)/kernel$", r"\1/weight", _CONVOLUTION),
    (r"/kernel$", "/weight", (1, 0)),  # (in, out) -> (out, in)
    (r"/gamma$", "/weight", None),
    (r"/beta$", "/bias", None),
    (r"/moving_mean$", "/running_mean", None),
    (r"/moving_variance$", "/running_var", None),
    (r"_embedding/embeddings$", "_embedding/weight", None),
)

_IGNORED = re.compile(r"\.embeddings\.position_ids$|\.num_batches_tracked$")

# A tower that transformers 5 saved alone has no prefix; these tensors tell which it is.
_BARE_TOWERS = {
    "embeddings.token_embedding.weight": "text_model.",
    "embeddings.class_embedding": "vision_model.",
}


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


def without_ignored(tensors: StoredTensors) -> dict[str, StoredTensor]:
    """Leaves out tensors that carry no weight: positions 0 to n - 1 in old files, counters of batch norms."""
    return {name: tensor for name, tensor in tensors.items() if not _IGNORED.search(f".{name}")}


def with_prefixes(tensors: StoredTensors) -> dict[str, StoredTensor]:
    """Gives a tower that transformers 5 saved alone the prefix it has everywhere else."""
    prefix = next((prefix for name, prefix in _BARE_TOWERS.items() if name in tensors), "")
    return {prefix + name: tensor for name, tensor in tensors.items()}
