"""`SharedParts`: the weights of an adapter that all its layers share, held once by the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tf_clip.adapters.config import (
    AdapterConfig,
    AnyConfig,
    BottleneckConfig,
    LoRAConfig,
    PrefixTuningConfig,
)
from tf_clip.adapters.methods.base import PLAIN, TRANSPOSED, Adapter, Array, Held
from tf_clip.adapters.methods.phm import rule_initializer, rule_shapes, shared_shapes, weight_initializer
from tf_clip.adapters.methods.prefix import Prefixes
from tf_clip.adapters.sites import Location

Matched = Sequence[tuple[AdapterConfig, Location]]


class SharedParts(Adapter):
    """What the layers of one adapter share: VeRA's random matrices, compacter's rules, the towers' prefixes.

    Args:
        name: the adapter's.
        config: the adapter's.
        location: the model's own site.
        matched: the locations where it acts, each with its part of the configuration.
    """

    def __init__(self, name: str, config: AnyConfig, location: Location, matched: Matched) -> None:
        super().__init__(name, config.parts()[0], location)
        self.matched = Held(matched)
        self.prefixes: dict[str, Prefixes] = {}
        self.matrices: dict[str, Any] = {}

    @staticmethod
    def is_needed(matched: Matched) -> bool:
        """Whether layers share anything."""
        return any(
            isinstance(config, PrefixTuningConfig)
            or (isinstance(config, LoRAConfig) and config.vera_d is not None)
            or (isinstance(config, BottleneckConfig) and config.phm_layer)
            for config, _ in matched
        )

    def build(self, input_shape: Any) -> None:
        """Makes what is shared."""
        matched = self.matched.it
        veras = [item for item in matched if isinstance(item[0], LoRAConfig) and item[0].vera_d is not None]
        if veras:
            self._build_vera(veras)
        phms = [item for item in matched if isinstance(item[0], BottleneckConfig) and item[0].phm_layer]
        if phms:
            self._build_phm(phms)
        for tower in ("text", "vision"):
            prefixed = [item for item in matched if isinstance(item[0], PrefixTuningConfig) and item[1].tower == tower]
            if prefixed:
                config, location = prefixed[0]
                prefixes = Prefixes(config, location.site.width, len(prefixed), self.dtype_policy, f"{tower}_prefixes")
                prefixes.build(None)
                self.prefixes[tower] = prefixes

    def _weight(self, name: str, shape: tuple[int, ...], initializer: Any, trainable: bool = True) -> None:
        self.matrices[name] = self.add_weight(shape=shape, initializer=initializer, trainable=trainable, name=name)

    def _build_vera(self, veras: Matched) -> None:
        config: Any = veras[0][0]
        width = max(location.site.width for _, location in veras)
        units = max(location.site.units for _, location in veras)
        self._weight("lora_A", (width, config.r), self.draw("uniform", (6 / width) ** 0.5), trainable=False)
        self._weight("lora_B", (config.r, units), self.draw("uniform", (6 / config.r) ** 0.5), trainable=False)

    def _build_phm(self, phms: Matched) -> None:
        config: Any = phms[0][0]
        if config.shared_phm_rule:
            for name, shape in rule_shapes(config).items():
                self._weight(name, shape, rule_initializer(self, config, True), trainable=config.learn_phm)
        if config.shared_W_phm:
            for width in sorted({location.site.width for _, location in phms if location.part != "embeddings"}):
                for name, factor in shared_shapes(config, width).items():
                    self._weight(f"{name}_{width}", factor, weight_initializer(self, config, factor))

    def _by_file_name(self) -> Any:
        for name, variable in self.matrices.items():
            widths = {key.rpartition("_")[2] for key in self.matrices if key.startswith("W_")}
            stem, _, last = name.rpartition("_")
            # AdapterHub knows models of one width alone.
            file_name = stem if last in widths and len(widths) == 1 else name
            yield f"shared_parameters.{file_name}", variable, TRANSPOSED if name.startswith("lora_") else PLAIN

    def to_file(self) -> dict[str, Array]:
        """Returns the shared weights under the names of what they belong to."""
        tensors = super().to_file()
        for tower, prefixes in self.prefixes.items():
            tensors.update({f"{tower}.{name}": value for name, value in prefixes.to_file().items()})
        return tensors

    def from_file(self, tensors: Mapping[str, Array]) -> None:
        """Takes the shared weights."""
        super().from_file(tensors)
        for tower, prefixes in self.prefixes.items():
            prefixes.from_file(
                {name.removeprefix(f"{tower}."): value for name, value in tensors.items() if name.startswith(tower)}
            )

    def take_flat(self, other: SharedParts) -> None:
        """Becomes, having flat prefixes, what another makes."""
        for name, variable in self.matrices.items():
            variable.assign(other.matrices[name])
        for tower, prefixes in self.prefixes.items():
            prefixes.take(other.prefixes[tower])
