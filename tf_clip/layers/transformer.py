"""The transformer block both CLIP towers are stacks of: attention, MLP, and the two around a residual.

Widths and heads are arguments, never constants: H/14 has heads of 80, g/14 an MLP that is not 4x.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from tf_clip.layers.adapter_sites import NO_ROW_INPUTS, AdapterSite, RowInputs
from tf_clip.layers.initializers import InitialNormal

ATTENTION_IMPLEMENTATIONS = ("eager", "sdpa", "flash")
"""How attention may be computed: in steps, by Keras's fused operation, or by a flash kernel."""

# The score of hidden keys in the float32 softmax, where exp(-1e9) is exactly zero.
HIDDEN_KEY_SCORE = -1e9


def _normal(stddev: float) -> keras.initializers.Initializer:
    return InitialNormal(stddev=stddev)


def require_attention(attn_implementation: str, dropout: float = 0.0) -> None:
    """Checks that this backend can compute attention in the way asked for.

    Raises:
        ValueError: the name is unknown, the backend has no flash kernel, or a fused kernel would have to drop weights.
    """
    if attn_implementation not in ATTENTION_IMPLEMENTATIONS:
        raise ValueError(
            f"`attn_implementation` must be one of {', '.join(ATTENTION_IMPLEMENTATIONS)}. "
            f'Received: attn_implementation={attn_implementation!r}. Use "eager" if unsure.'
        )
    if attn_implementation == "flash" and keras.backend.backend() == "tensorflow":
        raise ValueError(
            "`attn_implementation` must be eager or sdpa on TensorFlow, which has no flash kernel. "
            "Received: attn_implementation='flash'. Set KERAS_BACKEND to jax or torch, on a GPU, for it."
        )
    if attn_implementation != "eager" and dropout:
        raise ValueError(
            "`attn_implementation` must be eager for a model with `attention_dropout`: fused kernels drop none. "
            f"Received: attn_implementation={attn_implementation!r}, attention_dropout={dropout}. Change one."
        )


def quick_gelu(x: Any) -> Any:
    """Returns `x * sigmoid(1.702 x)`, the approximation OpenAI's weights were trained with."""
    return x * ops.sigmoid(1.702 * x)


def exact_gelu(x: Any) -> Any:
    """Returns `x * Phi(x)` through the error function, as most OpenCLIP weights expect."""
    return keras.activations.gelu(x, approximate=False)


def tanh_gelu(x: Any) -> Any:
    """Returns GELU's tanh approximation."""
    return keras.activations.gelu(x, approximate=True)


ACTIVATIONS: dict[str, Callable[[Any], Any]] = {
    "quick_gelu": quick_gelu,
    "gelu": exact_gelu,
    "gelu_new": tanh_gelu,
    "gelu_pytorch_tanh": tanh_gelu,
    "relu": keras.activations.relu,
    "silu": keras.activations.silu,
}
"""From `hidden_act` to its function, for every name in `families.config.HIDDEN_ACTIVATIONS`."""


