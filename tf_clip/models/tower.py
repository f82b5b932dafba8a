"""What both towers are: a configuration, a stack of transformer blocks, and a projection into the joint space."""

from __future__ import annotations

from typing import Any

import keras

from tf_clip.layers.transformer import EncoderLayer
from tf_clip.models.pretrained import PretrainedModel


class Tower(PretrainedModel, keras.Model):
    """Makes what `CLIPTextEncoder` and `CLIPImageEncoder` share; they add how input comes in and is pooled.

    Args:
        config: a tower's configuration, a dictionary of its fields, or None for the defaults.
        projection_dim: width of the joint space; None takes `config.projection_dim`.
        projection_name: what the projection is called.
    """

    def __init__(self, config: Any, projection_dim: int | None, projection_name: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(config, self.config_class):
            config = self.config_class.from_dict(config or {})
        self.config = config
        self.projection_dim = projection_dim or config.projection_dim
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
        stddev = config.initializer_factor * config.hidden_size**-0.5
        self.projection = keras.layers.Dense(
            self.projection_dim,
            use_bias=False,
            kernel_initializer=keras.initializers.RandomNormal(stddev=stddev),
            dtype=self.dtype_policy,
            name=projection_name,
        )

    def layer_norm(self, name: str) -> keras.layers.LayerNormalization:
        """Returns a layer norm with the configuration's epsilon."""
        return keras.layers.LayerNormalization(epsilon=self.config.layer_norm_eps, dtype=self.dtype_policy, name=name)

    def build_on_width(self, *layers: keras.layers.Layer) -> None:
        """Builds layers that read the residual stream."""
        for layer in (*layers, *self.encoder_layers, self.projection):
            layer.build((None, None, self.config.hidden_size))
        self.built = True

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of `__init__`."""
        return {**super().get_config(), "config": self.config.to_dict(), "projection_dim": self.projection_dim}
