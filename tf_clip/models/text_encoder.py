"""`CLIPTextEncoder`: token ids to text embeddings."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from tf_clip.configuration import CLIPTextConfig
from tf_clip.layers.embeddings import TextEmbeddings
from tf_clip.models.outputs import CLIPOutput
from tf_clip.models.tower import Tower

# Checkpoints converted before 2023 say eos_token_id = 2 although their texts end in 49407.
LEGACY_EOS_TOKEN_ID = 2


@keras.saving.register_keras_serializable(package="tf_clip")
class CLIPTextEncoder(Tower):
    """Reads token ids from left to right and pools each text where it ends.

    Fed by `CLIPTokenizer`; read by `CLIPModel`, a retrieval index or a Keras model of your own.

    Args:
        config: a `CLIPTextConfig`, a dictionary of its fields, or None for the defaults.
        projection_dim: width of the joint space; None takes `config.projection_dim`.

    Call arguments:
        input_ids: int32 `[batch, length]`.
        attention_mask: `[batch, length]`, 1 keeps a token and 0 hides padding; None keeps all.
            Needed only for padding on the left: what follows the end of a text is never read.
        training: whether attention dropout is on.

    Returns:
        A `CLIPOutput` with `text_embeds` `[batch, projection_dim]`, **not** of unit length,
        `last_hidden_state` `[batch, length, hidden_size]` after the final norm, and
        `pooler_output` `[batch, hidden_size]`.

    Raises:
        ValueError: `input_ids` is not of rank 2, or longer than `config.max_position_embeddings`.

    Source: transformers' CLIPTextModelWithProjection.
    """

    config_class = CLIPTextConfig
    weights_root = "text_encoder"

    def __init__(
        self,
        config: CLIPTextConfig | dict[str, Any] | None = None,
        projection_dim: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(config, projection_dim, "text_projection", **kwargs)
        self.embeddings = TextEmbeddings(
            self.config.vocab_size,
            self.config.max_position_embeddings,
            self.config.hidden_size,
            initializer_factor=self.config.initializer_factor,
            dtype=self.dtype_policy,
            name="embeddings",
        )
        self.final_layer_norm = self.layer_norm("final_layer_norm")
        self.build()

    def build(self, input_shape: Any = None) -> None:
        """Makes every variable; the configuration knows all shapes."""
        if self.built:
            return
        self.embeddings.build((None, None))
        self.build_on_width(self.final_layer_norm)

    def call(self, input_ids: Any, attention_mask: Any = None, training: bool | None = None) -> CLIPOutput:
        """Encodes; see the class."""
        x = self.embeddings(input_ids)
        visible = _visible_keys(ops.shape(input_ids)[1], attention_mask)
        for layer in self.encoder_layers:
            x = layer(x, visible=visible, training=training)
        x = self.final_layer_norm(x)
        pooled = _pool_at_end(x, input_ids, self.config.eos_token_id)
        return CLIPOutput(text_embeds=self.projection(pooled), last_hidden_state=x, pooler_output=pooled)


def _visible_keys(length: Any, attention_mask: Any) -> Any:
    """Returns which tokens each may read, earlier ones and itself: bool `[1 or batch, 1, length, length]`."""
    positions = ops.arange(length, dtype="int32")
    visible = ops.expand_dims(positions, 1) >= ops.expand_dims(positions, 0)
    visible = ops.reshape(visible, (1, 1, length, length))
    if attention_mask is not None:
        kept_keys = ops.reshape(ops.cast(attention_mask, "bool"), (-1, 1, 1, length))
        visible = ops.logical_and(visible, kept_keys)
    return visible


def _pool_at_end(x: Any, input_ids: Any, eos_token_id: int) -> Any:
    """Picks each text's state at its end, `[batch, hidden_size]`; position 0 where there is no end."""
    batch, length = ops.shape(input_ids)[0], ops.shape(input_ids)[1]
    ends = input_ids if eos_token_id == LEGACY_EOS_TOKEN_ID else ops.cast(input_ids == eos_token_id, "int32")
    positions = ops.cast(ops.argmax(ends, axis=-1), "int32")  # the first of equals
    # A gather of rows exports to mobile runtimes as one exact operation; a one-hot product does not quantise.
    rows = ops.arange(batch, dtype="int32") * length + positions
    return ops.take(ops.reshape(x, (-1, x.shape[-1])), rows, axis=0)
