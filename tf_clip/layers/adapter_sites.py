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
        self.built = True

    @property
    def is_active(self) -> bool:
        """Whether anything happens here."""
        return self.program is not None

    def run(self, state: tuple[Any, ...], rows: RowInputs, training: bool | None) -> tuple[Any, ...]:
        """Returns a state as the active adapters change it; callers check `is_active` first."""
        if self.program is None:
            return state
        return self.program(self, state, rows, training)

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


def is_of_adapter(variable: Any) -> bool:
    """Whether a variable belongs to an adapter, and not to the model itself."""
    return any(part.endswith(SITE_NAME) for part in variable.path.split("/"))
