"""Prompt tuning: learned tokens behind a text's start token, and behind an image's class token.

A site's state is `(x, offset)`: the tokens `[batch, length, width]`, and how many prompts are in them already.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from keras import ops

from tf_clip.adapters.methods.base import PLAIN, Adapter, Form
from tf_clip.layers.adapter_sites import RowInputs


class Prompt(Adapter):
    """Learned tokens of one tower.

    Source: Zhou et al. 2022 (CoOp, one context for all classes); Jia et al. 2022 (VPT, shallow).
    """

    file_names: ClassVar[Mapping[str, tuple[str, Form]]] = {"prompt": ("prompt_embedding.weight", PLAIN)}

    def build(self, input_shape: Any) -> None:
        """Makes the tokens."""
        self.extra_tokens = self.settings.prompt_length
        config, embedding = self.settings, self.location.token_embedding
        initializer = self.draw("uniform", config.random_uniform_scale)
        shape = (config.prompt_length, self.location.site.width)
        self.prompt = self.add_weight(shape=shape, initializer=initializer, name="prompt")
        if embedding is not None and config.prompt_init_ids is not None:
            table = ops.convert_to_tensor(embedding.embeddings)
            self.prompt.assign(ops.take(table, np.array(config.prompt_init_ids, "int32"), axis=0))

    def adapt(self, state: tuple[Any, int], rows: RowInputs, training: bool | None) -> tuple[Any, int]:
        """Puts the tokens in: in a text in place of those that make room for them, in an image between the others."""
        x, offset = state
        first = 1 + offset
        rest = first + self.extra_tokens if self.location.tower == "text" else first
        prompt = ops.cast(ops.expand_dims(ops.convert_to_tensor(self.prompt), 0), x.dtype)
        prompt = ops.repeat(prompt, ops.shape(x)[0], axis=0)
        return ops.concatenate([x[:, :first], prompt, x[:, rest:]], axis=1), offset + self.extra_tokens


def with_room(input_ids: Any, attention_mask: Any, count: int, longest: int, eos_token_id: int | None) -> Any:
    """Makes room for prompts behind the start token; what no longer fits is cut, but the end token stays.

    Args:
        input_ids: `[batch, length]`.
        attention_mask: `[batch, length]`, or None.
        count: how many tokens come in.
        longest: how many a text can have.
        eos_token_id: ends a text; None if it is the largest number of each.

    Returns:
        `input_ids` and `attention_mask` with room.
    """
    input_ids = ops.cast(input_ids, "int32")
    room = ops.repeat(input_ids[:, :1], count, axis=1)
    ids = ops.concatenate([input_ids[:, :1], room, input_ids[:, 1:]], axis=1)
    if attention_mask is not None:
        ones = ops.repeat(ops.ones_like(attention_mask[:, :1]), count, axis=1)
        attention_mask = ops.concatenate([attention_mask[:, :1], ones, attention_mask[:, 1:]], axis=1)[:, :longest]
    ends = ops.max(input_ids, axis=-1, keepdims=True) if eos_token_id is None else eos_token_id
    kept = ids[:, :longest]
    is_lost = ops.logical_not(ops.any(kept == ends, axis=-1, keepdims=True))
    had_one = ops.any(ids == ends, axis=-1, keepdims=True)
    index = ops.expand_dims(ops.arange(ops.shape(kept)[1], dtype="int32"), 0)
    is_last = index == ops.shape(kept)[1] - 1
    end_here = ops.logical_and(ops.logical_and(is_lost, had_one), is_last)
    return ops.where(end_here, ops.cast(ends, "int32"), kept), attention_mask
