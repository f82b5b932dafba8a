"""The configuration of CLIP's ResNet."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from tf_clip.errors import require
from tf_clip.families.config import TowerConfig, require_positive_int


@dataclasses.dataclass(frozen=True, kw_only=True)
class CLIPResNetConfig(TowerConfig):
    """Describes CLIP's other image tower, a ResNet that pools by attention (RN50 to RN50x64).

    Hugging Face has no such tower and thus no name for its fields; they are called as in its ResNet.

    Args:
        depths: number of bottleneck blocks in each of the four stages.
        embedding_size: width behind the stem; stage i is `4 * embedding_size * 2**i` wide.
        num_attention_heads: heads of the pooling attention; must divide its width, `32 * embedding_size`.
        projection_dim: width of the joint space, used where the tower stands alone.
        num_channels: channels of an image.
        image_size: height and width of an image, in pixels; a multiple of 32.

    Raises:
        ValueError: a value breaks a rule; the message names the field.

    Source: Radford et al. 2021, section 2.4 and table 20; OpenAI's ModifiedResNet.
    """

    model_type: ClassVar[str] = "clip_resnet_model"
    part: ClassVar[str] = "vision_config"

    depths: tuple[int, int, int, int] = (3, 4, 6, 3)
    embedding_size: int = 64
    num_attention_heads: int = 32
    projection_dim: int = 1024
    num_channels: int = 3
    image_size: int = 224

    def __post_init__(self) -> None:
        object.__setattr__(self, "depths", tuple(self.depths))  # JSON has lists
        require_positive_int(
            self, "embedding_size", "num_attention_heads", "projection_dim", "num_channels", "image_size"
        )
        require(
            len(self.depths) == 4 and all(isinstance(depth, int) and depth > 0 for depth in self.depths),
            "depths",
            "four positive integers",
            self.depths,
            "RN50 has (3, 4, 6, 3).",
        )
        require(
            self.embedding_size % 2 == 0,
            "embedding_size",
            "even",
            self.embedding_size,
            "The stem starts at half of it.",
        )
        require(
            self.hidden_size % self.num_attention_heads == 0,
            "num_attention_heads",
            f"a divisor of `32 * embedding_size` ({self.hidden_size})",
            self.num_attention_heads,
            "OpenAI's have half of `embedding_size`.",
        )
        require(
            self.image_size % 32 == 0,
            "image_size",
            "a multiple of 32",
            self.image_size,
            "The stages halve an image five times.",
        )

    @property
    def hidden_size(self) -> int:
        """Width of the last stage."""
        return 32 * self.embedding_size

    @property
    def num_patches(self) -> int:
        """Number of places in the last feature map."""
        return (self.image_size // 32) ** 2
