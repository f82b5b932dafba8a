"""`AdaptableModel`: makes a Keras model hold an `AdapterHost`, and gives it AdapterHub's most used methods."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tf_clip.adapters.composition import Block
from tf_clip.adapters.config import AnyConfig
from tf_clip.adapters.host import AdapterHost
from tf_clip.layers.adapter_sites import AdapterSite

if TYPE_CHECKING:
    from typing_extensions import Self


class AdaptableModel:
    """Mixed into a Keras model in front of `keras.Model`: adapters are small modules that change what it does.

    The methods here do what those of `model.adapters`, an `AdapterHost`, of the same name do, which has more of them.
    A model of several towers calls `self.adapters.hold(towers)` once it has them; a tower is an `AdaptableTower`, too.

    Example:
        >>> model = CLIPModel(config)
        >>> model.add_adapter("mine", "lora[r=16]")
        >>> model.train_adapter("mine")
        >>> model.compile("adamw")
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        # An attribute of the model and not of the host: by its name Keras's files know it.
        self.shared_adapters = AdapterSite("shared", 1, dtype=self.dtype_policy, name="shared_adapters")  # type: ignore[attr-defined]
        self.adapters = AdapterHost(self, self.shared_adapters)

    def add_adapter(
        self,
        name: str,
        config: AnyConfig | Mapping[str, Any] | str | Path | None = None,
        overwrite_ok: bool = False,
        set_active: bool = False,
    ) -> None:
        """Adds an adapter with fresh weights; see `AdapterHost.add_adapter`."""
        self.adapters.add_adapter(name, config, overwrite_ok, set_active)

    def delete_adapter(self, name: str) -> None:
        """Removes an adapter; see `AdapterHost.delete_adapter`."""
        self.adapters.delete_adapter(name)

    @property
    def active_adapters(self) -> Block | None:
        """Which adapters work, and how together; None if none do. It can be set."""
        return self.adapters.active_adapters

    @active_adapters.setter
    def active_adapters(self, setup: str | Block | None) -> None:
        self.adapters.set_active_adapters(setup)

    def set_active_adapters(self, setup: str | Block | None, skip_layers: Collection[int] = ()) -> None:
        """Chooses which adapters work; see `AdapterHost.set_active_adapters`."""
        self.adapters.set_active_adapters(setup, skip_layers)

    def train_adapter(self, setup: str | Block) -> None:
        """Lets nothing but adapters be trained; see `AdapterHost.train_adapter`."""
        self.adapters.train_adapter(setup)

    def merge_adapter(self, name: str) -> None:
        """Puts an adapter into the model's weights; see `AdapterHost.merge_adapter`."""
        self.adapters.merge_adapter(name)

    def reset_adapter(self) -> None:
        """Takes a merged adapter out again; see `AdapterHost.reset_adapter`."""
        self.adapters.reset_adapter()

    def save_adapter(self, folder: str | Path, name: str, layout: str = "adapterhub") -> None:
        """Writes an adapter; see `AdapterHost.save_adapter`."""
        self.adapters.save_adapter(folder, name, layout)

    def load_adapter(
        self,
        folder: str | Path,
        load_as: str | None = None,
        leave_out: Collection[int] = (),
        set_active: bool = False,
        overwrite_ok: bool = False,
    ) -> str:
        """Adds an adapter from a folder and returns its name; see `AdapterHost.load_adapter`."""
        return self.adapters.load_adapter(folder, load_as, leave_out, set_active, overwrite_ok)

    def adapter_summary(self, as_dict: bool = False) -> str | list[dict[str, Any]]:
        """Returns a table of the adapters; see `AdapterHost.adapter_summary`."""
        return self.adapters.adapter_summary(as_dict)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of `__init__`, and the adapters if there are any."""
        config: dict[str, Any] = super().get_config()  # type: ignore[misc]
        state = self.adapters.state
        return {**config, "adapters": state.to_dict()} if state.configs or state.frozen is not None else config

    @classmethod
    def from_config(cls, config: Any, **kwargs: Any) -> Self:
        """Makes a model with fresh weights, and with the adapters in what `get_config` returned.

        Args:
            config: a model's configuration, as in transformers; or what `get_config` returned, as in Keras.
            **kwargs: arguments of the model, beside a configuration.
        """
        adapters = None
        if isinstance(config, Mapping):
            adapters = config.get("adapters")
            config = {name: value for name, value in config.items() if name != "adapters"}
        model: Self = super().from_config(config, **kwargs)  # type: ignore[misc]
        if adapters is not None:
            model.adapters.restore(adapters)
        return model
