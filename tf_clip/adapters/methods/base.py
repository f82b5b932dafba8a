"""`Adapter`: what every adapter at a site is, how its weights are drawn, and how they are called in files."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, NamedTuple, Protocol

import keras
import numpy as np
from keras import ops

from tf_clip.adapters.scores import record
from tf_clip.adapters.sites import Location
from tf_clip.layers.adapter_sites import RowInputs
from tf_clip.layers.transformer import ACTIVATIONS

Array = np.ndarray[Any, Any]


def _leaky_relu(x: Any) -> Any:
    return keras.activations.leaky_relu(x, negative_slope=0.01)


FUNCTIONS: dict[str | None, Callable[[Any], Any]] = {
    **{str(name): function for name, function in ACTIVATIONS.items()},
    "swish": keras.activations.silu,
    "tanh": keras.activations.tanh,
    "sigmoid": keras.activations.sigmoid,
    "leakyrelu": _leaky_relu,
    "linear": keras.activations.linear,
    None: keras.activations.linear,
}
"""From a configuration's `non_linearity` to its function."""


@dataclasses.dataclass
class Held:
    """What belongs to another: Keras takes a bare layer in an attribute for a part.

    Args:
        it: what is held.
    """

    it: Any


class Shared(Protocol):
    """What the layers of an adapter share: held once by the model, made by `SharedParts`."""

    matrices: dict[str, Any]
    # By tower.
    prefixes: dict[str, Any]


class Form(NamedTuple):
    """How a weight is written to AdapterHub's files, and read; its shape comes back by itself."""

    write: Callable[[Array], Array]
    read: Callable[[Array], Array]


PLAIN = Form(np.asarray, np.asarray)
TRANSPOSED = Form(np.transpose, np.transpose)
COLUMN = Form(lambda value: value[:, None], np.asarray)


class StoredLayer(keras.layers.Layer):
    """A layer whose weights have names in AdapterHub's files."""

    # From the path of a weight in here to its name in the files and its form there.
    file_names: ClassVar[Mapping[str, tuple[str, Form]]] = {}

    @property
    def parameters(self) -> list[Any]:
        """Its weights, without the state of random numbers."""
        return [variable for variable in self.weights if "seed_generator" not in variable.path]

    def _by_file_name(self) -> Iterator[tuple[str, Any, Form]]:
        for variable in self.parameters:
            name, form = self.file_names[variable.path.removeprefix(f"{self.path}/")]
            yield name, variable, form

    def to_file(self) -> dict[str, Array]:
        """Returns its weights as the files have them."""
        return {name: form.write(values(variable)) for name, variable, form in self._by_file_name()}

    def from_file(self, tensors: Mapping[str, Array]) -> None:
        """Takes its weights from a file; the caller has compared names and shapes with `to_file`."""
        for name, variable, form in self._by_file_name():
            variable.assign(np.reshape(form.read(tensors[name]), variable.shape))


class Adapter(StoredLayer):
    """What acts at a site under a name. It is never called as a layer; `adapt` is.

    Args:
        name: the adapter's.
        config: the part of its configuration that is about this site.
        location: where it is.
        shared: what the adapter's layers share, if they share anything.
    """

    # How many tokens, or keys, it puts in.
    extra_tokens = 0

    def __init__(self, name: str, config: Any, location: Location, shared: Shared | None = None) -> None:
        super().__init__(name=re.sub(r"[^A-Za-z0-9_.-]", "_", name), dtype=location.site.dtype_policy)
        self.adapter_name, self.settings = name, config
        self.location, self.shared = location, Held(shared)
        self._drawn = 0
        # Of its variables, those that are ever trained.
        self._trained: frozenset[int] = frozenset()

    def make(self) -> None:
        """Makes the variables, under the names of the layers around the site."""
        with contextlib.ExitStack() as stack:
            for scope in self.location.scopes:
                stack.enter_context(keras.name_scope(scope))
            self.build(None)
        self._trained = frozenset(id(variable) for variable in self.variables if variable.trainable)

    def adapt(self, state: tuple[Any, ...], rows: RowInputs, training: bool | None) -> tuple[Any, ...]:
        """Returns what it makes of a state; see `tf_clip.layers.transformer` for what a site's state is."""
        raise NotImplementedError(f"{type(self).__name__} must say what it makes of a state.")

    def set_trained(self, trained: bool) -> None:
        """Lets its weights be trained, or not; those that never are stay as they are."""
        for variable in self.variables:
            if id(variable) in self._trained:
                variable.trainable = trained

    def draw(self, kind: str, size: float = 0.0) -> keras.initializers.Initializer:
        """Returns an initializer: `"zeros"`, `"ones"`, or `"normal"`, `"truncated"`, `"uniform"` of a size.

        With a seed in the configuration, adapters of every layer draw the same.
        """
        seed = self.settings.init_weights_seed
        seed = None if seed is None else seed + self._drawn
        self._drawn += 1
        if kind in ("zeros", "ones"):
            return keras.initializers.get(kind)
        if kind == "uniform":
            return keras.initializers.RandomUniform(-size, size, seed=seed)
        if kind == "truncated":
            return keras.initializers.TruncatedNormal(stddev=size, seed=seed)
        return keras.initializers.RandomNormal(stddev=size, seed=seed)

    def dense(
        self,
        name: str,
        width: int,
        units: int,
        kernel: keras.initializers.Initializer,
        bias: keras.initializers.Initializer | None = None,
        **options: Any,
    ) -> keras.layers.Dense:
        """Returns a dense layer with its variables made; without bias if that is None. Options are Keras's."""
        layer = keras.layers.Dense(
            units,
            use_bias=bias is not None,
            kernel_initializer=kernel,
            bias_initializer=bias or "zeros",
            dtype=self.dtype_policy,
            name=name,
            **options,
        )
        layer.build((None, width))
        return layer

    def dropout(self, rate: float, rowwise: bool = False) -> keras.layers.Dropout | None:
        """Returns a dropout layer, of whole rows if wished; None where nothing is dropped."""
        if not rate:
            return None
        return keras.layers.Dropout(rate, noise_shape=(None, 1, 1) if rowwise else None, dtype=self.dtype_policy)


def values(variable: Any) -> Array:
    """Returns a variable's values as float32."""
    return np.asarray(ops.convert_to_numpy(ops.cast(variable.value, "float32")))


GATE_NAMES = {"gate/kernel": ("gate.weight", TRANSPOSED), "gate/bias": ("gate.bias", PLAIN)}
"""What a gate's weights are called in files, and their form there."""


def gate_of(adapter: Any, x: Any) -> Any:
    """Returns how much counts in each row, the mean of what the tokens say to its gate: `[batch, 1, units]`."""
    value = ops.mean(ops.sigmoid(adapter.gate(x)), axis=1, keepdims=True)
    record("gates", adapter.adapter_name, adapter.location, value)
    return value
