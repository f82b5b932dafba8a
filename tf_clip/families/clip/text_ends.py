"""Where CLIP's texts end, which is where they are pooled."""

from __future__ import annotations

from typing import Any

from tf_clip.families.clip.config import CLIPTextConfig
from tf_clip.families.family import IntArray, TextEnds

# Checkpoints converted before 2023 say eos_token_id = 2 although their texts end in 49407.
LEGACY_EOS_TOKEN_ID = 2


def end_token(config: CLIPTextConfig) -> int | None:
    """Returns the id that ends a text, or None where its highest id does, as in old checkpoints."""
    return None if config.eos_token_id == LEGACY_EOS_TOKEN_ID else config.eos_token_id


def _positions(config: CLIPTextConfig, input_ids: IntArray) -> IntArray:
    token = end_token(config)
    positions: Any = (input_ids if token is None else input_ids == token).argmax(axis=1)
    return positions  # type: ignore[no-any-return]


TEXT_ENDS = TextEnds(positions=_positions, end_token=end_token)
