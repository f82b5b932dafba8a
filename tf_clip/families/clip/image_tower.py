"""The image towers: `CLIPVisionModel`, and `CLIPImageEncoder` with the projection into the joint space."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from tf_clip.families.clip.config import CLIPVisionConfig
from tf_clip.layers.adapter_sites import RowInputs
from tf_clip.layers.initializers import InitialNormal
from tf_clip.layers.interpolation import resize_positions
from tf_clip.models.outputs import CLIPOutput
from tf_clip.models.transformer_tower import Tower


@keras.saving.register_keras_serializable(package="tf_clip")
class VisionEmbeddings(keras.layers.Layer):
    """Cuts images into patches, embeds each, and puts a class token in front.

    Args:
        image_size: height and width of an image, in pixels.
        patch_size: height and width of a patch, in pixels.
        hidden_size: width of the residual stream.
        num_channels: channels of an image.
        initializer_range: initial standard deviation of patch kernel and positions.
        initializer_factor: factor on the initial standard deviations.

    Call arguments:
        pixel_values: float `[batch, height, width, channels]`, channels last.
        interpolate_pos_encoding: whether images of any size are read, the positions stretched to theirs.

    Returns:
        float `[batch, 1 + patches, hidden_size]`; the class token is at index 0, the patches follow
        row by row.

    Raises:
        ValueError: the images are not of `image_size`, or smaller than a patch.
    """

    def __init__(
        self,
        image_size: int,
        patch_size: int,
        hidden_size: int,
        num_channels: int = 3,
        initializer_range: float = 0.02,
        initializer_factor: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.image_size = image_size
        self.patch_size = patch_size
        self.hidden_size = hidden_size
        self.num_channels = num_channels
        self.initializer_range = initializer_range
        self.initializer_factor = initializer_factor
        self.num_patches = (image_size // patch_size) ** 2
        initializer = InitialNormal(stddev=initializer_range * initializer_factor)
        self.patch_embedding = keras.layers.Conv2D(
            hidden_size,
            patch_size,
            strides=patch_size,
            use_bias=False,
            data_format="channels_last",
            kernel_initializer=initializer,
            dtype=self.dtype_policy,
            name="patch_embedding",
        )
        self.position_embedding = keras.layers.Embedding(
            self.num_patches + 1,
            hidden_size,
            embeddings_initializer=initializer.clone(),
            dtype=self.dtype_policy,
            name="position_embedding",
        )

    def build(self, input_shape: Any) -> None:
        """Makes the class token, the patch kernel and the position table."""
        stddev = self.initializer_factor * self.hidden_size**-0.5
        self.class_embedding = self.add_weight(
            shape=(self.hidden_size,),
            initializer=InitialNormal(stddev=stddev),
            name="class_embedding",
        )
        self.patch_embedding.build((None, self.image_size, self.image_size, self.num_channels))
        self.position_embedding.build()
        self.built = True

    def call(self, pixel_values: Any, interpolate_pos_encoding: bool = False) -> Any:
        """Embeds; see the class."""
        self._require_size(tuple(pixel_values.shape), interpolate_pos_encoding)
        patches_grid = self.patch_embedding(pixel_values)  # [batch, rows, columns, hidden_size]
        grid = ops.shape(patches_grid)[1:3]
        patches = ops.reshape(patches_grid, (-1, grid[0] * grid[1], self.hidden_size))
        class_token = ops.cast(ops.reshape(self.class_embedding, (1, 1, self.hidden_size)), patches.dtype)
        class_tokens = ops.repeat(class_token, ops.shape(patches)[0], axis=0)
        tokens = ops.concatenate([class_tokens, patches], axis=1)
        side = self.image_size // self.patch_size
        fits = not interpolate_pos_encoding or tuple(patches_grid.shape[1:3]) == (side, side)
        return tokens + (self._positions() if fits else self._positions_stretched_to(grid))

    def _require_size(self, shape: tuple[int | None, ...], interpolate_pos_encoding: bool) -> None:
        size, channels = self.image_size, self.num_channels
        if interpolate_pos_encoding:
            fits = len(shape) == 4 and shape[3] in (None, channels)
            fits = fits and all(side is None or side >= self.patch_size for side in shape[1:3])
            wanted = f"[batch, height, width, {channels}], each side at least {self.patch_size}"
        else:
            fits = len(shape) == 4 and all(
                got in (None, want) for got, want in zip(shape[1:], (size, size, channels), strict=True)
            )
            wanted = f"[batch, {size}, {size}, {channels}]"
        if not fits:
            raise ValueError(
                f"`pixel_values` must have shape {wanted}, channels last. Received: pixel_values.shape={shape}. Let "
                "CLIPProcessor or CLIPFeatureExtractorTF make them"
                + ("." if interpolate_pos_encoding else ", or pass interpolate_pos_encoding=True for other sizes.")
            )

    def _positions(self) -> Any:
        """Returns the class token's position and the patches', `[1 + patches, hidden_size]`."""
        return self.position_embedding(ops.arange(self.num_patches + 1, dtype="int32"))

    def _positions_stretched_to(self, grid: tuple[Any, Any]) -> Any:
        """Returns the same for another number of rows and columns; the class token's stays."""
        table = ops.cast(ops.convert_to_tensor(self.position_embedding.embeddings), "float32")
        side = self.image_size // self.patch_size
        patches = resize_positions(table[1:], (side, side), grid)
        return ops.cast(ops.concatenate([table[:1], patches], axis=0), self.compute_dtype)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns `[batch, 1 + patches, hidden_size]`."""
        rows, columns = (side and side // self.patch_size for side in input_shape[1:3])
        patches = None if rows is None or columns is None else 1 + rows * columns
        return (input_shape[0], patches, self.hidden_size)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of `__init__`."""
        return {
            **super().get_config(),
            "image_size": self.image_size,
            "patch_size": self.patch_size,
            "hidden_size": self.hidden_size,
            "num_channels": self.num_channels,
            "initializer_range": self.initializer_range,
            "initializer_factor": self.initializer_factor,
        }


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
