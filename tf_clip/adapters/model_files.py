"""`WithAdapterFiles`: the part of `AdaptableModel` that saves and loads."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from tf_clip.adapters.composition import Block, Fuse
from tf_clip.adapters.files import store as files


class WithAdapterFiles:
    """Saves and loads adapters, fusions and compositions of an `AdaptableModel`."""

    adapter_state: Any
    active_adapters: Any
    require_names: Any
    fusion_name: Any

    def save_adapter(self, folder: str | Path, name: str, layout: str = "adapterhub") -> None:
        """Writes an adapter: `adapter_config.json` and its weights, without the model's.

        Args:
            folder: where to; made when missing.
            name: of the adapter.
            layout: `"adapterhub"`, which AdapterHub's library reads; or `"peft"`, which PEFT reads, for LoRA and DoRA.

        Raises:
            ValueError: there is none of that name, or the layout has no room for it.
        """
        self.require_names([name])
        files.save_adapter(_whole(self), folder, name, layout)

    def load_adapter(
        self,
        folder: str | Path,
        load_as: str | None = None,
        leave_out: Collection[int] = (),
        set_active: bool = False,
        overwrite_ok: bool = False,
    ) -> str:
        """Adds an adapter from a folder of `save_adapter`, of AdapterHub's library or of PEFT.

        Args:
            folder: with `adapter_config.json` and the weights beside it.
            load_as: a name for it; None keeps its own, which is `"default"` for PEFT's.
            leave_out: numbers of more layers to leave out, whose weights are not loaded.
            set_active: see `add_adapter`.
            overwrite_ok: see `add_adapter`.

        Returns:
            The adapter's name.

        Raises:
            FileNotFoundError: the folder has no adapter.
            ValueError: its configuration cannot be honored, or there is one of that name.
            CheckpointError: weights are missing, left over or misshapen; nothing is added then.
        """
        name = files.load_adapter(_whole(self), folder, load_as, tuple(leave_out), overwrite_ok)
        if set_active:
            self.active_adapters = name
        return name

    def save_all_adapters(self, folder: str | Path) -> None:
        """Writes every adapter to a folder of its own, by its name."""
        for name in self.adapter_state.configs:
            self.save_adapter(Path(folder) / name, name)

    def save_adapter_fusion(self, folder: str | Path, adapters: Fuse | Sequence[str] | str) -> None:
        """Writes a fusion, named by its name, a `Fuse` or the names of the fused.

        Raises:
            ValueError: there is none.
        """
        files.save_fusion(_whole(self), folder, self.fusion_name(adapters))

    def load_adapter_fusion(self, folder: str | Path, set_active: bool = False, overwrite_ok: bool = False) -> str:
        """Adds a fusion from a folder; its adapters must be there already.

        Returns:
            The fusion's name.

        Raises:
            FileNotFoundError: the folder has no fusion.
            CheckpointError: weights are missing, left over or misshapen; nothing is added then.
        """
        name = files.load_fusion(_whole(self), folder, overwrite_ok)
        if set_active:
            self.active_adapters = Fuse(*self.adapter_state.fusions[name][1], name=name)
        return name

    def save_adapter_setup(self, folder: str | Path, setup: str | Block | None = None) -> None:
        """Writes a composition with its adapters and fusions; None takes the active one.

        Raises:
            ValueError: nothing is active, or a name is unknown.
        """
        files.save_setup(_whole(self), folder, self.adapter_state.active if setup is None else setup)

    def load_adapter_setup(self, folder: str | Path, set_active: bool = False, overwrite_ok: bool = False) -> Block:
        """Adds the adapters and fusions of a composition from a folder.

        Returns:
            The composition.
        """
        block = files.load_setup(_whole(self), folder, overwrite_ok)
        if set_active:
            self.active_adapters = block
        return block


def _whole(model: WithAdapterFiles) -> Any:
    """Returns the model as what it is, an `AdaptableModel`."""
    return model
