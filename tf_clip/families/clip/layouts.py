"""Every way in which CLIP's models are stored, as steps towards Hugging Face's configuration and tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from tf_clip.checkpoints import files
from tf_clip.checkpoints.errors import CheckpointError
from tf_clip.families.clip import keras_hub, openai, openclip, tensorflow_flax
from tf_clip.families.clip.tensor_names import with_prefixes, without_ignored
from tf_clip.families.layout import Layout, Opened


def _is_openclip(opened: Opened) -> bool:
    """OpenCLIP's description counts unless the weights are those of a Hugging Face checkpoint in the same folder."""
    is_hugging_face = not opened.is_file and opened.weights in files.HUGGING_FACE_WEIGHTS
    return files.OPENCLIP_CONFIG in opened.descriptions and not is_hugging_face


def _from_openclip(opened: Opened) -> Opened:
    described = opened.descriptions[files.OPENCLIP_CONFIG]
    folder = opened.path.parent if opened.weights else opened.path
    source = str(folder / files.OPENCLIP_CONFIG)
    # First the description: for another architecture its error says more than the tensors' would.
    _openclip_config(described, source)
    if opened.weights is None:
        raise FileNotFoundError(
            f"`folder` must hold one of {', '.join(files.OPENCLIP_WEIGHTS)}. "
            f"Received: folder={str(folder)!r}. Download the weights, too."
        )
    tensors = opened.tensors
    own = _openclip_config(described, source, has_logit_bias="logit_bias" in tensors)
    return dataclasses.replace(opened.with_tensors(tensors, f"OpenCLIP, {opened.layout}"), config=own)


def _openclip_config(described: Mapping[str, Any], source: str, *, has_logit_bias: bool = False) -> dict[str, Any]:
    try:
        return openclip.to_config(described, source, has_logit_bias=has_logit_bias)
    except (TypeError, AttributeError, ZeroDivisionError) as error:  # a field of another kind than OpenCLIP's
        raise CheckpointError(f"{source} must describe a CLIP model. Received: {error}. Download it again.") from error


def _from_openai(opened: Opened) -> Opened:
    tensors = opened.tensors
    if opened.config is None:
        note = "the configuration was read from the weights' shapes, with heads of 64"
        opened = dataclasses.replace(opened, config=_openai_config(opened), notes=(*opened.notes, note))
    return opened.with_tensors(openai.to_hugging_face(tensors, str(opened.path)))


def _openai_config(opened: Opened) -> dict[str, Any]:
    tensors, path = opened.tensors, opened.path
    # Only OpenAI's own archives carry these; theirs were trained with quick_gelu, others' mostly not.
    if "input_resolution" not in tensors and "context_length" not in tensors:
        raise CheckpointError(
            f"{path} must have an {files.OPENCLIP_CONFIG} beside it: its weights do not tell the activation they "
            "were trained with. Received: the file alone. Put it there, or pass config=CLIPConfig(...)."
        )
    try:
        return openai.config_from_shapes(tensors, "quick_gelu")
    except (LookupError, ValueError, TypeError) as error:
        raise CheckpointError(
            f"{path} must hold all of OpenAI's tensors, in their shapes. Received: {type(error).__name__}: {error}. "
            "Download it again."
        ) from error


# Tensors that only other models have, and what these are.
_WITH_BERT = "Chinese-CLIP, or another model whose text tower is a BERT"
_OTHER_MODELS = {
    "vision_model.head.probe": "SigLIP",
    "text_model.head.weight": "SigLIP",
    "text_model.encoder.layer.0.attention.self.query.weight": _WITH_BERT,
    "text_model.embeddings.word_embeddings.weight": _WITH_BERT,
    "qformer.layernorm.weight": "BLIP-2",
}


def _from_hugging_face(opened: Opened) -> Opened:
    """Leaves out what is no weight, and completes names, also of what a step before has translated."""
    tensors = opened.tensors
    for name, model in _OTHER_MODELS.items():
        if name in tensors:
            raise CheckpointError(
                f"{opened.path} must hold a CLIP model. Received: {model}, by its tensor {name}. tf_clip does not have "
                "it."
            )
    kept = without_ignored(tensors)
    notes = ("position_ids, which hold 0 to n - 1, are left out",) if len(kept) < len(tensors) else ()
    return opened.with_tensors(with_prefixes(kept), None, *notes)


HUGGING_FACE = Layout(lambda opened: True, _from_hugging_face)
LAYOUTS = (
    Layout(keras_hub.is_preset, keras_hub.to_hugging_face),
    Layout(_is_openclip, _from_openclip),
    Layout(lambda opened: openai.is_openai(opened.tensors), _from_openai),
    Layout(tensorflow_flax.recognizes, tensorflow_flax.translate),
    HUGGING_FACE,
)
