"""What a text tower is given: how long texts are, how they are padded, and whether it is told what is padding."""

from __future__ import annotations

import inspect
from typing import NamedTuple

from tf_clip.families.family import class_at, family_of
from tf_clip.models.two_towers import TwoTowerModel
from tf_clip.preprocessing.processor import Processor


class TextInputs(NamedTuple):
    """The inputs of a text tower.

    Args:
        vocab_size: how many ids it knows.
        longest: tokens of the longest text.
        is_fixed: whether every text is padded to the longest, as its family has it.
        takes_mask: whether it is given the attention mask beside the ids.
        ends: the id that ends a text where the tower pools it, or None where any may.
    """

    vocab_size: int
    longest: int
    is_fixed: bool
    takes_mask: bool
    ends: int | None


def text_inputs_of(model: TwoTowerModel, processor: Processor) -> TextInputs:
    """Returns what a model's text tower is given, by its family's record and its own `call`.

    Raises:
        ValueError: no family has the tower.
    """
    tower = model.text_encoder
    family = family_of(tower)
    # A causal tower that pools at the end of a text never reads the padding behind it. That is known of the family's
    # own class; a subclass may read what it likes.
    never_reads_padding = (
        family.text_is_causal
        and family.pooling == "end"
        and family.text_tower is not None
        and type(tower) is class_at(family.text_tower)
    )
    parameters = inspect.signature(tower.call).parameters.values()
    accepts_mask = any(one.name == "attention_mask" or one.kind is one.VAR_KEYWORD for one in parameters)
    return TextInputs(
        vocab_size=tower.config.vocab_size,
        longest=min(tower.config.max_position_embeddings, processor.tokenizer.model_max_length),
        is_fixed=family.padding == "max_length",
        takes_mask=accepts_mask and not never_reads_padding,
        ends=None if family.text_ends is None else family.text_ends.end_token(tower.config),
    )
