"""The image towers: `CLIPVisionModel`, and `CLIPImageEncoder` with the projection into the joint space."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from tf_clip.families.clip.config import CLIPVisionConfig
from tf_clip.layers.adapter_sites import RowInputs
from tf_clip.layers.embeddings import VisionEmbeddings
from tf_clip.models.outputs import CLIPOutput
from tf_clip.models.transformer_tower import Tower


@keras.saving.register_keras_serializable(package="tf_clip")
class CLIPVisionModel(Tower):
    """Reads an image as a row of patches and pools it at the class token.

    Fed by `CLIPFeatureExtractorTF`. Most uses want `CLIPImageEncoder`, which also projects into the joint space.

    Args:
        config: a `CLIPVisionConfig`, a dictionary of its fields, or None for the defaults.
        attn_implementation: `"eager"`, `"sdpa"` (Keras's fused operation) or `"flash"` (JAX and
            PyTorch, on a GPU). All give the same result.
        gradient_checkpointing: whether training computes each block a second time instead of
            keeping what is inside it: less memory, more time.

    Call arguments:
        pixel_values: float32 `[batch, height, width, 3]`, channels last, normalized.
        interpolate_pos_encoding: reads images of any size, the positions stretched to theirs.
        output_hidden_states: adds `hidden_states`.
        output_attentions: adds `attentions`; needs `attn_implementation="eager"`.
        adapter_ids: int32 `[batch]`, the number of each row's adapter while `Switch` is active, -1 for none.
        training: whether attention dropout is on.

    Returns:
        A `CLIPOutput` with `last_hidden_state` `[batch, 1 + patches, hidden_size]` before the final
        norm, `pooler_output` `[batch, hidden_size]`, and where asked for `hidden_states`, one more than
        there are blocks, `[batch, 1 + patches, hidden_size]` each, and `attentions`, one a block,
        `[batch, heads, 1 + patches, 1 + patches]`.

    Raises:
        ValueError: the images are not of `config.image_size`.

    Source: transformers' CLIPVisionModel, with channels last.
    """

    config_class = CLIPVisionConfig
    _weights_root = "image_encoder"
    tower = "vision"
    call_options = (*Tower.call_options, "interpolate_pos_encoding")

    def __init__(self, config: CLIPVisionConfig | dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
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

    def call(
        self,
        pixel_values: Any,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        interpolate_pos_encoding: bool = False,
        adapter_ids: Any = None,
        training: bool | None = None,
    ) -> CLIPOutput:
        """Encodes; see the class."""
        rows = RowInputs(adapter_ids=self.for_each_copy(adapter_ids))
        pixel_values = self.for_each_copy(pixel_values)
        x = self.embeddings(pixel_values, interpolate_pos_encoding=interpolate_pos_encoding)
        prompts = self.prompt_adapters.extra_tokens
        if prompts:
            x, _ = self.prompt_adapters.run((x, 0), rows, training)
        x = self.pre_layernorm(x)
        x, inside = self.run_blocks(x, output_hidden_states, output_attentions, training, rows=rows)
        if prompts:  # what is left is the class token and the patches
            x = ops.concatenate([x[:, :1], x[:, 1 + prompts :]], axis=1)
        return self.assemble(x, self.post_layernorm(x[:, 0]), inside)


@keras.saving.register_keras_serializable(package="tf_clip")
class CLIPImageEncoder(CLIPVisionModel):
    """Encodes images into the space they share with texts; `CLIPVisionModelWithProjection` is the same class.

    Fed by `CLIPFeatureExtractorTF`; read by `CLIPModel`, a retrieval index or a Keras model of your own.

    Args:
        config: a `CLIPVisionConfig`, a dictionary of its fields, or None for the defaults.
        projection_dim: width of the joint space; None takes `config.projection_dim`.
        **kwargs: `attn_implementation` and `gradient_checkpointing`, see `CLIPVisionModel`.

    Call arguments:
        As those of `CLIPVisionModel`.

    Returns:
        What `CLIPVisionModel` returns, and `image_embeds` `[batch, projection_dim]`, **not** of unit length.

    Source: transformers' CLIPVisionModelWithProjection, with channels last.
    """

    _projection_name = "visual_projection"
    embeds_name = "image_embeds"

    def __init__(
        self,
        config: CLIPVisionConfig | dict[str, Any] | None = None,
        projection_dim: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(config, projection_dim=projection_dim, **kwargs)
