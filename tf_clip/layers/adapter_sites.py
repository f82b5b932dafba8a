"""Sites: where adapters can act inside a model. They are empty until `tf_clip.adapters` adds adapters.

A site without an active adapter costs nothing: whether one acts is decided while a graph is traced.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
import numpy as np

SITE_NAME = "adapters"
"""What the name of every site ends with, by which an adapter's variables are known."""


class RowInputs(NamedTuple):
    """What adapters can read of the rows of a batch, besides the state that they change.

    Args:
        mask: `[batch, length]`, 1 for a text's own tokens; None when every token counts.
        adapter_ids: int32 `[batch]`, which of the switch's adapters a row is for, -1 for none; None without a switch.
    """

    mask: Any = None
    adapter_ids: Any = None


NO_ROW_INPUTS = RowInputs()


class AdapterSite(keras.layers.Layer):
    """Holds the adapters of one site, and what the active ones do there.

    It is never called as a layer, so that adapters can be added to a model that is built; call `run`.

    Args:
        kind: what runs through: `"linear"`, `"attention"`, `"mlp"`, `"keys_values"`, `"block"`, `"embeddings"`,
            `"prompts"` or `"shared"`.
        width: of what an adapter here reads.
        units: of what it changes; None for `width`.
    """

    def __init__(self, kind: str, width: int, units: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.kind, self.width, self.units = kind, width, units or width
        self.by_name: dict[str, keras.layers.Layer] = {}
        # By the names of fusions.
        self.fusions: dict[str, keras.layers.Layer] = {}
        # The weights as they were before an adapter was merged into them.
        self.originals: dict[str, Any] = {}
        # How many tokens, or keys, the active adapters put in here.
        self.extra_tokens = 0
        # What the active adapters make of a state, `(site, state, rows, training) -> state`.
        self.program: Callable[..., Any] | None = None
        # An attribute, since towers ask it for every layer and mostly go on.
        self.is_active = False
        self.built = True

    def set_program(self, program: Callable[..., Any] | None) -> None:
        """Says what happens here from now on, None for nothing."""
        self.program, self.is_active = program, program is not None

    def run(self, state: tuple[Any, ...], rows: RowInputs, training: bool | None) -> tuple[Any, ...]:
        """Returns a state as the active adapters change it; callers check `is_active` first."""
        if self.program is None:
            return state
        return self.program(self, state, rows, training)  # type: ignore[no-any-return]

    def save_own_variables(self, store: Any) -> None:
        """Keeps the weights from before a merge, so that a restored model can go back to them."""
        for name, value in self.originals.items():
            store[name] = value

    def load_own_variables(self, store: Any) -> None:
        """Takes back what `save_own_variables` kept."""
        self.originals = {name: np.array(store[name]) for name in store.keys()}

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of `__init__`."""
        return {**super().get_config(), "kind": self.kind, "width": self.width, "units": self.units}


# Keras puts the class's name into the paths of its weight files, and files have been written under this one.
AdapterSite.__name__ = "AdapterPlace"


def is_of_adapter(variable: Any) -> bool:
    """Whether a variable belongs to an adapter, and not to the model itself."""
    return any(part.endswith(SITE_NAME) for part in variable.path.split("/"))
