"""`CLIPImageEncoder`: pixels to image embeddings."""

from __future__ import annotations

from typing import Any

import keras

from tf_clip.configuration import CLIPVisionConfig
from tf_clip.layers.embeddings import VisionEmbeddings
from tf_clip.models.outputs import CLIPOutput
from tf_clip.models.tower import Tower


@keras.saving.register_keras_serializable(package="tf_clip")
class CLIPImageEncoder(Tower):
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
        super().__init__(config, projection_dim, "visual_projection", **kwargs)
        self.embeddings = VisionEmbeddings(
            self.config.image_size,
            self.config.patch_size,
            self.config.hidden_size,
            num_channels=self.config.num_channels,
            initializer_range=self.config.initializer_range,
            initializer_factor=self.config.initializer_factor,
            dtype=self.dtype_policy,
            name="embeddings",
        )
        self.pre_layernorm = self.layer_norm("pre_layernorm")
        self.post_layernorm = self.layer_norm("post_layernorm")
        self.build()

    def build(self, input_shape: Any = None) -> None:
        """Makes every variable; the configuration knows all shapes."""
        if self.built:
            return
        size = self.config.image_size
        self.embeddings.build((None, size, size, self.config.num_channels))
        self.build_on_width(self.pre_layernorm, self.post_layernorm)

    def call(self, pixel_values: Any, training: bool | None = None) -> CLIPOutput:
        """Encodes; see the class."""
        x = self.pre_layernorm(self.embeddings(pixel_values))
        for layer in self.encoder_layers:
            x = layer(x, training=training)
        pooled = self.post_layernorm(x[:, 0])
        return CLIPOutput(image_embeds=self.projection(pooled), last_hidden_state=x, pooler_output=pooled)
