"""`AdapterSetup`: other adapters for a while."""

from __future__ import annotations

from collections.abc import Collection

from tf_clip.adapters.composition import Block
from tf_clip.adapters.model import AdaptableModel


class AdapterSetup:
    """Makes other adapters active inside a `with` block.

    Args:
        model: the model with the adapters.
        setup: see `AdapterHost.set_active_adapters`.
        skip_layers: see `AdapterHost.set_active_adapters`.

    Example:
        >>> with AdapterSetup(model, "mine"):
        ...     embeds = model.get_text_features(input_ids)
    """

    def __init__(self, model: AdaptableModel, setup: str | Block | None, skip_layers: Collection[int] = ()) -> None:
        self.model, self.setup, self.skip_layers = model, setup, skip_layers

    def __enter__(self) -> AdaptableModel:
        state = self.model.adapters.state
        self.before = state.active, state.skip_layers
        if state.merged is not None:
            raise ValueError(
                f"`model` must have nothing merged. Received: {state.merged!r} is. Call reset_adapter() first."
            )
        self.model.set_active_adapters(self.setup, self.skip_layers)
        return self.model

    def __exit__(self, *_: object) -> None:
        self.model.set_active_adapters(*self.before)
