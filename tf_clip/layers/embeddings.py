"""What the two towers read first: token ids and patches, turned into vectors with positions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from tf_clip.layers.initializers import InitialNormal
from tf_clip.layers.interpolation import resize_positions


@keras.saving.register_keras_serializable(package="tf_clip")
class TextEmbeddings(keras.layers.Layer):
    """Sums the embedding of each token id and of its position.

    Args:
        vocab_size: number of token ids.
        max_position_embeddings: longest accepted text, in tokens.
        hidden_size: width of the residual stream.
        initializer_factor: factor on the initial standard deviation, 0.02.

    Call arguments:
        input_ids: int32 `[batch, length]`.
        position_ids: int32 `[length]` or `[1 or batch, length]`, each below `max_position_embeddings`;
            None counts from 0.
        changed: changes the tokens' embeddings before their positions are added.

    Returns:
        float `[batch, length, hidden_size]`.

    Raises:
        ValueError: `input_ids` is not of rank 2, or known to be longer than the positions go.
    """

    def __init__(
        self,
        vocab_size: int,
        max_position_embeddings: int,
        hidden_size: int,
        initializer_factor: float = 1.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.vocab_size = vocab_size
        self.max_position_embeddings = max_position_embeddings
        self.hidden_size = hidden_size
        self.initializer_factor = initializer_factor
        self.token_embedding, self.position_embedding = (
            keras.layers.Embedding(
                size,
                hidden_size,
                embeddings_initializer=InitialNormal(stddev=0.02 * initializer_factor),
                dtype=self.dtype_policy,
                name=name,
            )
            for size, name in ((vocab_size, "token_embedding"), (max_position_embeddings, "position_embedding"))
        )

    def build(self, input_shape: Any) -> None:
        """Makes the two tables."""
        self.token_embedding.build()
        self.position_embedding.build()
        self.built = True

    def call(
        self, input_ids: Any, position_ids: Any = None, changed: Callable[[Any], Any] = lambda tokens: tokens
    ) -> Any:
        """Embeds; see the class."""
        self.require_texts(input_ids)
        if position_ids is None:
            position_ids = ops.arange(ops.shape(input_ids)[1], dtype="int32")
        return changed(self.token_embedding(input_ids)) + self.position_embedding(position_ids)

    def require_texts(self, input_ids: Any) -> None:
        """Checks the shape of token ids.

        Raises:
            ValueError: it is not of rank 2, or known to be longer than the positions go.
        """
        shape = tuple(input_ids.shape)
        if len(shape) != 2:
            raise ValueError(
                f"`input_ids` must have shape [batch, length]. Received: input_ids.shape={shape}. "
                "For one text, add a batch axis: input_ids[None]."
            )
        if shape[1] is not None and shape[1] > self.max_position_embeddings:
            raise ValueError(
                f"`input_ids` must hold at most {self.max_position_embeddings} tokens a text. "
                f"Received: input_ids.shape={shape}. Tokenize with truncation=True."
            )

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns `[batch, length, hidden_size]`."""
        return (*input_shape, self.hidden_size)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of `__init__`."""
        return {
            **super().get_config(),
            "vocab_size": self.vocab_size,
            "max_position_embeddings": self.max_position_embeddings,
            "hidden_size": self.hidden_size,
            "initializer_factor": self.initializer_factor,
        }


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
