"""What every export requires of a model, its processor and the labels."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

from tf_clip.export.text_inputs import text_inputs_of
from tf_clip.models.two_towers import TwoTowerModel
from tf_clip.preprocessing.processor import Processor
from tf_clip.tasks.zero_shot import class_embeddings


def require_kinds(model: TwoTowerModel, processor: Processor, written: str) -> None:
    """Checks the types of a model and its processor, and that Keras runs on TensorFlow.

    Args:
        model: the model.
        processor: its processor.
        written: what is to be written, for the message.

    Raises:
        TypeError: one of them is of another type.
        ValueError: Keras runs on another backend.
    """
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"Keras's backend must be tensorflow to write {written}. "
            f"Received: {keras.backend.backend()!r}. Set KERAS_BACKEND=tensorflow, and load the model again."
        )
    for argument, value, kind in (("model", model, TwoTowerModel), ("processor", processor, Processor)):
        if not isinstance(value, kind):
            raise TypeError(
                f"`{argument}` must be a {kind.__name__}. Received: {type(value).__name__}. "
                "Load it with from_pretrained."
            )


def require_processor_fits(model: TwoTowerModel, processor: Processor) -> None:
    """Checks that a processor prepares what the model reads, and can do so inside a graph.

    Raises:
        ValueError: it does not.
    """
    text, side = text_inputs_of(model, processor), model.config.vision_config.image_size
    tokenizer, size = processor.tokenizer, processor.image_processor.output_size
    for rule, holds, received in (
        (
            f"bring every image to the model's {side} x {side} pixels",
            size == (side, side),
            f"size {size}",
        ),
        ("use no ids that the model lacks", tokenizer.vocab_size <= text.vocab_size, f"{tokenizer.vocab_size} ids"),
        (
            "end texts as the model reads them",
            text.ends in (tokenizer.eos_token_id, None),
            f"end token {tokenizer.eos_token_id}",
        ),
        # To the left of a text, padding moves it by as much as its longest neighbor is longer.
        (
            "pad on the right",
            tokenizer.padding_side == "right" or text.is_fixed,
            f"padding_side={tokenizer.padding_side!r}",
        ),
        ("run inside a graph", tokenizer.runs_in_graphs, "a tokenizer with clean='openai'"),
    ):
        if not holds:
            raise ValueError(
                f"`processor` must {rule}. Received: {received}. Load the processor from the model's own checkpoint."
            )


def embedded_labels(
    model: TwoTowerModel, processor: Processor, labels: Sequence[str] | None, templates: Sequence[str]
) -> np.ndarray | None:
    """Embeds the labels that an exported file chooses from.

    Args:
        model: the model.
        processor: its processor.
        labels: the classes' names, or None.
        templates: prompts with `{}` where a label goes.

    Returns:
        float32 `[labels, projection_dim]`, of unit length; None without labels.

    Raises:
        TypeError: labels or templates are not sequences of strings.
        ValueError: there are templates without labels, or `class_embeddings` refuses them.
    """
    if labels is None:
        if tuple(templates) != ("{}",):
            raise ValueError(
                f"`templates` must come with `labels`. Received: templates={templates!r}, labels=None. Pass both."
            )
        return None
    if isinstance(labels, (str, bytes)) or isinstance(templates, (str, bytes)):
        raise TypeError(
            "`labels` and `templates` must be sequences of strings. "
            f"Received: labels={labels!r}, templates={templates!r}. Put a single one into a list."
        )
    if not all(isinstance(label, str) for label in labels):
        raise TypeError(f"`labels` must be strings. Received: labels={list(labels)!r}. Convert them with str().")
    return class_embeddings(model, processor, labels, templates)
