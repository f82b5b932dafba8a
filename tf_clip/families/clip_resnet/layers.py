"""The parts of CLIP's ResNet towers: stem, bottleneck block, and the attention that pools the last feature map."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from tf_clip.layers.initializers import InitialNormal

_NORM_EPSILON = 1e-5


def _convolution(filters: int, kernel_size: int, name: str, dtype: Any, **kwargs: Any) -> keras.layers.Conv2D:
    # PyTorch's default for convolutions: uniform up to fan_in ** -0.5, whose variance is 1 / (3 fan_in).
    initializer = keras.initializers.VarianceScaling(1 / 3, mode="fan_in", distribution="uniform")
    return keras.layers.Conv2D(
        filters,
        kernel_size,
        use_bias=False,
        data_format="channels_last",
        kernel_initializer=initializer,
        dtype=dtype,
        name=name,
        **{"padding": "same", **kwargs},
    )


def _norm(name: str, dtype: Any, **kwargs: Any) -> keras.layers.BatchNormalization:
    return keras.layers.BatchNormalization(momentum=0.9, epsilon=_NORM_EPSILON, dtype=dtype, name=name, **kwargs)


def _average_pool(stride: int, name: str, dtype: Any) -> keras.layers.AveragePooling2D:
    return keras.layers.AveragePooling2D(stride, data_format="channels_last", dtype=dtype, name=name)


@keras.saving.register_keras_serializable(package="tf_clip")
class Stem(keras.layers.Layer):
    """Turns pixels into a feature map of a quarter of their size by three convolutions and a pooling.

    Args:
        embedding_size: channels that come out; the first two convolutions have half of them.

    Call arguments:
        pixel_values: float `[batch, height, width, channels]`.
        training: whether batch norms use and update the statistics of the batch.

    Returns:
        float `[batch, height / 4, width / 4, embedding_size]`.

    Source: OpenAI's ModifiedResNet.
    """

    def __init__(self, embedding_size: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.embedding_size = embedding_size
        policy = self.dtype_policy
        # "same" would pad the strided convolution on the far side only; the reference pads both.
        self.pad = keras.layers.ZeroPadding2D(1, data_format="channels_last", dtype=policy, name="pad")
        self.conv1 = _convolution(embedding_size // 2, 3, "conv1", policy, strides=2, padding="valid")
        self.conv2 = _convolution(embedding_size // 2, 3, "conv2", policy)
        self.conv3 = _convolution(embedding_size, 3, "conv3", policy)
        self.bn1, self.bn2, self.bn3 = (_norm(f"bn{index}", policy) for index in (1, 2, 3))
        self.pool = _average_pool(2, "pool", policy)

    def build(self, input_shape: Any) -> None:
        """Makes the kernels and norms."""
        half = self.embedding_size // 2
        widths = (input_shape[-1], half, half, self.embedding_size)
        for index in (1, 2, 3):
            getattr(self, f"conv{index}").build((None, None, None, widths[index - 1]))
            getattr(self, f"bn{index}").build((None, None, None, widths[index]))
        self.built = True

    def call(self, pixel_values: Any, training: bool | None = None) -> Any:
        """Transforms; see the class."""
        x = ops.relu(self.bn1(self.conv1(self.pad(pixel_values)), training=training))
        x = ops.relu(self.bn2(self.conv2(x), training=training))
        x = ops.relu(self.bn3(self.conv3(x), training=training))
        return self.pool(x)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns `[batch, height / 4, width / 4, embedding_size]`."""
        batch, height, width, _ = input_shape
        # Each convolution step rounds up, the pooling down.
        height, width = (side and ((side + 1) // 2) // 2 for side in (height, width))
        return (batch, height, width, self.embedding_size)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of `__init__`."""
        return {**super().get_config(), "embedding_size": self.embedding_size}


@keras.saving.register_keras_serializable(package="tf_clip")
class Bottleneck(keras.layers.Layer):
    """One residual block: narrow, look around, widen to four times as much.

    Where it halves the image, an average pooling does so, in place of a strided convolution.

    Args:
        width: channels inside; four times as many come out.
        stride: 2 halves height and width, 1 keeps them.
        has_shortcut_projection: whether the way around the block changes the channels, too.

    Call arguments:
        x: float `[batch, height, width, channels]`.
        training: whether batch norms use and update the statistics of the batch.

    Returns:
        float `[batch, height / stride, width / stride, 4 * width]`.

    Source: OpenAI's ModifiedResNet.
    """

    def __init__(self, width: int, stride: int = 1, has_shortcut_projection: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.width = width
        self.stride = stride
        self.has_shortcut_projection = has_shortcut_projection
        policy = self.dtype_policy
        self.conv1 = _convolution(width, 1, "conv1", policy)
        self.conv2 = _convolution(width, 3, "conv2", policy)
        self.conv3 = _convolution(4 * width, 1, "conv3", policy)
        self.bn1, self.bn2 = _norm("bn1", policy), _norm("bn2", policy)
        # A new block begins as its shortcut alone.
        self.bn3 = _norm("bn3", policy, gamma_initializer="zeros")
        self.pool = _average_pool(stride, "pool", policy) if stride > 1 else None
        if has_shortcut_projection:
            self.downsample_pool = _average_pool(stride, "downsample_pool", policy) if stride > 1 else None
            self.downsample_conv = _convolution(4 * width, 1, "downsample_conv", policy)
            self.downsample_bn = _norm("downsample_bn", policy)

    def build(self, input_shape: Any) -> None:
        """Makes the kernels and norms."""
        channels, width = input_shape[-1], self.width
        parts = [("conv1", channels), ("bn1", width), ("conv2", width), ("bn2", width), ("conv3", width)]
        parts += [("bn3", 4 * width)]
        if self.has_shortcut_projection:
            parts += [("downsample_conv", channels), ("downsample_bn", 4 * width)]
        for name, incoming in parts:
            getattr(self, name).build((None, None, None, incoming))
        self.built = True

    def call(self, x: Any, training: bool | None = None) -> Any:
        """Runs the block; see the class."""
        shortcut = x
        if self.has_shortcut_projection:
            pooled = x if self.downsample_pool is None else self.downsample_pool(x)
            shortcut = self.downsample_bn(self.downsample_conv(pooled), training=training)
        x = ops.relu(self.bn1(self.conv1(x), training=training))
        x = ops.relu(self.bn2(self.conv2(x), training=training))
        x = x if self.pool is None else self.pool(x)
        x = self.bn3(self.conv3(x), training=training)
        return ops.relu(x + shortcut)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns `[batch, height / stride, width / stride, 4 * width]`."""
        batch, height, width, _ = input_shape
        return (batch, height and height // self.stride, width and width // self.stride, 4 * self.width)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of `__init__`."""
        return {
            **super().get_config(),
            "width": self.width,
            "stride": self.stride,
            "has_shortcut_projection": self.has_shortcut_projection,
        }


@keras.saving.register_keras_serializable(package="tf_clip")
class AttentionPool(keras.layers.Layer):
    """Pools a feature map by letting its mean attend to every place, with learned positions.

    Args:
        hidden_size: channels of the feature map.
        num_heads: number of heads; must divide `hidden_size`.
        num_places: height times width of the feature map.

    Call arguments:
        x: float `[batch, height, width, hidden_size]`.

    Returns:
        float `[batch, hidden_size]`.

    Source: OpenAI's AttentionPool2d, without the projection at its end.
    """

    def __init__(self, hidden_size: int, num_heads: int, num_places: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.hidden_size = hidden_size
        self.num_heads = num_heads
        self.num_places = num_places
        initializer = InitialNormal(stddev=hidden_size**-0.5)
        self.q_proj, self.k_proj, self.v_proj = (
            keras.layers.Dense(hidden_size, kernel_initializer=initializer.clone(), dtype=self.dtype_policy, name=name)
            for name in ("q_proj", "k_proj", "v_proj")
        )

    def build(self, input_shape: Any) -> None:
        """Makes the positions and the projections."""
        self.positional_embedding = self.add_weight(
            shape=(self.num_places + 1, self.hidden_size),
            initializer=InitialNormal(stddev=self.hidden_size**-0.5),
            name="positional_embedding",
        )
        for projection in (self.q_proj, self.k_proj, self.v_proj):
            projection.build((None, None, self.hidden_size))
        self.built = True

    def call(self, x: Any) -> Any:
        """Pools; see the class."""
        x = ops.reshape(x, (-1, self.num_places, self.hidden_size))
        x = ops.concatenate([ops.mean(x, axis=1, keepdims=True), x], axis=1)
        x = x + ops.cast(self.positional_embedding, x.dtype)
        head_width = self.hidden_size // self.num_heads
        q = ops.reshape(self.q_proj(x[:, :1]) * head_width**-0.5, (-1, self.num_heads, 1, head_width))
        k, v = (
            ops.transpose(ops.reshape(y, (-1, self.num_places + 1, self.num_heads, head_width)), (0, 2, 1, 3))
            for y in (self.k_proj(x), self.v_proj(x))
        )
        scores = ops.cast(ops.matmul(q, ops.transpose(k, (0, 1, 3, 2))), "float32")  # [batch, heads, 1, places + 1]
        weights = ops.cast(ops.softmax(scores, axis=-1), v.dtype)
        return ops.reshape(ops.matmul(weights, v), (-1, self.hidden_size))

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns `[batch, hidden_size]`."""
        return (input_shape[0], self.hidden_size)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of `__init__`."""
        return {
            **super().get_config(),
            "hidden_size": self.hidden_size,
            "num_heads": self.num_heads,
            "num_places": self.num_places,
        }
