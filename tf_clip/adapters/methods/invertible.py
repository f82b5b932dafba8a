"""An invertible block behind the text's embeddings; a site's state is `(x,)`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from keras import ops

from tf_clip.adapters.methods.base import FUNCTIONS, PLAIN, TRANSPOSED, Adapter, Form
from tf_clip.layers.adapter_sites import RowInputs


class Invertible(Adapter):
    """Changes each half of the channels by what it reads in the other, which makes the change invertible.

    Source: Dinh et al. 2014 (NICE); Pfeiffer et al. 2020 (MAD-X).
    """

    file_names: ClassVar[Mapping[str, tuple[str, Form]]] = {
        f"{net}_{number}/{ours}": (f"{net}.{number}.{theirs}", form)
        for net in ("F", "G")
        for number in (0, 2)
        for ours, theirs, form in (("kernel", "weight", TRANSPOSED), ("bias", "bias", PLAIN))
    }

    def build(self, input_shape: Any) -> None:
        """Makes the two small networks."""
        width = self.location.site.width
        self.function = FUNCTIONS[self.settings.non_linearity]
        self.half = width // 2
        self.first = self._network("F", width - self.half, self.half)
        self.second = self._network("G", self.half, width - self.half)

    def _network(self, name: str, width: int, units: int) -> list[Any]:
        middle = max(1, int(width // self.settings.inv_adapter_reduction_factor))
        return [
            self.dense(f"{name}_0", width, middle, self.draw("normal", 0.02), self.draw("zeros")),
            self.dense(f"{name}_2", middle, units, self.draw("normal", 0.02), self.draw("zeros")),
        ]

    def _through(self, network: list[Any], x: Any) -> Any:
        return network[1](self.function(network[0](x)))

    def adapt(self, state: tuple[Any], rows: RowInputs, training: bool | None) -> tuple[Any]:
        """Changes the embeddings."""
        (x,) = state
        left, right = x[..., : self.half], x[..., self.half :]
        left = left + self._through(self.first, right)
        right = right + self._through(self.second, left)
        return (ops.concatenate([left, right], axis=-1),)
