"""A model's weights for .tflite files: with a smaller vocabulary table, and scores that 8-bit integers can hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tf_clip.export.weights import StoredWeights, float32_twin
from tf_clip.families.family import rewriting_of
from tf_clip.models.two_towers import TwoTowerModel

# exp(-30) is 1e-13: nothing in float32, and near enough to the other scores for integers of 8 bits.
_INTEGER_HIDDEN_KEY_SCORE = -30.0


class RuntimeWeights(StoredWeights):
    """Holds a model's weights in float32, as variables, and a twin of the model that computes with them.

    The converters leave a vocabulary's table in float32, or convert it to float32 when the file is loaded. Here the
    table is stored as integers with a scale for each row, and only the rows of a text are converted back.

    Args:
        model: the model; it is not changed.
        table_bits: how the vocabulary's rows are stored: 32 as they are, 16 or 8 as integers.
        is_static: whether scores between tokens are to be held by integers of 8 bits.
    """

    def __init__(self, model: TwoTowerModel, table_bits: int, is_static: bool) -> None:
        super().__init__(model, "float32")
        # Only of a tower of this very class is it known where its table and its scores are. Others stay as they are.
        is_known = rewriting_of(model.text_encoder) == "causal_text"
        rewrites = is_known and (table_bits < 32 or is_static)
        # A fused attention would be converted to another graph, and be no more exact.
        if rewrites or model.attn_implementation != "eager":
            self.model = float32_twin(model, "eager")
        if not rewrites:
            return
        text_encoder = self.model.text_encoder
        if is_static:
            for layer in text_encoder.encoder_layers:
                layer.self_attn.hidden_key_score = _INTEGER_HIDDEN_KEY_SCORE
        if table_bits < 32:
            rows = _IntegerRows(
                self.variables["text_encoder/embeddings/token_embedding/embeddings"].numpy(), table_bits
            )
            self.variables |= rows.variables
            text_encoder.embeddings.token_embedding = rows


class _IntegerRows:
    """Looks rows up in a table of integers; called as the layer whose place it takes.

    Args:
        table: float32 `[ids, width]`.
        bits: 8 or 16.
    """

    def __init__(self, table: np.ndarray, bits: int) -> None:
        # A converter that stores all floats in 16 bits must not round the scales. They are rounded up to float16 here,
        # and what is left of each is a power of two.
        largest = np.nextafter(np.abs(table).max(axis=1, keepdims=True).astype(np.float16), np.float16(np.inf))
        scales = largest.astype(np.float32)
        self._step = 2.0 ** (1 - bits)
        limit = 2 ** (bits - 1) - 1
        integers = np.clip(np.round(table / (scales * self._step)), -limit, limit).astype(f"int{bits}")
        self._integers = tf.Variable(integers, trainable=False)
        self._scales = tf.Variable(scales, trainable=False)
        self.variables = {"token_integers": self._integers, "token_scales": self._scales}

    def __call__(self, input_ids: Any) -> tf.Tensor:
        """Returns the rows of ids, float32."""
        integers, scales = (tf.convert_to_tensor(variable) for variable in (self._integers, self._scales))
        return tf.cast(tf.gather(integers, input_ids), tf.float32) * self._step * tf.gather(scales, input_ids)
