"""The rewriting `"causal_text"`: a text tower's weights, its graphs from planned rows to features, and their work."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from tf_clip.inference.blocks import centered, projected, run_all_but_last, run_last_block
from tf_clip.inference.text_plan import Texts, cut_texts, groups_of, padded_plan, shared_plan
from tf_clip.inference.tower_weights import TowerWeights, shared_weights
from tf_clip.inference.work import BATCH_SIZES, AnySize, Size, rounded_length, rounded_up, text_lengths

WEIGHTS_OUTSIDE_OF_BLOCKS = 5
"""Two tables, a norm and the projection."""

# Added to the score of a hidden key: exp(-1e9) is exactly zero in float32.
_HIDDEN = -1e9
_ONE_TEXT: Size = (1,)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextWeights(TowerWeights):
    """The text tower's weights.

    Args:
        tokens: float32 `[vocab_size, hidden_size]`.
        positions: float32 `[max_position_embeddings, hidden_size]`.
    """

    tokens: tf.Tensor
    positions: tf.Tensor


def text_weights(tower: Any, parts: int = 1, keep_tower: bool = True, in_panels: bool = False) -> TextWeights:
    """Rewrites a text tower's weights; its float32 tables are shared with the tower, not copied.

    Args:
        tower: the tower.
        parts: how many parts a block is cut into; a head is never cut.
        keep_tower: whether the tower stays as it is. If not, the memory of each block is freed once it is rewritten.
        in_panels: whether kernels are cut into panels, which is faster for few rows where TensorFlow uses oneDNN.
    """
    tables = (tower.embeddings.token_embedding, tower.embeddings.position_embedding)
    tokens, positions = (tf.cast(tf.convert_to_tensor(table.embeddings), tf.float32) for table in tables)
    shared = shared_weights(tower, tower.final_layer_norm, parts, keep_tower, in_panels)
    return TextWeights(**shared, tokens=tokens, positions=positions)


def encode_texts(
    tokens: tf.Tensor,
    positions: tf.Tensor,
    arrangement: tf.Tensor,
    sources: tf.Tensor,
    ends: tf.Tensor,
    weights: TextWeights,
    visible: tf.Tensor | None = None,
) -> tf.Tensor:
    """Encodes texts that were planned; see `text_plan.TextPlan`.

    Args:
        tokens: int32 `[rows]`.
        positions: int32 `[rows]`.
        arrangement: int32 `[batch, length]`.
        sources: int32 `[rows]`.
        ends: int32 `[batch]`.
        weights: the tower's weights.
        visible: bool `[batch, length]`; None hides nothing.

    Returns:
        float32 `[batch, projection_dim]`, not of unit length.
    """
    columns = tf.range(tf.shape(arrangement)[1])
    is_hidden = _is_later(columns)[tf.newaxis, tf.newaxis]
    is_hidden_from_end = (columns > ends[:, tf.newaxis])[:, tf.newaxis, tf.newaxis]
    if visible is not None:
        invisible = tf.logical_not(visible)[:, tf.newaxis, tf.newaxis]
        is_hidden, is_hidden_from_end = is_hidden | invisible, is_hidden_from_end | invisible

    def arrange(rows: tf.Tensor) -> tf.Tensor:
        return tf.gather(rows, arrangement)

    def collect(rows: tf.Tensor) -> tf.Tensor:
        return tf.gather(rows, sources)

    x = run_all_but_last(_embedded(tokens, positions, weights), weights, arrange, collect, _score_bias(is_hidden))
    pooled = tf.gather(x, tf.gather(arrangement, ends, batch_dims=1))
    return projected(run_last_block(x, pooled, weights, arrange, _score_bias(is_hidden_from_end)), weights)


def encode_one_text(tokens: tf.Tensor, weights: TextWeights) -> tf.Tensor:
    """Encodes a single text. Its rows are its tokens in their order, so that none have to be gathered for attention.

    Args:
        tokens: int32 `[length]`, up to the token at which the text is pooled.
        weights: the tower's weights.

    Returns:
        float32 `[1, projection_dim]`, not of unit length.
    """

    def arrange(rows: tf.Tensor) -> tf.Tensor:
        return rows[tf.newaxis]

    positions = tf.range(tf.shape(tokens)[0])
    score_bias = _score_bias(_is_later(positions))
    x = run_all_but_last(_embedded(tokens, positions, weights), weights, arrange, tf.identity, score_bias)
    return projected(run_last_block(x, x[-1:], weights, arrange, None), weights)


@dataclasses.dataclass(frozen=True)
class CausalTextWork:
    """The work of a rewritten text tower; its rows are `Texts`.

    Args:
        weights: the tower's weights.
        ends_of: from token ids, int `[m, length]`, to the positions that the texts are pooled at, int `[m]`.
        vocab_size: number of token ids.
        longest: the longest text, in tokens.
    """

    weights: TextWeights
    ends_of: Callable[[np.ndarray], np.ndarray]
    vocab_size: int
    longest: int
    name: str = "texts"

    def encode(self, *arrays: tf.Tensor) -> tf.Tensor:
        """Encodes a single text's tokens, or a plan's arrays."""
        if len(arrays) == 1:
            return encode_one_text(arrays[0], self.weights)
        tokens, positions, arrangement, sources, ends, *visible = arrays
        return encode_texts(tokens, positions, arrangement, sources, ends, self.weights, *visible)

    def rows(self, input_ids: np.ndarray, attention_mask: np.ndarray | None) -> Texts:
        """Returns texts without the tokens that no pooled state depends on."""
        return cut_texts(input_ids, attention_mask, self.ends_of(input_ids))

    def batches(self, texts: Texts, most: int) -> Iterator[tuple[np.ndarray, Texts]]:
        """Yields texts sorted by length; see `TextWork`."""
        for indices in groups_of(texts, most):
            yield indices, texts.take(indices)

    def signature(self, size: AnySize | None) -> list[tf.TensorSpec]:
        """See `Work`."""
        if size == _ONE_TEXT:
            return [tf.TensorSpec([None], tf.int32, "tokens")]
        batch, length = size or (None, None)
        rows = None if batch is None or length is None else batch * length
        return [
            tf.TensorSpec([rows], tf.int32, "tokens"),
            tf.TensorSpec([rows], tf.int32, "positions"),
            tf.TensorSpec([batch, length], tf.int32, "arrangement"),
            tf.TensorSpec([rows], tf.int32, "sources"),
            tf.TensorSpec([batch], tf.int32, "ends"),
            tf.TensorSpec([batch, length], tf.bool, "visible"),
        ]

    def arrays(self, texts: Texts, size: AnySize | None) -> tuple[np.ndarray, ...]:
        """Returns the tokens of a single text, or a plan: of the rows to compute, or of a fixed size."""
        if size == _ONE_TEXT:
            return (texts.input_ids[0],)
        plan = shared_plan(texts) if size is None else padded_plan(texts, *size)
        return plan[:5] if plan.visible is None else (*plan[:5], plan.visible)

    def size_of(self, texts: Texts) -> Size | None:
        """Returns the number and the length of texts, rounded up; None if a mask hides tokens or texts are too many."""
        count, length = texts.input_ids.shape
        if texts.visible is not None or count > BATCH_SIZES[-1]:
            return None
        return rounded_up(count, BATCH_SIZES), rounded_length(length, self.longest)

    def graph_size(self, texts: Texts) -> Size | None:
        """Returns the size of the graph for a single text if no mask hides tokens."""
        return _ONE_TEXT if len(texts.input_ids) == 1 and texts.visible is None else None

    def sizes(self, count: int) -> list[Size]:
        """See `Work`."""
        return [(count, length) for length in text_lengths(self.longest)]

    def example(self, size: Size) -> Texts:
        """See `Work`."""
        input_ids = np.random.default_rng(0).integers(0, self.vocab_size, size).astype(np.int32)
        return Texts(input_ids, np.full(size[0], size[1] - 1, np.int32), None)


def _embedded(tokens: tf.Tensor, positions: tf.Tensor, weights: TextWeights) -> tf.Tensor:
    """Returns the residual stream before the first block, `[rows, hidden_size]`."""
    return centered(tf.gather(weights.tokens, tokens) + tf.gather(weights.positions, positions))


def _score_bias(is_hidden: tf.Tensor) -> tf.Tensor:
    """Returns what is added to attention's scores, so that hidden keys get no weight."""
    return tf.cast(is_hidden, tf.float32) * _HIDDEN


def _is_later(columns: tf.Tensor) -> tf.Tensor:
    """Returns which positions (columns) come after which (rows), bool `[length, length]`: no token sees later ones."""
    return columns[tf.newaxis, :] > columns[:, tf.newaxis]
