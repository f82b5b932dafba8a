"""What CLIP's towers cost."""

from __future__ import annotations

from tf_clip.families.clip.config import CLIPTextConfig, CLIPVisionConfig
from tf_clip.families.cost import block_operations, block_parameters
from tf_clip.families.family import Cost


def _parameters(tower: CLIPTextConfig | CLIPVisionConfig, projection_dim: int) -> int:
    width = tower.hidden_size
    shared = block_parameters(tower) + width * projection_dim
    if isinstance(tower, CLIPTextConfig):
        return (tower.vocab_size + tower.max_position_embeddings) * width + 2 * width + shared
    patches = tower.num_channels * tower.patch_size**2 * width
    positions = (tower.num_patches + 1) * width
    return width + patches + positions + 4 * width + shared


def _operations(tower: CLIPTextConfig | CLIPVisionConfig, projection_dim: int, length: int | None) -> int:
    projection = 2 * tower.hidden_size * projection_dim
    if isinstance(tower, CLIPTextConfig):
        return block_operations(tower, length or tower.max_position_embeddings) + projection
    patches = 2 * tower.num_patches * tower.num_channels * tower.patch_size**2 * tower.hidden_size
    return patches + block_operations(tower, tower.num_patches + 1) + projection


def _describe(tower: CLIPTextConfig | CLIPVisionConfig) -> str:
    blocks = f"{tower.num_hidden_layers} layers of {tower.hidden_size}, {tower.hidden_act}, "
    if isinstance(tower, CLIPVisionConfig):
        return f"{blocks}{tower.image_size} px in patches of {tower.patch_size}"
    return f"{blocks}{tower.max_position_embeddings} tokens of {tower.vocab_size:,}"


COST = Cost(parameters=_parameters, operations=_operations, describe=_describe)
