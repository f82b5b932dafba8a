"""What both transformer towers are: a configuration, a stack of blocks, and maybe a projection into the joint space."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import keras
from keras import ops

from tf_clip.adapters.model import AdaptableModel
from tf_clip.adapters.sites import AdaptableTower, Location, layer_locations
from tf_clip.layers.adapter_sites import AdapterSite
from tf_clip.layers.initializers import InitialNormal
from tf_clip.layers.transformer import EncoderLayer, require_attention
from tf_clip.models.outputs import CLIPOutput
from tf_clip.models.pretrained import PretrainedModel


class Tower(AdaptableModel, AdaptableTower, PretrainedModel, keras.Model):
    """Makes what the towers share; they add how input comes in and is pooled.

    Args:
        config: a tower's configuration, a dictionary of its fields, or None for the defaults.
        attn_implementation: how attention is computed: `"eager"`, `"sdpa"` (Keras's fused operation) or
            `"flash"` (JAX and PyTorch, on a GPU). All give the same result.
        gradient_checkpointing: whether training computes each block a second time instead of
            keeping what is inside it: less memory, more time.
        projection_dim: width of the joint space, for the towers that have a projection; None takes
            `config.projection_dim`.
    """

    # What the projection's result is called in the towers that have one.
    embeds_name: ClassVar[str]
    # `"text"` or `"vision"`.
    tower: ClassVar[str]
    # What a whole model may hand on to `__init__` and to `call`.
    init_options: ClassVar[tuple[str, ...]] = ("attn_implementation", "gradient_checkpointing")
    call_options: ClassVar[tuple[str, ...]] = ("output_attentions", "output_hidden_states", "adapter_ids")

    def __init__(
        self,
        config: Any = None,
        *,
        projection_dim: int | None = None,
        attn_implementation: str = "eager",
        gradient_checkpointing: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        config = self._as_config(config)
        if self._projection_name is None and projection_dim is not None:
            raise ValueError(
                f"`projection_dim` must be None for {type(self).__name__}, which has no projection. Received: "
                f"projection_dim={projection_dim}. CLIPTextEncoder and CLIPImageEncoder have one."
            )
        require_attention(attn_implementation, config.attention_dropout)
        if gradient_checkpointing and config.attention_dropout:
            raise ValueError(
                "`gradient_checkpointing` must be False for a model with `attention_dropout`: the second computation "
                "would drop other weights than the first, and the gradients would be wrong. Received: "
                f"attention_dropout={config.attention_dropout}. Leave one of the two out."
            )
        self.config = config
        self.attn_implementation = attn_implementation
        self.gradient_checkpointing = gradient_checkpointing
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
                attn_implementation=attn_implementation,
                dtype=self.dtype_policy,
                name=f"layers_{index}",
            )
            for index in range(config.num_hidden_layers)
        ]
        self.prompt_adapters = AdapterSite(
            "prompts", config.hidden_size, dtype=self.dtype_policy, name="prompt_adapters"
        )
        if self._projection_name is not None:
            self.projection_dim = projection_dim or config.projection_dim
            stddev = config.initializer_factor * config.hidden_size**-0.5
            self.projection = keras.layers.Dense(
                self.projection_dim,
                use_bias=False,
                kernel_initializer=InitialNormal(stddev=stddev),
                dtype=self.dtype_policy,
                name=self._projection_name,
            )

    def adapter_sites(self) -> Iterator[Location]:
        """Yields where adapters can act: in front of the layers, then in each."""
        yield from self.sites_in_front()
        yield from layer_locations(self.tower, self.name, self.encoder_layers)

    def sites_in_front(self) -> Iterator[Location]:
        """Yields where adapters can act in front of the layers."""
        yield Location(self.prompt_adapters, "prompts", (self.name, self.prompt_adapters.name), self.tower)

    def for_each_copy(self, x: Any) -> Any:
        """Returns the rows as often as adapters that work in parallel need them; None stays None."""
        copies = self.adapters.row_copies
        return x if x is None or copies == 1 else ops.concatenate([x] * copies, axis=0)

    def layer_norm(self, name: str) -> keras.layers.LayerNormalization:
        """Returns a layer norm with the configuration's epsilon."""
        return keras.layers.LayerNormalization(epsilon=self.config.layer_norm_eps, dtype=self.dtype_policy, name=name)

    def build_on_width(self, *layers: keras.layers.Layer) -> None:
        """Builds layers that read the residual stream, the blocks and the projection."""
        projection = () if self._projection_name is None else (self.projection,)
        for layer in (*layers, *self.encoder_layers, *projection):
            layer.build((None, None, self.config.hidden_size))
        self.built = True

    def run_blocks(
        self,
        x: Any,
        output_hidden_states: bool,
        output_attentions: bool,
        training: bool | None,
        **visibility: Any,
    ) -> tuple[Any, CLIPOutput]:
        """Sends the residual stream through all blocks.

        Returns:
            The stream, and `hidden_states` and `attentions` where asked for: tuples of one tensor a
            block, the states' beginning with what the first block reads.
        """
        states: list[Any] = []
        attentions: list[Any] = []
        for layer in self.encoder_layers:

            def block(x: Any, layer: EncoderLayer = layer) -> Any:
                return layer(x, output_attentions=output_attentions, training=training, **visibility)

            if output_hidden_states:
                states.append(x)
            x = keras.remat(block)(x) if self.gradient_checkpointing and training else block(x)
            if output_attentions:
                x, weights = x
                attentions.append(weights)
        inside = CLIPOutput()
        if output_hidden_states:
            inside["hidden_states"] = (*states, x)
        if output_attentions:
            inside["attentions"] = tuple(attentions)
        return x, inside

    def assemble(self, last_hidden_state: Any, pooler_output: Any, inside: CLIPOutput) -> CLIPOutput:
        """Puts together what the tower returns, the projected vector first."""
        output = CLIPOutput()
        if self._projection_name is not None:
            output[self.embeds_name] = self.projection(pooler_output)
        output.update(last_hidden_state=last_hidden_state, pooler_output=pooler_output, **inside)
        return output

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of `__init__`."""
        return {
            **super().get_config(),
            "config": self.config.to_dict(),
            "attn_implementation": self.attn_implementation,
            "gradient_checkpointing": self.gradient_checkpointing,
            **({} if self._projection_name is None else {"projection_dim": self.projection_dim}),
        }
