"""`CLIPOutput`, the named results of every model: a dictionary whose keys are attributes too."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, cast

import keras
import optree


class CLIPOutput(dict[str, Any]):
    """Named tensors, read as `out["logits_per_image"]` or as `out.logits_per_image`.

    Keras, TensorFlow, JAX and PyTorch see it as the dictionary it is, so it may leave a
    `tf.function`, a functional model or a SavedModel signature.
    """

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"This output has no {name!r}. It holds: {', '.join(self)}.") from None


def _flatten(output: CLIPOutput) -> tuple[list[Any], tuple[str, ...]]:
    return list(output.values()), tuple(output)


def _unflatten(keys: Iterable[str], values: Iterable[Any]) -> CLIPOutput:
    return CLIPOutput(zip(keys, values, strict=True))


def _register_as_tree_node() -> None:
    """Tells each tree library in play that a `CLIPOutput` has parts; subclasses of dict are leaves to them."""
    optree.register_pytree_node(  # typed for collections alone, though any class will do
        cast("Any", CLIPOutput),
        cast("Any", lambda output: (*_flatten(output), tuple(output))),
        cast("Any", _unflatten),
        namespace="keras",
    )
    if keras.backend.backend() == "jax":
        import jax

        jax.tree_util.register_pytree_node(CLIPOutput, _flatten, _unflatten)
    elif keras.backend.backend() == "torch":
        from torch.utils import _pytree

        _pytree.register_pytree_node(CLIPOutput, _flatten, lambda values, keys: _unflatten(keys, values))


_register_as_tree_node()
