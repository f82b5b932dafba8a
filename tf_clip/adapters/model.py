"""`AdaptableModel`: adding, training, choosing and merging adapters, on every model."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras

from tf_clip.adapters import adding, merging, summary
from tf_clip.adapters.composition import Block, Fuse, as_fuse, as_setup, fusions_in
from tf_clip.adapters.config import (
    AnyConfig,
    ConfigUnion,
    FusionConfig,
    PrefixTuningConfig,
)
from tf_clip.adapters.methods.base import Adapter
from tf_clip.adapters.methods.matching import matched
from tf_clip.adapters.model_files import WithAdapterFiles
from tf_clip.adapters.named_configs import as_config, as_fusion
from tf_clip.adapters.places import Location
from tf_clip.adapters.setup import copies_of_rows, require_meaning, tell_places
from tf_clip.adapters.shared import SharedParts
from tf_clip.adapters.state import AdapterState
from tf_clip.layers.adapter_sites import AdapterPlace

if TYPE_CHECKING:
    from typing_extensions import Self


class AdaptableModel(WithAdapterFiles):
    """Adds adapters to a Keras model: small modules that change what it does while its own weights stay.

    Layers are numbered over both towers, the text tower's first; a lone tower's begin at 0. Where a model has been
    compiled, call `compile` again after `train_adapter`: an optimizer knows the weights it was built for.

    Example:
        >>> model = CLIPModel(config)
        >>> model.add_adapter("mine", "lora[r=16]")
        >>> model.train_adapter("mine")
        >>> model.compile("adamw")
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.adapter_state = AdapterState()
        # How often each row goes through: once for each of those that work in parallel.
        self.row_copies = 1
        self.shared_adapters = AdapterPlace("shared", 1, dtype=self.dtype_policy, name="shared_adapters")  # type: ignore[attr-defined]

    @property
    def token_embedding(self) -> keras.layers.Embedding | None:
        """The table that prompts may begin with; None without a text tower."""
        return None

    def adapter_locations(self) -> Iterator[Location]:
        """Yields where adapters can stand: none in a model without transformer layers."""
        yield from ()

    def adapter_towers(self) -> Iterator[AdaptableModel]:
        """Yields the models in it that can be compiled on their own."""
        yield from ()

    def adapter_heads(self) -> Iterator[keras.layers.Layer]:
        """Yields layers that are trained along with adapters: what is new in this model."""
        yield from ()

    @property
    def shared_location(self) -> Location:
        """Where an adapter keeps what its layers share."""
        scopes = (self.name, self.shared_adapters.name)  # type: ignore[attr-defined]
        return Location(self.shared_adapters, "shared", scopes, "model")

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
            name: how it is called from now on.
            config: a configuration; a short name such as `"lora"`, with changes as in `"lora[r=16]"`, several joined by
                `|`; a dictionary; a path of a JSON file; None for `"seq_bn"`.
            overwrite_ok: replaces one of the same name.
            set_active: makes it the active one.

        Raises:
            ValueError: there is one of that name, the configuration is unknown, or has no place in this model.
            KeyError: its reduction factors leave a layer out.
        """
        self._require_whole()
        adding.require_name(name)
        read = as_config(config)
        if name in self.adapter_state.configs:
            if not overwrite_ok:
                raise ValueError(
                    f"`name` must be new. Received: name={name!r}, which is there. Choose another or overwrite_ok=True."
                )
            self.delete_adapter(name)
        adding.put_adapter(self, name, read)
        self.adapter_state.configs[name] = read
        if self.adapter_state.frozen is not None:
            self._set_trained(name, False)
        if set_active:
            self.active_adapters = name

    def delete_adapter(self, name: str) -> None:
        """Removes an adapter, and every fusion it is part of. If it is active, nothing is active afterwards.

        Raises:
            ValueError: there is none of that name.
        """
        self.require_names([name])
        state = self.adapter_state
        if state.merged == name:
            self.reset_adapter()
        if state.active is not None and name in state.active.names():
            self.active_adapters = None
        for fusion in [fusion for fusion, (_, names) in state.fusions.items() if name in names]:
            self.delete_adapter_fusion(fusion)
        adding.take_adapter(self, name)
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
        locations = [self.shared_location, *self.adapter_locations()]
        for location in locations:
            if name in location.place.by_name:
                layer, part = location.layer, location.part
                if layer is None:
                    layer, part = -1, part if part == "shared" else f"{location.tower}_{part}"
                found.setdefault(layer, {})[part] = location.place.by_name[name]
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
        given = [1.0] * len(adapters) if weights is None else [float(weight) for weight in weights]
        if len(given) != len(adapters) or not given:
            raise ValueError(f"`weights` must be one for each of {list(adapters)}. Received: weights={weights}.")
        if normalize_weights:
            if abs(sum(given)) < 1e-12:
                raise ValueError(f"`weights` must not sum to 0. Received: {given}. Or pass normalize_weights=False.")
            given = [weight / sum(given) for weight in given]
        configs = [self.adapter_state.configs[one] for one in adapters]
        config = merging.averaged_config(configs, combine_strategy, svd_rank)
        if overwrite_ok and name in adapters:
            raise ValueError(f"`name` must not be one of those it is made of. Received: name={name!r}.")
        self.add_adapter(name, config, overwrite_ok)
        merging.fill_average(self, name, adapters, given, combine_strategy)
        if set_active:
            self.active_adapters = name

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
        if block.name in self.adapter_state.fusions:
            if not overwrite_ok:
                raise ValueError(f"`adapters` must not be fused yet. Received: {block.name!r}. Or overwrite_ok=True.")
            self.delete_adapter_fusion(block.name)
        read = as_fusion(config)
        try:
            adding.put_fusion(self, block.name, read, names)
        except BaseException:
            adding.take_fusion(self, block.name)
            raise
        self.adapter_state.fusions[block.name] = (read, names)
        if set_active:
            self.active_adapters = block

    def delete_adapter_fusion(self, adapters: Fuse | Sequence[str] | str) -> None:
        """Removes a fusion by its name, a `Fuse` or the names of the fused.

        Raises:
            ValueError: there is none.
        """
        name, state = self.fusion_name(adapters), self.adapter_state
        if state.active is not None and name in fusions_in(state.active):
            self.active_adapters = None
        adding.take_fusion(self, name)
        del state.fusions[name]
        state.trained_fusions = tuple(other for other in state.trained_fusions if other != name)

    # Choosing

    @property
    def active_adapters(self) -> Block | None:
        """Which adapters work, and how together; None if none do. It can be set."""
        active: Block | None = self.adapter_state.active
        return active

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
        locations = list(self.adapter_locations())
        if block is not None:
            self.require_names(block.names())
            require_meaning(block, locations)
        if self.adapter_state.merged is not None:
            self.reset_adapter()
        self.adapter_state.active = block
        self.adapter_state.skip_layers = tuple(skip_layers)
        self._tell_places()

    def _tell_places(self) -> None:
        state = self.adapter_state
        tell_places(state.active, state.skip_layers, list(self.adapter_locations()))
        for model in (self, *self.adapter_towers()):
            model.row_copies = copies_of_rows(state.active)
        self._forget_compiled()

    def _forget_compiled(self) -> None:
        for model in (self, *self.adapter_towers()):
            # As Keras does in `compile`.
            model.train_function = model.test_function = model.predict_function = None  # type: ignore[attr-defined]

    # Training

    def train_adapter(self, setup: str | Block) -> None:
        """Makes adapters active and lets nothing but their weights be trained. Call `compile` afterwards.

        Raises:
            ValueError: see `set_active_adapters`.
        """
        block = as_setup(setup)
        if block is None:
            raise ValueError(
                "`setup` must name an adapter. Received: None. Call freeze_model(False) to train the model."
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
        state = self.adapter_state
        for name in state.configs:
            self._set_trained(name, name in names)
        for location in self.adapter_locations():
            for name, fusion in location.place.fusions.items():
                for variable in fusion.variables:
                    variable.trainable = name in fusions
        state.trained, state.trained_fusions = tuple(names), tuple(fusions)

    def _set_trained(self, name: str, is_trained: bool) -> None:
        for adapter in adding.adapters_of(self, name):
            adapter.set_trained(is_trained)

    def freeze_model(self, freeze: bool = True) -> None:
        """Keeps the model's own weights from being trained, but for a new head; or lets them be as they were before.

        Args:
            freeze: which of the two.
        """
        state = self.adapter_state
        heads = {id(variable) for head in self.adapter_heads() for variable in head.variables}
        own = [variable for variable in summary.base_variables(self) if id(variable) not in heads]
        if freeze and state.frozen is None:
            state.frozen = {id(variable): variable.trainable for variable in own}
        for variable in own:
            variable.trainable = False if freeze else (state.frozen or {}).get(id(variable), variable.trainable)
        if not freeze:
            state.frozen = None
        self._forget_compiled()

    # Merging

    def merge_adapter(self, name: str) -> None:
        """Puts what an adapter does into the model's own weights, so that it costs nothing; none is active then.

        `reset_adapter` and `set_active_adapters` take it out again, bit for bit.

        Raises:
            ValueError: the adapter does not act on dense layers alone, has gates, or another one is merged.
        """
        self._require_whole()
        self.require_names([name])
        if self.adapter_state.merged == name:
            return
        if self.adapter_state.merged is not None:
            raise ValueError(
                f"`name` must be the only merged adapter. Received: name={name!r} while "
                f"{self.adapter_state.merged!r} is merged. Call reset_adapter() first."
            )
        merging.merge(self, name)
        self.adapter_state.active, self.adapter_state.merged = None, name
        self._tell_places()

    def reset_adapter(self) -> None:
        """Takes a merged adapter out of the model's weights, which are then what they were before, bit for bit."""
        merging.unmerge(self)
        self.adapter_state.merged = None

    def eject_prefix_tuning(self, name: str) -> None:
        """Replaces the network that makes an adapter's prefixes by the prefixes it makes; the model does the same.

        Raises:
            ValueError: the adapter has no such network.
        """
        self.require_names([name])
        config = self.adapter_state.configs[name]
        if not any(isinstance(part, PrefixTuningConfig) and not part.flat for part in config.parts()):
            raise ValueError(f"`name` must be of prefix tuning that is not flat. Received: name={name!r}, {config!r}.")
        parts = tuple(
            part.replace(flat=True) if isinstance(part, PrefixTuningConfig) else part for part in config.parts()
        )
        changed = ConfigUnion(parts) if isinstance(config, ConfigUnion) else parts[0]
        old = self.shared_adapters.by_name[name]
        found = matched(changed, list(self.adapter_locations()))
        new = SharedParts(name, changed, self.shared_location, found)
        new.make()
        new.take_flat(old)
        new.set_trained(self.adapter_state.frozen is None or name in self.adapter_state.trained)
        self.shared_adapters.by_name[name] = new
        for adapter in adding.adapters_of(self, name)[1:]:
            if hasattr(adapter, "shared"):
                adapter.shared.it = new
        self.adapter_state.configs[name] = changed
        self._forget_compiled()

    # Looking

    def adapter_summary(self, as_dict: bool = False) -> str | list[dict[str, Any]]:
        """Returns a table of the adapters and their numbers of weights, the model itself last.

        Args:
            as_dict: returns the rows as dictionaries in place of text.
        """
        rows = summary.rows(self)
        return rows if as_dict else summary.as_text(rows)

    def fusion_name(self, adapters: Fuse | Sequence[str] | str) -> str:
        """Returns the name of a fusion, given that, a `Fuse` or the names of the fused.

        Raises:
            ValueError: there is none.
        """
        name = adapters if isinstance(adapters, str) else as_fuse(adapters).name
        if name not in self.adapter_state.fusions:
            known = ", ".join(self.adapter_state.fusions) or "none yet"
            raise ValueError(f"`adapters` must be fused. Received: {name!r}. There are: {known}.")
        return name

    def require_names(self, names: Sequence[str]) -> None:
        """Checks that adapters are there.

        Raises:
            ValueError: one is not.
        """
        for name in names:
            if name not in self.adapter_state.configs:
                known = ", ".join(self.adapter_state.configs) or "none yet"
                raise ValueError(f"`name` must be of an adapter. Received: {name!r}. There are: {known}.")

    def _require_whole(self) -> None:
        if self.adapter_state.part_of:
            raise ValueError(
                f"Adapters must be added, chosen and merged on the whole {self.adapter_state.part_of}. Received: its "
                f"{self.name}. Leave the other tower's layers out with `leave_out`."  # type: ignore[attr-defined]
            )

    # Keras

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of `__init__`, and the adapters if there are any."""
        config: dict[str, Any] = super().get_config()  # type: ignore[misc]
        state = self.adapter_state
        return {**config, "adapters": state.to_dict()} if state.configs or state.frozen is not None else config

    @classmethod
    def from_config(cls, config: Any, **kwargs: Any) -> Self:
        """Makes a model with fresh weights, and with the adapters that `get_config` told of.

        Args:
            config: a model's configuration, as in transformers; or what `get_config` returned, as in Keras.
            **kwargs: arguments of the model, beside a configuration.
        """
        adapters = config.get("adapters") if isinstance(config, Mapping) else None
        if adapters is None:
            model: Self = super().from_config(config, **kwargs)  # type: ignore[misc]
            return model
        rest = {name: value for name, value in config.items() if name != "adapters"}
        model = super().from_config(rest, **kwargs)  # type: ignore[misc]
        model._restore_adapters(adapters)
        return model

    def _restore_adapters(self, adapters: Mapping[str, Any]) -> None:
        for name, config in adapters["configs"].items():
            self.add_adapter(name, config)
        for name, fusion in adapters["fusions"].items():
            self.add_adapter_fusion(fusion["names"], fusion["config"], name=name)
        if adapters["is_frozen"]:
            self._train(adapters["trained"], adapters["trained_fusions"])
        if adapters["active"] is not None:
            self.set_active_adapters(Block.from_dict(adapters["active"]), adapters["skip_layers"])
        # Its weights come with the others', and so do those from before.
        self.adapter_state.merged = adapters["merged"]
