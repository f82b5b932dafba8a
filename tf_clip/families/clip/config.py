"""CLIP's configurations, with the fields and defaults of Hugging Face's `config.json`."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from tf_clip.errors import require
from tf_clip.families.config import TowerConfig, TwoTowerConfig, require_positive_int, require_transformer


@dataclasses.dataclass(frozen=True, kw_only=True)
class CLIPTextConfig(TowerConfig):
    """Describes CLIP's text tower.

    Args:
        vocab_size: number of token ids.
        hidden_size: width of the residual stream.
        intermediate_size: width of the MLP's hidden layer.
        projection_dim: width of the joint space, used where the tower stands alone; inside a
            `CLIPConfig` the top-level value counts, as in transformers.
        num_hidden_layers: number of transformer blocks.
        num_attention_heads: number of heads; must divide `hidden_size`.
        max_position_embeddings: longest accepted text, in tokens.
        hidden_act: one of `HIDDEN_ACTIVATIONS`.
        layer_norm_eps: epsilon of every layer norm.
        attention_dropout: share of attention weights dropped in training.
        initializer_range: standard deviation of the vision embeddings' initial values.
        initializer_factor: factor on every initial standard deviation.
        pad_token_id, bos_token_id, eos_token_id: special ids. The text is pooled at the first
            `eos_token_id`, or at the highest id when `eos_token_id` is 2 (old checkpoints).

    Raises:
        ValueError: a value breaks a rule; the message names the field.

    Source: the defaults of transformers 5.
    """

    model_type: ClassVar[str] = "clip_text_model"
    part: ClassVar[str] = "text_config"

    vocab_size: int = 49408
    hidden_size: int = 512
    intermediate_size: int = 2048
    projection_dim: int = 512
    num_hidden_layers: int = 12
    num_attention_heads: int = 8
    max_position_embeddings: int = 77
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    attention_dropout: float = 0.0
    initializer_range: float = 0.02
    initializer_factor: float = 1.0
    pad_token_id: int | None = 1
    bos_token_id: int | None = 49406
    eos_token_id: int = 49407

    def __post_init__(self) -> None:
        require_transformer(self)
        require_positive_int(self, "vocab_size", "max_position_embeddings")
        require(
            isinstance(self.eos_token_id, int),
            "eos_token_id",
            "one integer",
            self.eos_token_id,
            "Pooling needs to know the one token that ends a text.",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class CLIPVisionConfig(TowerConfig):
    """Describes CLIP's image tower, a vision transformer.

    Args:
        hidden_size: width of the residual stream.
        intermediate_size: width of the MLP's hidden layer.
        projection_dim: width of the joint space, used where the tower stands alone.
        num_hidden_layers: number of transformer blocks.
        num_attention_heads: number of heads; must divide `hidden_size`.
        num_channels: channels of an image.
        image_size: height and width of an image, in pixels.
        patch_size: height and width of a patch, in pixels.
        hidden_act: one of `HIDDEN_ACTIVATIONS`.
        layer_norm_eps: epsilon of every layer norm.
        attention_dropout: share of attention weights dropped in training.
        initializer_range: standard deviation of the patch and position embeddings' initial values.
        initializer_factor: factor on every initial standard deviation.

    Raises:
        ValueError: a value breaks a rule; the message names the field.

    Source: the defaults of transformers 5.
    """

    model_type: ClassVar[str] = "clip_vision_model"
    part: ClassVar[str] = "vision_config"

    hidden_size: int = 768
    intermediate_size: int = 3072
    projection_dim: int = 512
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    num_channels: int = 3
    image_size: int = 224
    patch_size: int = 32
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    attention_dropout: float = 0.0
    initializer_range: float = 0.02
    initializer_factor: float = 1.0

    def __post_init__(self) -> None:
        require_transformer(self)
        require_positive_int(self, "num_channels", "image_size", "patch_size")
        require(
            self.patch_size <= self.image_size,
            "patch_size",
            f"at most `image_size` ({self.image_size})",
            self.patch_size,
            "An image must hold at least one patch.",
        )

    @property
    def num_patches(self) -> int:
        """Number of patches an image is cut into."""
        return (self.image_size // self.patch_size) ** 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class CLIPConfig(TwoTowerConfig):
    """Describes a whole CLIP model: two towers and the space they share.

    Args:
        text_config: a `CLIPTextConfig`, a dictionary of its fields, or None for the defaults.
        vision_config: a `CLIPVisionConfig` or `CLIPResNetConfig`, a dictionary of its fields (the
            latter's with its `model_type`), or None for the defaults.
        projection_dim, logit_scale_init_value, initializer_factor, logit_bias_init_value, id2label, problem_type: see
            `TwoTowerConfig`. Some OpenCLIP checkpoints have a bias.

    Raises:
        ValueError: a value breaks a rule; the message names the field.

    Example:
        >>> CLIPConfig(text_config={"num_hidden_layers": 2}).text_config.num_hidden_layers
        2

    Source: the defaults of transformers 5.
    """

    model_type: ClassVar[str] = "clip"
    text_config_class: ClassVar[type[Any]] = CLIPTextConfig
    vision_config_class: ClassVar[type[Any]] = CLIPVisionConfig
