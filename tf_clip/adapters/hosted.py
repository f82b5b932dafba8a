"""`HostedAdapters`: the adapters of one model, added, chosen, trained and merged."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from tf_clip.adapters import adding, merging
from tf_clip.adapters.composition import Block, Fuse, as_fuse, as_setup, copies_of_rows, fusions_in
from tf_clip.adapters.config import (
    AnyConfig,
    FusionConfig,
    PrefixTuningConfig,
)
from tf_clip.adapters.meaning import require_meaning
from tf_clip.adapters.methods.base import Adapter
from tf_clip.adapters.methods.matching import matched
from tf_clip.adapters.methods.shared import SharedParts
from tf_clip.adapters.named_configs import as_config, as_fusion
from tf_clip.adapters.running import set_programs
from tf_clip.adapters.sites import AdaptableTower, Location, Sites
from tf_clip.adapters.state import AdapterState
from tf_clip.layers.adapter_sites import AdapterSite, is_of_adapter


class HostedAdapters:
    """The adapters of one model.

    Layers are numbered over all towers, the text tower's first; a lone tower's begin at 0. Where a model has been
    compiled, call `compile` again after `train_adapter`: an optimizer knows the weights it was built for.

    Args:
        model: the Keras model that holds this.
        shared: the model's site for what the layers of an adapter share.

    Attributes:
        state: what the adapters are, which are active, merged and trained.
        row_copies: how often each row goes through a tower: once for each adapter that works in parallel.
    """

    def __init__(self, model: Any, shared: AdapterSite) -> None:
        self.model, self.shared = model, shared
        self.state = AdapterState()
        self.row_copies = 1
        # The kind of model that this tower is a part of, if it is one.
        self.part_of = ""
        self.towers: tuple[AdaptableTower, ...] = (model,) if isinstance(model, AdaptableTower) else ()
        self.heads: tuple[keras.layers.Layer, ...] = ()

    def hold(self, towers: Iterable[Any], heads: Iterable[keras.layers.Layer] = ()) -> None:
        """Says what the model is made of. A model of towers calls it when it has them, and again if one changes.

        Args:
            towers: in the order of their layers' numbers; those that are no `AdaptableTower` have no adapters.
            heads: layers that are trained along with adapters: what is new in this model.

        Raises:
            ValueError: there are adapters already, in the model or in a tower: they would be lost.
        """
        adaptable = tuple(tower for tower in towers if isinstance(tower, AdaptableTower))
        for host in (self, *(_host(tower) for tower in adaptable)):
            if host.state.configs:
                raise ValueError(
                    f"`towers` must be given before there are adapters. Received: {host.model.name} with "
                    f"{list(host.state.configs)}. Save them with save_adapter, delete them, and load them afterwards."
                )
        for tower in self.towers:
            _host(tower).part_of = ""
        self.towers, self.heads = adaptable, tuple(heads)
        for tower in adaptable:
            _host(tower).part_of = type(self.model).__name__

    @property
    def sites(self) -> Sites:
        """Where adapters can act in the model."""
        return Sites(Location(self.shared, "shared", (self.model.name, self.shared.name), "model"), self.towers)

    def require_names(self, names: Sequence[str]) -> None:
        """Checks that adapters are there.

        Raises:
            ValueError: one is not.
        """
        for name in names:
            if name not in self.state.configs:
                known = ", ".join(self.state.configs) or "none yet"
                raise ValueError(f"`name` must be of an adapter. Received: {name!r}. There are: {known}.")

    # Adding and removing

    def add_adapter(
        self,
        name: str,
        config: AnyConfig | Mapping[str, Any] | str | Path | None = None,
        overwrite_ok: bool = False,
        set_active: bool = False,
    ) -> None:
        """Adds an adapter with fresh weights. It does nothing until it is active.

        Args:
            name: of the adapter.
            config: a configuration; a short name such as `"lora"`, with changes as in `"lora[r=16]"`, several joined by
                `|`; a dictionary; a path of a JSON file; None for `"seq_bn"`.
            overwrite_ok: replaces one of the same name.
            set_active: makes it the active one.

        Raises:
            ValueError: there is one of that name, the configuration is unknown, or fits no site of this model.
            KeyError: its reduction factors leave a layer out.
        """
        self._require_whole()
        adding.require_name(name)
        read = as_config(config)
        if name in self.state.configs:
            if not overwrite_ok:
                raise ValueError(
                    f"`name` must be new. Received: name={name!r}, which is there. Choose another or overwrite_ok=True."
                )
            self.delete_adapter(name)
        for part in read.parts():
            drops = getattr(part, "dropout", 0) or getattr(part, "stochastic_depth", 0)
            if drops and any(tower.gradient_checkpointing for tower in self.towers):
                raise ValueError(
                    "`dropout` must be 0 in a model with gradient_checkpointing: Keras would drop other values "
                    f"in the second computation. Received: {part!r}. Leave one of the two out."
                )
        adding.put_adapter(self.sites, name, read)
        self.state.configs[name] = read
        if self.state.frozen is not None:
            self._set_trained(name, False)
        if set_active:
            self.set_active_adapters(name)

    def delete_adapter(self, name: str) -> None:
        """Removes an adapter, and every fusion it is part of. If it is active, nothing is active afterwards.

        Raises:
            ValueError: there is none of that name.
        """
        self.require_names([name])
        state = self.state
        if state.merged == name:
            self.reset_adapter()
        if state.active is not None and name in state.active.names():
            self.set_active_adapters(None)
        for fusion in [fusion for fusion, (_, names) in state.fusions.items() if name in names]:
            self.delete_adapter_fusion(fusion)
        adding.take_adapter(self.sites, name)
        del state.configs[name]
        state.trained = tuple(other for other in state.trained if other != name)
        self._forget_compiled()

    def get_adapter(self, name: str) -> dict[int, dict[str, Adapter]]:
        """Returns an adapter's modules by layer number and part of the layer.

        Outside of layers the number is -1, and a tower's parts have its name in front: `"text_prompts"`.

        Raises:
            ValueError: there is none of that name.
        """
        self.require_names([name])
        found: dict[int, dict[str, Adapter]] = {}
        for location in self.sites.holding(name):
            layer, part = location.layer, location.part
            if layer is None:
                layer, part = -1, part if part == "shared" else f"{location.tower}_{part}"
            found.setdefault(layer, {})[part] = location.site.by_name[name]
        return found

    def average_adapter(
        self,
        name: str,
        adapters: Sequence[str],
        weights: Sequence[float] | None = None,
        combine_strategy: str = "linear",
        normalize_weights: bool = True,
        overwrite_ok: bool = False,
        set_active: bool = False,
        svd_rank: int | None = None,
    ) -> None:
        """Adds an adapter that is the weighted mean of others.

        Args:
            name: of the new one.
            adapters: names of the others.
            weights: one each; equal if None.
            combine_strategy: `"linear"` for the mean of all weights; for LoRAs also `"lora_linear_only_negate_b"`,
                where a negative weight turns only one of the two matrices, and `"lora_delta_w_svd"`, the nearest LoRA
                of rank `svd_rank` to the mean of what they add.
            normalize_weights: whether the weights are divided by their sum.
            overwrite_ok: see `add_adapter`.
            set_active: see `add_adapter`.
            svd_rank: see `combine_strategy`.

        Raises:
            ValueError: the adapters' configurations differ, or the strategy is not for them.
        """
        self.require_names(adapters)
        given = merging.averaging_weights(adapters, weights, normalize_weights)
        config = merging.averaged_config([self.state.configs[one] for one in adapters], combine_strategy, svd_rank)
        if overwrite_ok and name in adapters:
            raise ValueError(f"`name` must not be one of those it is made of. Received: name={name!r}.")
        self.add_adapter(name, config, overwrite_ok)
        merging.fill_average(self.sites, name, adapters, given, combine_strategy)
        if set_active:
            self.set_active_adapters(name)

    def add_adapter_fusion(
        self,
        adapters: Fuse | Sequence[str],
        config: FusionConfig | Mapping[str, Any] | str = "dynamic",
        name: str | None = None,
        overwrite_ok: bool = False,
        set_active: bool = False,
    ) -> None:
        """Adds what weighs several bottlenecks for each token; their own weights stay as they are.

        Args:
            adapters: names of adapters, or a `Fuse` of them.
            config: `"dynamic"`, `"static"`, a `FusionConfig` or a dictionary.
            name: of the fusion; the adapters' with commas unless given.
            overwrite_ok: see `add_adapter`.
            set_active: see `add_adapter`.

        Raises:
            ValueError: there is one of that name, or the adapters cannot be fused.
        """
        self._require_whole()
        block = adapters if isinstance(adapters, Fuse) else Fuse(*adapters, name=name)
        names = tuple(child if isinstance(child, str) else child.last for child in block.children)
        self.require_names(block.names())
        if block.name in self.state.fusions:
            if not overwrite_ok:
                raise ValueError(f"`adapters` must not be fused yet. Received: {block.name!r}. Or overwrite_ok=True.")
            self.delete_adapter_fusion(block.name)
        read = as_fusion(config)
        adding.put_fusion(self.sites, block.name, read, names)
        self.state.fusions[block.name] = (read, names)
        if set_active:
            self.set_active_adapters(block)

    def delete_adapter_fusion(self, adapters: Fuse | Sequence[str] | str) -> None:
        """Removes a fusion by its name, a `Fuse` or the names of the fused.

        Raises:
            ValueError: there is none.
        """
        name, state = self.fusion_name(adapters), self.state
        if state.active is not None and name in fusions_in(state.active):
            self.set_active_adapters(None)
        adding.take_fusion(self.sites, name)
        del state.fusions[name]
        state.trained_fusions = tuple(other for other in state.trained_fusions if other != name)

    def eject_prefix_tuning(self, name: str) -> None:
        """Replaces the network that makes an adapter's prefixes by the prefixes it makes; the model does the same.

        Raises:
            ValueError: the adapter has no such network.
        """
        self.require_names([name])
        config, sites = self.state.configs[name], self.sites
        if not any(isinstance(part, PrefixTuningConfig) and not part.flat for part in config.parts()):
            raise ValueError(f"`name` must be of prefix tuning that is not flat. Received: name={name!r}, {config!r}.")
        changed = config.map(lambda part: part.replace(flat=True) if isinstance(part, PrefixTuningConfig) else part)
        new = SharedParts(name, changed, sites.shared, matched(changed, sites.locations))
        new.make()
        new.take_flat(self.shared.by_name[name])
        new.set_trained(self.state.frozen is None or name in self.state.trained)
        self.shared.by_name[name] = new
        for adapter in sites.adapters(name)[1:]:
            adapter.shared.it = new
        self.state.configs[name] = changed
        self._forget_compiled()

    # Choosing

    @property
    def active_adapters(self) -> Block | None:
        """Which adapters work, and how together; None if none do. It can be set."""
        return self.state.active

    @active_adapters.setter
    def active_adapters(self, setup: str | Block | None) -> None:
        self.set_active_adapters(setup)

    def set_active_adapters(self, setup: str | Block | None, skip_layers: Collection[int] = ()) -> None:
        """Chooses which adapters work. What is merged is taken out again.

        What `fit`, `predict` and `evaluate` of this model and its towers have compiled is compiled anew; a
        `tf.function` of your own, or a model around this one, keeps what it was traced with.

        Args:
            setup: a name, a composition such as `Stack("a", "b")`, or None.
            skip_layers: global numbers of layers where nothing changes.

        Raises:
            ValueError: a name is unknown, or the composition has no meaning for these adapters.
        """
        self._require_whole()
        block = as_setup(setup)
        if block is not None:
            self.require_names(block.names())
            require_meaning(block, self.sites)
        if self.state.merged is not None:
            self.reset_adapter()
        self.state.active, self.state.skip_layers = block, tuple(skip_layers)
        self._act()

    def _act(self) -> None:
        set_programs(self.state.active, self.state.skip_layers, self.sites)
        for host in self._hosts():
            host.row_copies = copies_of_rows(self.state.active)
        self._forget_compiled()

    def _forget_compiled(self) -> None:
        for host in self._hosts():
            # As Keras does in `compile`.
            host.model.train_function = host.model.test_function = host.model.predict_function = None

    def _hosts(self) -> list[HostedAdapters]:
        return [self, *(_host(tower) for tower in self.towers if tower is not self.model)]

    # Training

    def train_adapter(self, setup: str | Block) -> None:
        """Makes adapters active and lets nothing but their weights be trained. Call `compile` afterwards.

        Raises:
            ValueError: see `set_active_adapters`.
        """
        block = as_setup(setup)
        if block is None:
            raise ValueError(
                "`setup` must name an adapter. Received: None. Call adapters.freeze_model(False) to train the model."
            )
        self.set_active_adapters(block)
        self._train(block.names(), ())

    def train_adapter_fusion(self, setup: Fuse | Sequence[str] | Block, unfreeze_adapters: bool = False) -> None:
        """Makes a fusion active and lets its weights be trained.

        Args:
            setup: a composition with a `Fuse` in it, or the names of the fused.
            unfreeze_adapters: whether the bottlenecks are trained, too.

        Raises:
            ValueError: it was not added, or there is no `Fuse`.
        """
        block = setup if isinstance(setup, Block) else as_fuse(setup)
        fusions = fusions_in(block)
        if not fusions:
            raise ValueError(f"`setup` must have a Fuse in it. Received: {setup!r}. Or call train_adapter.")
        self.set_active_adapters(block)
        self._train(block.names() if unfreeze_adapters else (), fusions)

    def _train(self, names: Sequence[str], fusions: Sequence[str]) -> None:
        self.freeze_model(True)
        for name in self.state.configs:
            self._set_trained(name, name in names)
        for name in self.state.fusions:
            for fusion in self.sites.fusions(name):
                for variable in fusion.variables:
                    variable.trainable = name in fusions
        self.state.trained, self.state.trained_fusions = tuple(names), tuple(fusions)

    def _set_trained(self, name: str, is_trained: bool) -> None:
        for adapter in self.sites.adapters(name):
            adapter.set_trained(is_trained)

    def freeze_model(self, freeze: bool = True) -> None:
        """Keeps the model's own weights from being trained, but for a new head; or lets them be as they were before.

        Args:
            freeze: which of the two.
        """
        state = self.state
        heads = {id(variable) for head in self.heads for variable in head.variables}
        own = [variable for variable in self.base_variables() if id(variable) not in heads]
        if freeze and state.frozen is None:
            state.frozen = {id(variable): variable.trainable for variable in own}
        for variable in own:
            variable.trainable = False if freeze else (state.frozen or {}).get(id(variable), variable.trainable)
        if not freeze:
            state.frozen = None
        self._forget_compiled()

    def base_variables(self) -> list[Any]:
        """Returns the model's own weights, without those of adapters and the state of random numbers."""
        return [v for v in self.model.weights if not is_of_adapter(v) and "seed_generator" not in v.path]

    # Merging

    def merge_adapter(self, name: str) -> None:
        """Puts what an adapter does into the model's own weights, so that it costs nothing; none is active then.

        `reset_adapter` and `set_active_adapters` take it out again, bit for bit.

        Raises:
            ValueError: the adapter does not act on dense layers alone, has gates, or another one is merged.
        """
        self._require_whole()
        self.require_names([name])
        if self.state.merged == name:
            return
        if self.state.merged is not None:
            raise ValueError(
                f"`name` must be the only merged adapter. Received: name={name!r} while "
                f"{self.state.merged!r} is merged. Call reset_adapter() first."
            )
        merging.merge(self.sites, name)
        self.state.active, self.state.merged = None, name
        self._act()

    def reset_adapter(self) -> None:
        """Takes a merged adapter out of the model's weights, which are then what they were before, bit for bit."""
        merging.unmerge(self.sites)
        self.state.merged = None

    def fusion_name(self, adapters: Fuse | Sequence[str] | str) -> str:
        """Returns the name of a fusion, given that, a `Fuse` or the names of the fused."""
        name = adapters if isinstance(adapters, str) else as_fuse(adapters).name
        if name not in self.state.fusions:
            known = ", ".join(self.state.fusions) or "none yet"
            raise ValueError(f"`adapters` must be fused. Received: {name!r}. There are: {known}.")
        return name

    def _require_whole(self) -> None:
        if self.part_of:
            raise ValueError(
                f"Adapters must be added, chosen and merged on the whole {self.part_of}. Received: its "
                f"{self.model.name}. Leave the other tower's layers out with `leave_out`."
            )


def _host(tower: Any) -> HostedAdapters:
    host: HostedAdapters = tower.adapters
    return host
