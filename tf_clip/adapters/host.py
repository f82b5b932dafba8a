"""`AdapterHost`: what a model holds to have adapters."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from tf_clip.adapters import summary
from tf_clip.adapters.composition import Block, Fuse, as_setup, fusions_in
from tf_clip.adapters.files import store
from tf_clip.adapters.hosted import HostedAdapters


class AdapterHost(HostedAdapters):
    """The adapters of one model: what `HostedAdapters` does, and their files, their summary and their restoring."""

    def save_adapter(self, folder: str | Path, name: str, layout: str = "adapterhub") -> None:
        """Writes an adapter: `adapter_config.json` and its weights, without the model's.

        Args:
            folder: where to; made when missing.
            name: of the adapter.
            layout: `"adapterhub"`, which AdapterHub's library reads; or `"peft"`, which PEFT reads, for LoRA and DoRA.

        Raises:
            ValueError: there is none of that name, or the layout cannot hold it.
        """
        self.require_names([name])
        store.write_adapter(folder, self.sites, name, self.state.configs[name], layout, self._described())

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
        stored = store.read_adapter(folder, self.sites, leave_out)
        name = load_as or stored.name
        if overwrite_ok and name in self.state.configs:
            # Tried under another name first: what is to be replaced stays if this does not fit.
            trial = f"{max(self.state.configs, key=len)}_"
            self._add_stored(stored, trial)
            self.delete_adapter(trial)
            self.delete_adapter(name)
        self._add_stored(stored, name)
        if set_active:
            self.set_active_adapters(name)
        return name

    def _add_stored(self, stored: store.Stored, name: str) -> None:
        self.add_adapter(name, stored.config)
        try:
            stored.fill(self.sites, name)
        except BaseException:
            self.delete_adapter(name)
            raise

    def save_all_adapters(self, folder: str | Path) -> None:
        """Writes every adapter to a folder of its own, by its name."""
        for name in self.state.configs:
            self.save_adapter(Path(folder) / name, name)

    def save_adapter_fusion(self, folder: str | Path, adapters: Fuse | Sequence[str] | str) -> None:
        """Writes a fusion, named by its name, a `Fuse` or the names of the fused.

        Raises:
            ValueError: there is none.
        """
        name = self.fusion_name(adapters)
        store.write_fusion(folder, self.sites, name, *self.state.fusions[name], self._described())

    def load_adapter_fusion(self, folder: str | Path, set_active: bool = False, overwrite_ok: bool = False) -> str:
        """Adds a fusion from a folder; its adapters must be there already.

        Returns:
            The fusion's name.

        Raises:
            FileNotFoundError: the folder has no fusion.
            CheckpointError: weights are missing, left over or misshapen; nothing is added then.
        """
        stored = store.read_fusion(folder)
        self.add_adapter_fusion(stored.fused, stored.config, stored.name, overwrite_ok)
        try:
            stored.fill(self.sites, stored.name)
        except BaseException:
            self.delete_adapter_fusion(stored.name)
            raise
        if set_active:
            self.set_active_adapters(Fuse(*stored.fused, name=stored.name))
        return stored.name

    def save_adapter_setup(self, folder: str | Path, setup: str | Block | None = None) -> None:
        """Writes a composition with its adapters and fusions; None takes the active one.

        Raises:
            ValueError: nothing is active, or a name is unknown.
        """
        block = self.state.active if setup is None else as_setup(setup)
        if block is None:
            raise ValueError("`setup` must name adapters. Received: None. Make one active, or pass one.")
        self.require_names(block.names())
        for name in block.names():
            self.save_adapter(Path(folder) / name, name)
        for fusion in fusions_in(block):
            self.save_adapter_fusion(Path(folder) / fusion, fusion)
        store.write_setup(folder, block)

    def load_adapter_setup(self, folder: str | Path, set_active: bool = False, overwrite_ok: bool = False) -> Block:
        """Adds the adapters and fusions of a composition from a folder.

        Returns:
            The composition.
        """
        block = store.read_setup(folder)
        for name in block.names():
            self.load_adapter(Path(folder) / name, name, overwrite_ok=overwrite_ok)
        for fusion in fusions_in(block):
            self.load_adapter_fusion(Path(folder) / fusion, overwrite_ok=overwrite_ok)
        if set_active:
            self.set_active_adapters(block)
        return block

    def _described(self) -> dict[str, Any]:
        config = self.model.config
        return {
            "hidden_size": getattr(config, "hidden_size", None),
            "model_class": type(self.model).__name__,
            "model_type": config.model_type,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Adds the adapters that `AdapterState.to_dict` described, with fresh weights, and chooses as before."""
        for name, config in state["configs"].items():
            self.add_adapter(name, config)
        for name, fusion in state["fusions"].items():
            self.add_adapter_fusion(fusion["names"], fusion["config"], name=name)
        if state["is_frozen"]:
            self._train(state["trained"], state["trained_fusions"])
        if state["active"] is not None:
            self.set_active_adapters(Block.from_dict(state["active"]), state["skip_layers"])
        # Its weights come with the others', and so do those from before.
        self.state.merged = state["merged"]

    def adapter_summary(self, as_dict: bool = False) -> str | list[dict[str, Any]]:
        """Returns a table of the adapters and their numbers of weights, the model itself last.

        Args:
            as_dict: returns the rows as dictionaries in place of text.
        """
        rows = summary.rows(self.state, self.sites, self.base_variables())
        return rows if as_dict else summary.as_text(rows)