@keras.saving.register_keras_serializable(package="tf_clip")
class AdaptableDense(keras.layers.Dense):
    """A dense layer whose result adapters may change; without them it is `keras.layers.Dense`.

    Args:
        width: of its input, which is also what `build` is given.
        units: of its output.
        **kwargs: see `keras.layers.Dense`.

    Call arguments:
        x: float `[..., width]`.
        rows: what adapters may know of the rows.
    """

    def __init__(self, units: int, width: int, **kwargs: Any) -> None:
        super().__init__(units, **kwargs)
        self.width = width
        self.adapters = AdapterSite("linear", width, units, dtype=self.dtype_policy, name="adapters")

    def call(self, x: Any, rows: RowInputs = NO_ROW_INPUTS, training: bool | None = None) -> Any:
        """Transforms; see the class."""
        y = super().call(x)
        return self.adapters.run((y, x), rows, training)[0] if self.adapters.is_active else y

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of `__init__`."""
        return {**super().get_config(), "width": self.width}


@keras.saving.register_keras_serializable(package="tf_clip")
class Attention(keras.layers.Layer):
    """Lets every token read from every other through scaled dot-product attention.

    Args:
        hidden_size: width of the residual stream.
        num_heads: number of heads; must divide `hidden_size`.
        dropout: share of attention weights dropped in training.
        in_proj_stddev: standard deviation of the initial q, k and v kernels.
        out_proj_stddev: standard deviation of the initial output kernel.
        attn_implementation: one of `ATTENTION_IMPLEMENTATIONS`; all give the same result.

    Call arguments:
        x: float `[batch, length, hidden_size]`.
        visible: bool, broadcastable to `[batch, heads, length, length]`: which keys (last axis) each
            token may read. None shows all.
        causal: whether a token reads only itself and what is before it.
        output_attentions: whether the weights are returned as well; `"eager"` alone has them.
        rows: what adapters may know of the rows.

    Returns:
        float `[batch, length, hidden_size]`; with `output_attentions` a pair of it and the weights,
        `[batch, heads, length, length]`. Learned prefixes are keys, too, and come before the others.

    Raises:
        ValueError: this backend, or a fused kernel, cannot do what is asked for.

    Source: transformers' CLIPAttention. In the eager form q is scaled and the softmax is in float32.
    """

    # An export to integers sets another: between 0 and -1e9 an 8-bit number has no room for the scores themselves.
    hidden_key_score = HIDDEN_KEY_SCORE

    def __init__(
        self,
        hidden_size: int,
        num_heads: int,
        dropout: float = 0.0,
        in_proj_stddev: float = 0.02,
        out_proj_stddev: float = 0.02,
        attn_implementation: str = "eager",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        require_attention(attn_implementation, dropout)
        self.hidden_size = hidden_size
        self.num_heads = num_heads
        self.dropout = dropout
        self.in_proj_stddev = in_proj_stddev
        self.out_proj_stddev = out_proj_stddev
        self.attn_implementation = attn_implementation
        self.head_width = hidden_size // num_heads
        self.q_proj, self.k_proj, self.v_proj = (
            AdaptableDense(
                hidden_size, hidden_size, kernel_initializer=_normal(in_proj_stddev), dtype=self.dtype_policy, name=name
            )
            for name in ("q_proj", "k_proj", "v_proj")
        )
        self.out_proj = AdaptableDense(
            hidden_size,
            hidden_size,
            kernel_initializer=_normal(out_proj_stddev),
            dtype=self.dtype_policy,
            name="out_proj",
        )
        self.keys_values = AdapterSite("keys_values", hidden_size, dtype=self.dtype_policy, name="prefix_adapters")
        self.weight_dropout = keras.layers.Dropout(dropout, dtype=self.dtype_policy, name="weight_dropout")

    def build(self, input_shape: Any) -> None:
        """Makes the four projections' variables."""
        for projection in (self.q_proj, self.k_proj, self.v_proj, self.out_proj):
            projection.build((None, None, self.hidden_size))
        self.built = True

    def call(
        self,
        x: Any,
        visible: Any = None,
        causal: bool = False,
        output_attentions: bool = False,
        rows: RowInputs = NO_ROW_INPUTS,
        training: bool | None = None,
    ) -> Any:
        """Attends; see the class."""
        length = ops.shape(x)[1]
        heads = (-1, length, self.num_heads, self.head_width)
        q, k, v = (
            ops.reshape(projection(x, rows=rows, training=training), heads)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        if self.keys_values.is_active:
            visible, causal = _with_causal(visible, length) if causal else visible, False
            k, v, visible, _ = self.keys_values.run((k, v, visible, x), rows, training)
        if self.attn_implementation == "eager":
            attended, weights = self._attend_in_steps(q, k, v, visible, causal, training)
        elif output_attentions:
            raise ValueError(
                '`attn_implementation` must be "eager" for `output_attentions`: fused kernels never hold them. '
                f"Received: attn_implementation={self.attn_implementation!r}. Load the model with "
                'attn_implementation="eager".'
            )
        else:
            attended, weights = self._attend_fused(q, k, v, visible, causal), None
        attended = ops.reshape(attended, (-1, length, self.hidden_size))
        output = self.out_proj(attended, rows=rows, training=training)
        return (output, weights) if output_attentions else output

    def _attend_in_steps(
        self, q: Any, k: Any, v: Any, visible: Any, causal: bool, training: bool | None
    ) -> tuple[Any, Any]:
        """Returns what the tokens read, `[batch, length, heads, head_width]`, and how much from where."""
        q, k, v = (ops.transpose(x, (0, 2, 1, 3)) for x in (q, k, v))  # [batch, heads, length, head_width]
        scores = ops.matmul(q * self.head_width**-0.5, ops.transpose(k, (0, 1, 3, 2)))
        scores = ops.cast(scores, "float32")
        if causal:
            visible = _with_causal(visible, ops.shape(scores)[-1])
        if visible is not None:
            scores = ops.where(visible, scores, self.hidden_key_score)
        weights = ops.cast(ops.softmax(scores, axis=-1), v.dtype)
        weights = self.weight_dropout(weights, training=training)
        return ops.transpose(ops.matmul(weights, v), (0, 2, 1, 3)), weights

    def _attend_fused(self, q: Any, k: Any, v: Any, visible: Any, causal: bool) -> Any:
        return ops.dot_product_attention(
            q,
            k,
            v,
            mask=visible,
            scale=self.head_width**-0.5,
            is_causal=causal,
            flash_attention=self.attn_implementation == "flash",
        )

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the input's shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of `__init__`."""
        return {
            **super().get_config(),
            "hidden_size": self.hidden_size,
            "num_heads": self.num_heads,
            "dropout": self.dropout,
            "in_proj_stddev": self.in_proj_stddev,
            "out_proj_stddev": self.out_proj_stddev,
            "attn_implementation": self.attn_implementation,
        }


def _with_causal(visible: Any, length: Any) -> Any:
    """Hides from each token what comes after it."""
    positions = ops.arange(length, dtype="int32")
    earlier = ops.expand_dims(positions, 1) >= ops.expand_dims(positions, 0)
    return earlier if visible is None else ops.logical_and(visible, earlier)


@keras.saving.register_keras_serializable(package="tf_clip")
class MLP(keras.layers.Layer):
    """Transforms each token on its own: widen, activate, narrow.

    Args:
        hidden_size: width of the residual stream.
        intermediate_size: width in between.
        hidden_act: a name in `configuration.HIDDEN_ACTIVATIONS`.
        fc1_stddev, fc2_stddev: standard deviations of the initial kernels.

    Call arguments:
        x: float `[batch, length, hidden_size]`.

    Returns:
        float `[batch, length, hidden_size]`.
    """

    def __init__(
        self,
        hidden_size: int,
        intermediate_size: int,
        hidden_act: str = "quick_gelu",
        fc1_stddev: float = 0.02,
        fc2_stddev: float = 0.02,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.hidden_size = hidden_size
        self.intermediate_size = intermediate_size
        self.hidden_act = hidden_act
        self.fc1_stddev = fc1_stddev
        self.fc2_stddev = fc2_stddev
        self.activation = ACTIVATIONS[hidden_act]
        self.fc1 = AdaptableDense(
            intermediate_size, hidden_size, kernel_initializer=_normal(fc1_stddev), dtype=self.dtype_policy, name="fc1"
        )
        self.fc2 = AdaptableDense(
            hidden_size, intermediate_size, kernel_initializer=_normal(fc2_stddev), dtype=self.dtype_policy, name="fc2"
        )

    def build(self, input_shape: Any) -> None:
        """Makes the two kernels."""
        self.fc1.build((None, None, self.hidden_size))
        self.fc2.build((None, None, self.intermediate_size))
        self.built = True

    def call(self, x: Any, rows: RowInputs = NO_ROW_INPUTS, training: bool | None = None) -> Any:
        """Transforms; see the class."""
        # What adapters make of fc1 is activated, too.
        return self.fc2(self.activation(self.fc1(x, rows=rows, training=training)), rows=rows, training=training)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the input's shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of `__init__`."""
        return {
            **super().get_config(),
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "hidden_act": self.hidden_act,
            "fc1_stddev": self.fc1_stddev,
            "fc2_stddev": self.fc2_stddev,
        }


@keras.saving.register_keras_serializable(package="tf_clip")
class EncoderLayer(keras.layers.Layer):
    """One pre-norm transformer block: `x + attention(norm(x))`, then `x + mlp(norm(x))`.

    Args:
        hidden_size: width of the residual stream.
        intermediate_size: width of the MLP's hidden layer.
        num_heads: number of attention heads.
        num_layers: how many blocks the stack has; deeper stacks start with smaller weights.
        hidden_act: a name in `configuration.HIDDEN_ACTIVATIONS`.
        layer_norm_eps: epsilon of the two layer norms.
        attention_dropout: share of attention weights dropped in training.
        initializer_factor: factor on the initial standard deviations.
        attn_implementation: see `Attention`.

    Call arguments:
        x: float `[batch, length, hidden_size]`.
        visible, causal, output_attentions, rows: see `Attention`.

    Returns:
        float `[batch, length, hidden_size]`; with `output_attentions` a pair of it and the weights,
        `[batch, heads, length, length]`.

    Source: transformers' CLIPEncoderLayer and its initialization.
    """

    def __init__(
        self,
        hidden_size: int,
        intermediate_size: int,
        num_heads: int,
        num_layers: int,
        hidden_act: str = "quick_gelu",
        layer_norm_eps: float = 1e-5,
        attention_dropout: float = 0.0,
        initializer_factor: float = 1.0,
        attn_implementation: str = "eager",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.hidden_size = hidden_size
        self.intermediate_size = intermediate_size
        self.num_heads = num_heads
        self.num_layers = num_layers
        self.hidden_act = hidden_act
        self.layer_norm_eps = layer_norm_eps
        self.attention_dropout = attention_dropout
        self.initializer_factor = initializer_factor
        self.attn_implementation = attn_implementation

        width_stddev = initializer_factor * hidden_size**-0.5
        depth_stddev = width_stddev * (2 * num_layers) ** -0.5
        self.layer_norm1, self.layer_norm2 = (
            keras.layers.LayerNormalization(epsilon=layer_norm_eps, dtype=self.dtype_policy, name=name)
            for name in ("layer_norm1", "layer_norm2")
        )
        self.self_attn = Attention(
            hidden_size,
            num_heads,
            dropout=attention_dropout,
            in_proj_stddev=depth_stddev,
            out_proj_stddev=width_stddev,
            attn_implementation=attn_implementation,
            dtype=self.dtype_policy,
            name="self_attn",
        )
        self.attention_adapters, self.mlp_adapters, self.block_adapters = (
            AdapterSite(kind, hidden_size, dtype=self.dtype_policy, name=f"{kind}_adapters")
            for kind in ("attention", "mlp", "block")
        )
        self.mlp = MLP(
            hidden_size,
            intermediate_size,
            hidden_act=hidden_act,
            fc1_stddev=initializer_factor * (2 * hidden_size) ** -0.5,
            fc2_stddev=depth_stddev,
            dtype=self.dtype_policy,
            name="mlp",
        )

    def build(self, input_shape: Any) -> None:
        """Makes the variables of the norms, the attention and the MLP."""
        for layer in (self.layer_norm1, self.self_attn, self.layer_norm2, self.mlp):
            layer.build((None, None, self.hidden_size))
        self.built = True

    def call(
        self,
        x: Any,
        visible: Any = None,
        causal: bool = False,
        output_attentions: bool = False,
        rows: RowInputs = NO_ROW_INPUTS,
        training: bool | None = None,
    ) -> Any:
        """Runs the block; see the class."""
        attended = self.self_attn(
            self.layer_norm1(x),
            visible=visible,
            causal=causal,
            output_attentions=output_attentions,
            rows=rows,
            training=training,
        )
        attended, weights = attended if output_attentions else (attended, None)
        if self.attention_adapters.is_active:
            attended, _ = self.attention_adapters.run((attended, x), rows, training)
        x = x + attended
        transformed = self.mlp(self.layer_norm2(x), rows=rows, training=training)
        if self.mlp_adapters.is_active:
            transformed, _ = self.mlp_adapters.run((transformed, x), rows, training)
        x = x + transformed
        if self.block_adapters.is_active:
            (x,) = self.block_adapters.run((x,), rows, training)
        return (x, weights) if output_attentions else x

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the input's shape."""
        return input_shape

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of `__init__`."""
        return {
            **super().get_config(),
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_heads": self.num_heads,
            "num_layers": self.num_layers,
            "hidden_act": self.hidden_act,
            "layer_norm_eps": self.layer_norm_eps,
            "attention_dropout": self.attention_dropout,
            "initializer_factor": self.initializer_factor,
            "attn_implementation": self.attn_implementation,
        }
