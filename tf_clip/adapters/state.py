"""`AdapterState`: what a model remembers of its adapters, and how it is part of the model's configuration."""

from __future__ import annotations

import dataclasses
from typing import Any

from tf_clip.adapters.composition import Block
from tf_clip.adapters.config import AnyConfig, FusionConfig


@dataclasses.dataclass
class AdapterState:
    """What a model remembers of its adapters.

    Args:
        configs: by the adapters' names.
        fusions: by the fusions' names, each with the names of the fused.
        active: what runs.
        skip_layers: global numbers of layers where nothing runs.
        merged: the adapter that is in the model's own weights.
        frozen: which of the model's own variables were trained before it was frozen, by identity; None if it is not.
        trained: names of adapters whose weights are trained, while it is frozen.
        trained_fusions: names of fusions that are.
    """

    configs: dict[str, AnyConfig] = dataclasses.field(default_factory=dict)
    fusions: dict[str, tuple[FusionConfig, tuple[str, ...]]] = dataclasses.field(default_factory=dict)
    active: Block | None = None
    skip_layers: tuple[int, ...] = ()
    merged: str | None = None
    frozen: dict[int, bool] | None = None
    trained: tuple[str, ...] = ()
    trained_fusions: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Returns what a model made from its configuration needs to have the same adapters."""
        return {
            "configs": {name: config.to_dict() for name, config in self.configs.items()},
            "fusions": {
                name: {"config": config.to_dict(), "names": list(names)}
                for name, (config, names) in self.fusions.items()
            },
            "active": None if self.active is None else self.active.to_dict(),
            "skip_layers": list(self.skip_layers),
            "merged": self.merged,
            "is_frozen": self.frozen is not None,
            "trained": list(self.trained),
            "trained_fusions": list(self.trained_fusions),
        }
