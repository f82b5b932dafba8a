"""What CLIP's ResNet costs."""

from __future__ import annotations

from tf_clip.families.clip_resnet.config import CLIPResNetConfig
from tf_clip.families.family import Cost


def _parameters(tower: CLIPResNetConfig, projection_dim: int) -> int:
    # Each convolution is followed by a norm with a scale and a shift.
    convolutions = sum(size * size * a * b + 2 * b for size, a, b, _ in _convolutions(tower))
    width = tower.hidden_size
    pooling = (tower.num_patches + 1) * width + 3 * (width * width + width)
    return convolutions + pooling + width * projection_dim + projection_dim


def _operations(tower: CLIPResNetConfig, projection_dim: int, length: int | None) -> int:
    convolutions = sum(2 * size * size * a * b * side * side for size, a, b, side in _convolutions(tower))
    width, cells = tower.hidden_size, tower.num_patches + 1
    # One query, the mean, reads keys and values of every cell.
    pooling = 2 * width * width + 2 * 2 * cells * width * width + 2 * 2 * cells * width
    return convolutions + pooling + 2 * width * projection_dim


def _describe(tower: CLIPResNetConfig) -> str:
    return f"a ResNet of {' + '.join(map(str, tower.depths))} blocks of {tower.embedding_size}, {tower.image_size} px"


def _convolutions(vision: CLIPResNetConfig) -> list[tuple[int, int, int, int]]:
    """Lists the convolutions: kernel size, channels in and out, height and width of what comes out."""
    width, side = vision.embedding_size, vision.image_size // 2
    found = [
        (3, vision.num_channels, width // 2, side),
        (3, width // 2, width // 2, side),
        (3, width // 2, width, side),
    ]
    side //= 2
    channels = width
    for stage, depth in enumerate(vision.depths):
        inner = width * 2**stage
        for block in range(depth):
            halves = stage > 0 and block == 0
            out = side // 2 if halves else side
            found += [(1, channels, inner, side), (3, inner, inner, side), (1, inner, 4 * inner, out)]
            if block == 0:
                found.append((1, channels, 4 * inner, out))
            channels, side = 4 * inner, out
    return found


COST = Cost(parameters=_parameters, operations=_operations, describe=_describe)
