"""A family that the package does not know: towers of Keras layers, bidirectional padded text, sigmoid scores."""

from __future__ import annotations

import dataclasses
from types import MappingProxyType
from typing import Any, ClassVar

import keras
from keras import ops

from tf_clip.families.config import TowerConfig, TwoTowerConfig
from tf_clip.families.family import Family, register
from tf_clip.models.two_towers import TwoTowerModel
from tf_clip.preprocessing.images.image_processor import ImageProcessor
from tf_clip.preprocessing.processor import Processor
from tf_clip.preprocessing.text.tokenizer import BytePairTokenizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToyTextConfig(TowerConfig):
    model_type: ClassVar[str] = "toy_text_model"
    part: ClassVar[str] = "text_config"

    vocab_size: int = 514
    hidden_size: int = 12
    max_position_embeddings: int = 10
    projection_dim: int = 6


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToyImageConfig(TowerConfig):
    model_type: ClassVar[str] = "toy_vision_model"
    part: ClassVar[str] = "vision_config"

    image_size: int = 16
    num_channels: int = 3
    hidden_size: int = 8
    projection_dim: int = 6


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToyConfig(TwoTowerConfig):
    model_type: ClassVar[str] = "toy"
    text_config_class: ClassVar[type[Any]] = ToyTextConfig
    vision_config_class: ClassVar[type[Any]] = ToyImageConfig

    projection_dim: int = 6
    logit_bias_init_value: float | None = -10.0


class _Tower(keras.Model):
    config_class: ClassVar[Any]

    def __init__(self, config: Any = None, projection_dim: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.config = self.config_class.from_dict(config) if isinstance(config, dict) else config or self.config_class()
        self.projection_dim = projection_dim or self.config.projection_dim

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "config": self.config.to_dict(), "projection_dim": self.projection_dim}


@keras.saving.register_keras_serializable(package="toy")
class ToyTextTower(_Tower):
    """Mixes all positions, those behind an end included, and pools the last; padding is zeros there, not left out."""

    config_class = ToyTextConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        config = self.config
        self.tokens = keras.layers.Embedding(config.vocab_size, config.hidden_size, name="tokens")
        self.mix = keras.layers.Dense(config.max_position_embeddings, name="mix")
        self.head = keras.layers.Dense(self.projection_dim, name="head")
        self.build((None, config.max_position_embeddings))

    def build(self, input_shape: Any) -> None:
        self.tokens.build((None, None))
        self.mix.build((None, self.config.hidden_size, self.config.max_position_embeddings))
        self.head.build((None, self.config.hidden_size))

    def call(self, input_ids: Any, attention_mask: Any = None, training: bool | None = None) -> dict[str, Any]:
        x = self.tokens(input_ids)
        if attention_mask is not None:
            x = x * ops.cast(attention_mask, x.dtype)[..., None]
        states = ops.tanh(self.mix(ops.transpose(x, (0, 2, 1))))
        return {"text_embeds": self.head(states[:, :, -1])}


@keras.saving.register_keras_serializable(package="toy")
class ToyImageTower(_Tower):
    config_class = ToyImageConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.convolve = keras.layers.Conv2D(self.config.hidden_size, 4, strides=4, name="convolve")
        self.head = keras.layers.Dense(self.projection_dim, name="head")
        self.build((None, self.config.image_size, self.config.image_size, self.config.num_channels))

    def build(self, input_shape: Any) -> None:
        self.convolve.build(input_shape)
        self.head.build((None, self.config.hidden_size))

    def call(self, pixel_values: Any, training: bool | None = None) -> dict[str, Any]:
        return {"image_embeds": self.head(ops.mean(ops.tanh(self.convolve(pixel_values)), axis=(1, 2)))}


@keras.saving.register_keras_serializable(package="toy")
class ToyModel(TwoTowerModel):
    config_class = ToyConfig


class ToyTokenizer(BytePairTokenizer):
    defaults = MappingProxyType(
        {
            "model_max_length": 10,
            "bos_token": "<|startoftext|>",
            "eos_token": "<|endoftext|>",
            "pad_token": "<|endoftext|>",
            "padding": "max_length",
        }
    )


class ToyImageProcessor(ImageProcessor):
    defaults = MappingProxyType(
        {"size": {"height": 16, "width": 16}, "do_center_crop": False, "image_mean": 0.5, "image_std": 0.5}
    )


class ToyProcessor(Processor):
    """The package's tokenizer and image processor, with defaults of the family's own."""

    tokenizer_class, image_processor_class = ToyTokenizer, ToyImageProcessor


register(
    Family(
        name="toy",
        config=ToyConfig,
        text_config=ToyTextConfig,
        image_config=ToyImageConfig,
        model=f"{__name__}:ToyModel",
        text_tower=f"{__name__}:ToyTextTower",
        image_tower=f"{__name__}:ToyImageTower",
        processor=f"{__name__}:ToyProcessor",
        padding="max_length",
        text_is_causal=False,
        pooling="last",
        scores="sigmoid",
    )
)


def toy_processor() -> ToyProcessor:
    from tf_clip.preprocessing.text.byte_pair_encoding import byte_symbols

    symbols = byte_symbols()
    names = [*symbols, *(symbol + "</w>" for symbol in symbols), "<|startoftext|>", "<|endoftext|>"]
    return ToyProcessor(ToyImageProcessor(), ToyTokenizer({name: index for index, name in enumerate(names)}, []))
