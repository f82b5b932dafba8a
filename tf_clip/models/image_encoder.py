"""`CLIPImageEncoder`: pixels to image embeddings."""

from __future__ import annotations

from typing import Any

import keras

from tf_clip.configuration import CLIPVisionConfig
from tf_clip.layers.embeddings import VisionEmbeddings
from tf_clip.layers.transformer import EncoderLayer
from tf_clip.models.outputs import CLIPOutput
from tf_clip.models.pretrained import PretrainedModel


@keras.saving.register_keras_serializable(package="tf_clip")
class CLIPImageEncoder(PretrainedModel, keras.Model):
    """Reads a picture as a row of patches and pools it at the class token.

    Fed by `CLIPFeatureExtractorTF`; read by `CLIPModel`, a retrieval index or a Keras model of your own.

    Args:
        config: a `CLIPVisionConfig`, a dictionary of its fields, or None for the defaults.
        projection_dim: width of the joint space; None takes `config.projection_dim`.

    Call arguments:
        pixel_values: float32 `[batch, height, width, 3]`, channels last, normalised.
        training: whether attention dropout is on.

    Returns:
        A `CLIPOutput` with `image_embeds` `[batch, projection_dim]`, **not** of unit length,
        `last_hidden_state` `[batch, 1 + patches, hidden_size]` before the final norm, and
        `pooler_output` `[batch, hidden_size]`.

    Raises:
        ValueError: the pictures are not of `config.image_size`.

    Source: transformers' CLIPVisionModelWithProjection, with channels last.
    """

    config_class = CLIPVisionConfig
    weights_root = "image_encoder"

    def __init__(
        self,
        config: CLIPVisionConfig | dict[str, Any] | None = None,
        projection_dim: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not isinstance(config, CLIPVisionConfig):
            config = CLIPVisionConfig.from_dict(config or {})
        self.config = config
        self.projection_dim = projection_dim or config.projection_dim
        self.embeddings = VisionEmbeddings(
            config.image_size,
            config.patch_size,
            config.hidden_size,
            num_channels=config.num_channels,
            initializer_range=config.initializer_range,
            initializer_factor=config.initializer_factor,
            dtype=self.dtype_policy,
            name="embeddings",
        )
        self.pre_layernorm, self.post_layernorm = (
            keras.layers.LayerNormalization(epsilon=config.layer_norm_eps, dtype=self.dtype_policy, name=name)
            for name in ("pre_layernorm", "post_layernorm")
        )
        self.encoder_layers = [
            EncoderLayer(
                config.hidden_size,
                config.intermediate_size,
                config.num_attention_heads,
                config.num_hidden_layers,
                hidden_act=config.hidden_act,
                layer_norm_eps=config.layer_norm_eps,
                attention_dropout=config.attention_dropout,
                initializer_factor=config.initializer_factor,
                dtype=self.dtype_policy,
                name=f"layers_{index}",
            )
            for index in range(config.num_hidden_layers)
        ]
        self.visual_projection = keras.layers.Dense(
            self.projection_dim,
            use_bias=False,
            kernel_initializer=keras.initializers.RandomNormal(
                stddev=config.initializer_factor * config.hidden_size**-0.5
            ),
            dtype=self.dtype_policy,
            name="visual_projection",
        )
        self.build()

    def build(self, input_shape: Any = None) -> None:
        """Makes every variable; the configuration knows all shapes."""
        if self.built:
            return
        size = self.config.image_size
        self.embeddings.build((None, size, size, self.config.num_channels))
        for layer in (self.pre_layernorm, *self.encoder_layers, self.post_layernorm, self.visual_projection):
            layer.build((None, None, self.config.hidden_size))
        self.built = True

    def call(self, pixel_values: Any, training: bool | None = None) -> CLIPOutput:
        """Encodes; see the class."""
        x = self.pre_layernorm(self.embeddings(pixel_values))
        for layer in self.encoder_layers:
            x = layer(x, training=training)
        pooled = self.post_layernorm(x[:, 0])
        return CLIPOutput(image_embeds=self.visual_projection(pooled), last_hidden_state=x, pooler_output=pooled)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of `__init__`."""
        return {**super().get_config(), "config": self.config.to_dict(), "projection_dim": self.projection_dim}
