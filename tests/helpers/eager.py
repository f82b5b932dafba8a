"""Training steps without a graph: that of a tiny model takes far longer to make than its few steps take."""

from __future__ import annotations

import keras

EAGER = {"run_eagerly": keras.backend.backend() != "jax"}
"""Arguments of `compile`. JAX would compile each operation on its own, which takes longer still."""
