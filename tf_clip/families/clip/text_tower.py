"""The text towers: `CLIPTextModel`, and `CLIPTextEncoder` with the projection into the joint space."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import keras
from keras import ops

from tf_clip.adapters.methods.prompts import with_room
from tf_clip.adapters.sites import Location
from tf_clip.families.clip.config import CLIPTextConfig
from tf_clip.families.clip.text_ends import end_token
from tf_clip.layers.adapter_sites import AdapterSite, RowInputs
from tf_clip.layers.initializers import InitialNormal
from tf_clip.models.outputs import CLIPOutput
from tf_clip.models.transformer_tower import Tower


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
        changed: changes the tokens' embeddings before their positions are added; None leaves them.

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

    def call(self, input_ids: Any, position_ids: Any = None, changed: Callable[[Any], Any] | None = None) -> Any:
        """Embeds; see the class."""
        self.require_texts(input_ids)
        if position_ids is None:
            position_ids = ops.arange(ops.shape(input_ids)[1], dtype="int32")
        tokens = self.token_embedding(input_ids)
        return (tokens if changed is None else changed(tokens)) + self.position_embedding(position_ids)

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
class CLIPTextModel(Tower):
    """Reads token ids from left to right and pools each text where it ends.

    Fed by `CLIPTokenizer`. Most uses want `CLIPTextEncoder`, which also projects into the joint space.

    Args:
        config: a `CLIPTextConfig`, a dictionary of its fields, or None for the defaults.
        attn_implementation: `"eager"`, `"sdpa"` (Keras's fused operation) or `"flash"` (JAX and
            PyTorch, on a GPU). All give the same result.
        gradient_checkpointing: whether training computes each block a second time instead of
            keeping what is inside it: less memory, more time.

    Call arguments:
        input_ids: int32 `[batch, length]`.
        attention_mask: `[batch, length]`, 1 keeps a token and 0 hides padding; None keeps all.
            Needed only for padding on the left: what follows the end of a text is never read.
        position_ids: int32 `[length]` or `[1 or batch, length]`; None counts from 0.
        output_hidden_states: adds `hidden_states`.
        output_attentions: adds `attentions`; needs `attn_implementation="eager"`.
        adapter_ids: int32 `[batch]`, the number of each row's adapter while `Switch` is active, -1 for none.
        training: whether attention dropout is on.

    Returns:
        A `CLIPOutput` with `last_hidden_state` `[batch, length, hidden_size]` after the final norm,
        `pooler_output` `[batch, hidden_size]`, and where asked for `hidden_states`, one more than there
        are blocks, `[batch, length, hidden_size]` each, before the final norm, and `attentions`, one a
        block, `[batch, heads, length, length]`.

    Raises:
        ValueError: `input_ids` is not of rank 2, or longer than `config.max_position_embeddings`.

    Source: transformers' CLIPTextModel.
    """

    config_class = CLIPTextConfig
    _weights_root = "text_encoder"
    tower = "text"
    call_options = (*Tower.call_options, "position_ids")

    def __init__(self, config: CLIPTextConfig | dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        self.embeddings = TextEmbeddings(
            self.config.vocab_size,
            self.config.max_position_embeddings,
            self.config.hidden_size,
            initializer_factor=self.config.initializer_factor,
            dtype=self.dtype_policy,
            name="embeddings",
        )
        self._end_token = end_token(self.config)
        self.final_layer_norm = self.layer_norm("final_layer_norm")
        self.embedding_adapters = AdapterSite(
            "embeddings", self.config.hidden_size, dtype=self.dtype_policy, name="embedding_adapters"
        )
        self.build()

    def build(self, input_shape: Any = None) -> None:
        """Makes every variable; the configuration knows all shapes."""
        if self.built:
            return
        self.embeddings.build((None, None))
        self.build_on_width(self.final_layer_norm)

    def sites_in_front(self) -> Iterator[Location]:
        """Yields where adapters can act in front of the layers."""
        for part, site in (("prompts", self.prompt_adapters), ("embeddings", self.embedding_adapters)):
            table = self.embeddings.token_embedding if part == "prompts" else None
            yield Location(site, part, (self.name, site.name), self.tower, token_embedding=table)

    def call(
        self,
        input_ids: Any,
        attention_mask: Any = None,
        position_ids: Any = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        adapter_ids: Any = None,
        training: bool | None = None,
    ) -> CLIPOutput:
        """Encodes; see the class."""
        input_ids, attention_mask, adapter_ids = (
            self.for_each_copy(x) for x in (input_ids, attention_mask, adapter_ids)
        )
        if position_ids is not None and len(position_ids.shape) == 2 and position_ids.shape[0] != 1:
            position_ids = self.for_each_copy(position_ids)
        if self.prompt_adapters.is_active:
            input_ids, attention_mask = self._with_room(input_ids, attention_mask, position_ids)
        rows = RowInputs(attention_mask, adapter_ids)
        x = self.embeddings(
            input_ids,
            position_ids=position_ids,
            changed=(lambda tokens: self.prompt_adapters.run((tokens, 0), rows, training)[0])
            if self.prompt_adapters.is_active
            else None,
        )
        if self.embedding_adapters.is_active:
            (x,) = self.embedding_adapters.run((x,), rows, training)
        visible = None
        if attention_mask is not None:
            # [batch, 1, 1, length]: the same keys for every head and every reading token
            visible = ops.expand_dims(ops.cast(attention_mask, "bool"), (1, 2))
        x, inside = self.run_blocks(
            x, output_hidden_states, output_attentions, training, visible=visible, causal=True, rows=rows
        )
        x = self.final_layer_norm(x)
        return self.assemble(x, _pool_at_end(x, input_ids, self._end_token), inside)

    def _with_room(self, input_ids: Any, attention_mask: Any, position_ids: Any) -> tuple[Any, Any]:
        if position_ids is not None:
            raise ValueError(
                "`position_ids` must be None while prompts are active: they shift the tokens behind them. "
                "Received: position_ids. Leave it out."
            )
        self.embeddings.require_texts(input_ids)
        count, longest = self.prompt_adapters.extra_tokens, self.config.max_position_embeddings
        if count > longest - 2:
            raise ValueError(
                f"`prompt_length` must leave room for start and end in {longest} tokens. Received: {count} prompts."
            )
        return with_room(input_ids, attention_mask, count, longest, self._end_token)  # type: ignore[no-any-return]


@keras.saving.register_keras_serializable(package="tf_clip")
class CLIPTextEncoder(CLIPTextModel):
    """Encodes texts into the space they share with images; `CLIPTextModelWithProjection` is the same class.

    Fed by `CLIPTokenizer`; read by `CLIPModel`, a retrieval index or a Keras model of your own.

    Args:
        config: a `CLIPTextConfig`, a dictionary of its fields, or None for the defaults.
        projection_dim: width of the joint space; None takes `config.projection_dim`.
        **kwargs: `attn_implementation` and `gradient_checkpointing`, see `CLIPTextModel`.

    Call arguments:
        As those of `CLIPTextModel`.

    Returns:
        What `CLIPTextModel` returns, and `text_embeds` `[batch, projection_dim]`, **not** of unit length.

    Source: transformers' CLIPTextModelWithProjection.
    """

    _projection_name = "text_projection"
    embeds_name = "text_embeds"

    def __init__(
        self,
        config: CLIPTextConfig | dict[str, Any] | None = None,
        projection_dim: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(config, projection_dim=projection_dim, **kwargs)


def _pool_at_end(x: Any, input_ids: Any, token: int | None) -> Any:
    """Picks each text's state at its end, `[batch, hidden_size]`; position 0 where there is no end."""
    batch, length = ops.shape(input_ids)[0], ops.shape(input_ids)[1]
    ends = input_ids if token is None else ops.cast(input_ids == token, "int32")
    positions = ops.cast(ops.argmax(ends, axis=-1), "int32")  # the first of equals
    # A gather of rows exports to mobile runtimes as one exact operation; a one-hot product does not quantize.
    rows = ops.arange(batch, dtype="int32") * length + positions
    return ops.take(ops.reshape(x, (-1, x.shape[-1])), rows, axis=0)
