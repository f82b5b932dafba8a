"""Translates the names and layouts of transformers' TensorFlow and Flax models to those of its PyTorch models."""

from __future__ import annotations

import re

from tf_clip.checkpoints.errors import CheckpointError, refuse_unknown
from tf_clip.checkpoints.readers.stored import StoredTensor, StoredTensors
from tf_clip.families.layout import Opened

# What stands before these differs from file to file: the Keras model's name, once or twice, or nothing.
_ROOTS = re.compile(r"(?:^|/)((?:text_model|vision_model|text_projection|visual_projection|logit_scale)(?:[/:].*)?)$")
_RENAMES = ((r":0$", ""), (r"/layers_\._(\d+)/", r"/layers/\1/"))
_LEAVES: tuple[tuple[str, str, tuple[int, ...] | None], ...] = (
    (r"patch_embedding/kernel$", "patch_embedding/weight", (3, 2, 0, 1)),  # HWIO -> OIHW
    (r"/kernel$", "/weight", (1, 0)),  # (in, out) -> (out, in)
    (r"/(?:gamma|scale)$", "/weight", None),
    (r"/beta$", "/bias", None),
    (r"_embedding/embeddings?$", "_embedding/weight", None),
    (r"(?:_embedding/weight|/bias|/class_embedding|^logit_scale)$", r"\g<0>", None),
)


def recognizes(opened: Opened) -> bool:
    """Says whether a file is one of transformers' TensorFlow or Flax models."""
    return opened.layout.startswith(("TensorFlow", "Flax"))


def translate(opened: Opened) -> Opened:
    """Returns the file in PyTorch's names and layout; see `to_hugging_face`."""
    return opened.with_tensors(to_hugging_face(opened.tensors, str(opened.path)))


def to_hugging_face(tensors: StoredTensors, source: str) -> dict[str, StoredTensor]:
    """Renames tensors and turns them into PyTorch's layout.

    Args:
        tensors: those of `tf_model.h5`, of a safetensors file in TensorFlow's layout, or of `flax_model.msgpack`.
        source: where they come from, for messages.

    Raises:
        CheckpointError: there are tensors that CLIP does not have, or one of its tensors is there twice.
    """
    result: dict[str, StoredTensor] = {}
    unknown = []
    for name, tensor in tensors.items():
        if name.endswith("position_ids"):
            continue
        path, axes = _translated(name)
        if path is None or (axes is not None and len(axes) != len(tensor.shape)):
            unknown.append(name)
            continue
        if path in result:  # two models in one file: which of them is meant, nothing says
            raise CheckpointError(
                f"{source} must hold one CLIP. Received: two tensors for {path}, one of them {name}. "
                "Save the model alone."
            )
        result[path] = tensor if axes is None else tensor.transposed(axes)
    refuse_unknown(unknown, source, "transformers' TensorFlow or Flax CLIP", "It is another model, or another layout.")
    return result


def _translated(name: str) -> tuple[str | None, tuple[int, ...] | None]:
    root = _ROOTS.search(name)
    if root is None:
        return None, None
    path = root[1]
    for pattern, replacement in _RENAMES:
        path = re.sub(pattern, replacement, path)
    for pattern, replacement, axes in _LEAVES:
        path, count = re.subn(pattern, replacement, path)
        if count:
            return path.replace("/", "."), axes
    return None, None
