"""The names of Hugging Face's files for CLIP's variables.

`text_encoder/layers_0/self_attn/q_proj/kernel` is `text_model.encoder.layers.0.self_attn.q_proj.weight`, transposed.
The table is the whole translation; it does not depend on a model's size.
"""

from __future__ import annotations

import re

from tf_clip.checkpoints.readers.stored import StoredTensor, StoredTensors
from tf_clip.families.tensor_names import TensorNames

CONVOLUTION = (3, 2, 0, 1)
"""The axes that turn a kernel `[height, width, in, out]` into the files' `[out, in, height, width]`."""

LEAVES = (
    (r"/kernel$", "/weight", (1, 0)),  # (in, out) -> (out, in)
    (r"/gamma$", "/weight", None),
    (r"/beta$", "/bias", None),
)
ROOTS = (
    (r"^text_encoder/text_projection/", "text_projection/"),
    (r"^image_encoder/visual_projection/", "visual_projection/"),
    (r"^text_encoder/", "text_model/"),
    (r"^image_encoder/", "vision_model/"),
)

TENSOR_NAMES = TensorNames(
    leaves=(
        (r"patch_embedding/kernel$", "patch_embedding/weight", CONVOLUTION),
        *LEAVES,
        (r"_embedding/embeddings$", "_embedding/weight", None),
    ),
    renames=(
        *ROOTS,
        (r"/layers_(\d+)/", r"/encoder/layers/\1/"),
        (r"/pre_layernorm/", "/pre_layrnorm/"),  # misspelled in every file ever published
    ),
)

_IGNORED = re.compile(r"\.embeddings\.position_ids$|\.num_batches_tracked$")

# A tower that transformers 5 saved alone has no prefix; these tensors tell which it is.
_BARE_TOWERS = {
    "embeddings.token_embedding.weight": "text_model.",
    "embeddings.class_embedding": "vision_model.",
}


def without_ignored(tensors: StoredTensors) -> dict[str, StoredTensor]:
    """Leaves out tensors that carry no weight: positions 0 to n - 1 in old files, counters of batch norms."""
    return {name: tensor for name, tensor in tensors.items() if not _IGNORED.search(f".{name}")}


def with_prefixes(tensors: StoredTensors) -> dict[str, StoredTensor]:
    """Gives a tower that transformers 5 saved alone the prefix it has everywhere else."""
    prefix = next((prefix for name, prefix in _BARE_TOWERS.items() if name in tensors), "")
    return {prefix + name: tensor for name, tensor in tensors.items()}
