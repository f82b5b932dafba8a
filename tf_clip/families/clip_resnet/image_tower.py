"""`CLIPResNetImageEncoder`: pixels to image embeddings by a ResNet, as in RN50 to RN50x64."""

from __future__ import annotations

from typing import Any, ClassVar

import keras

from tf_clip.adapters.model import AdaptableModel
from tf_clip.families.clip_resnet.config import CLIPResNetConfig
from tf_clip.families.clip_resnet.layers import AttentionPool, Bottleneck, Stem
from tf_clip.layers.initializers import InitialNormal
from tf_clip.models.outputs import CLIPOutput
from tf_clip.models.pretrained import PretrainedModel


@keras.saving.register_keras_serializable(package="tf_clip")
class CLIPResNetImageEncoder(AdaptableModel, PretrainedModel, keras.Model):
    """Encodes images into the space they share with texts, by convolutions and a pooling attention.

    Fed by `CLIPFeatureExtractorTF`; `CLIPModel` makes one when its `vision_config` is a `CLIPResNetConfig`.
    Training uses and updates the batch norms' statistics; set `trainable = False` to keep them.

    Args:
        config: a `CLIPResNetConfig`, a dictionary of its fields, or None for RN50's.
        projection_dim: width of the joint space; None takes `config.projection_dim`.

    Call arguments:
        pixel_values: float32 `[batch, height, width, 3]`, channels last, normalized.
        output_hidden_states: adds `hidden_states`, the feature maps behind the stem and each stage.
        training: whether batch norms use and update the statistics of the batch.

    Returns:
        A `CLIPOutput` with `image_embeds` `[batch, projection_dim]`, **not** of unit length,
        `last_hidden_state` `[batch, height / 32, width / 32, hidden_size]`, `pooler_output`
        `[batch, hidden_size]`, and `hidden_states` where asked for.

    Raises:
        ValueError: the images are not of `config.image_size`.

    Source: Radford et al. 2021, section 2.4; OpenAI's ModifiedResNet, with channels last.
    """

    config: Any
    built: bool
    config_class = CLIPResNetConfig
    _weights_root = "image_encoder"
    _projection_name = "visual_projection"
    # What a whole model may hand on to `__init__` and to `call`.
    init_options: ClassVar[tuple[str, ...]] = ()
    call_options: ClassVar[tuple[str, ...]] = ("output_hidden_states",)

    def __init__(
        self,
        config: CLIPResNetConfig | dict[str, Any] | None = None,
        projection_dim: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.config = self._as_config(config)
        self.projection_dim = projection_dim or self.config.projection_dim
        self.stem = Stem(self.config.embedding_size, dtype=self.dtype_policy, name="stem")
        self.stages = [
            [
                Bottleneck(
                    self.config.embedding_size * 2**stage,
                    stride=2 if stage > 0 and index == 0 else 1,
                    has_shortcut_projection=index == 0,
                    dtype=self.dtype_policy,
                    name=f"stage{stage + 1}_{index}",
                )
                for index in range(depth)
            ]
            for stage, depth in enumerate(self.config.depths)
        ]
        self.attention_pool = AttentionPool(
            self.config.hidden_size,
            self.config.num_attention_heads,
            self.config.num_patches,
            dtype=self.dtype_policy,
            name="attention_pool",
        )
        self.projection = keras.layers.Dense(
            self.projection_dim,
            kernel_initializer=InitialNormal(stddev=self.config.hidden_size**-0.5),
            dtype=self.dtype_policy,
            name=self._projection_name,
        )
        self.build()

    def build(self, input_shape: Any = None) -> None:
        """Makes every variable; the configuration knows all shapes."""
        if self.built:
            return
        config = self.config
        self.stem.build((None, config.image_size, config.image_size, config.num_channels))
        channels = config.embedding_size
        for stage in self.stages:
            for block in stage:
                block.build((None, None, None, channels))
                channels = 4 * block.width
        self.attention_pool.build((None, None, None, channels))
        self.projection.build((None, channels))
        self.built = True

    def call(self, pixel_values: Any, output_hidden_states: bool = False, training: bool | None = None) -> CLIPOutput:
        """Encodes; see the class."""
        size, channels = self.config.image_size, self.config.num_channels
        shape = tuple(pixel_values.shape)
        if len(shape) != 4 or any(
            got not in (None, want) for got, want in zip(shape[1:], (size, size, channels), strict=True)
        ):
            raise ValueError(
                f"`pixel_values` must have shape [batch, {size}, {size}, {channels}], channels last. Received: "
                f"pixel_values.shape={shape}. Let CLIPProcessor or CLIPFeatureExtractorTF make them."
            )
        x = self.stem(pixel_values, training=training)
        states = [x]
        for stage in self.stages:
            for block in stage:
                x = block(x, training=training)
            states.append(x)
        pooled = self.attention_pool(x)
        output = CLIPOutput(image_embeds=self.projection(pooled), last_hidden_state=x, pooler_output=pooled)
        if output_hidden_states:
            output["hidden_states"] = tuple(states)
        return output

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of `__init__`."""
        return {**super().get_config(), "config": self.config.to_dict(), "projection_dim": self.projection_dim}
