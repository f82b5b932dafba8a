"""`Family`: what a family of models is, asked by everyone who must know; and the table of all families.

A row names its towers, model and processor by import path, so that asking what a family is loads neither Keras nor
TensorFlow.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
from collections.abc import Callable, Collection, Mapping
from typing import Any, Literal

import numpy as np

from tf_clip.families.layout import Layout
from tf_clip.families.tensor_names import TensorNames

IntArray = np.ndarray[Any, np.dtype[np.integer[Any]]]
# The package's own rows: modules that hold a `FAMILY`.
_ROWS = ("tf_clip.families.clip", "tf_clip.families.clip_resnet")
_registered: list[Family] = []


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextEnds:
    """Where texts end, in a family that pools a text there and reads nothing behind.

    Args:
        positions: from a tower's configuration and ids `[batch, length]` to the positions that texts are pooled at,
            int64 `[batch]`.
        end_token: from a tower's configuration to the one id that ends a text, or None where the highest id of a text
            ends it.
    """

    positions: Callable[[Any, IntArray], IntArray]
    end_token: Callable[[Any], int | None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
    """What a tower costs, from its configuration alone, its projection included.

    Args:
        parameters: from a tower's configuration and the width of the joint space to the number of trained parameters.
        operations: from both and a text's length in tokens, None for the longest, to the operations of one row.
        describe: from a tower's configuration to a line for people.
    """

    parameters: Callable[[Any, int], int]
    operations: Callable[[Any, int, int | None], int]
    describe: Callable[[Any], str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """One family of dual encoders.

    A family may lack a side: one that only has image towers is combined with the text towers of another.

    Args:
        name: how people call it.
        config: the configuration's class of a whole model, or None.
        text_config, image_config: the towers' configurations' classes, or None.
        model, text_tower, image_tower: their classes, as `"module:Class"`, or None. Towers are those with a projection.
        processor: the class that prepares strings and images, as `"module:Class"`, or None.
        class_of: from a `config.json`'s `model_type` and the tensors' names to the class that the checkpoint was saved
            from, as `"module:Class"`.
        padding: `"longest"` if texts are padded to the longest of a batch, `"max_length"` if always to the longest that
            the tower takes.
        text_is_causal: whether a token's state depends only on the tokens before it.
        pooling: which state stands for a text: `"end"`, that of the token that ends it; `"last"`, `"first"`; or
            `"attention"`.
        text_ends: where texts end, in a family whose `pooling` is `"end"`; else None.
        scores: `"softmax"` over the labels, or `"sigmoid"` of each pair.
        rewritings: from a tower's class, as `"module:Class"`, to the name of a rewriting that is exact for it.
        tensor_names: how its variables are called in Hugging Face's files; None takes the variables' own paths.
        layouts: the files of others that it reads, asked in this order.
        write_openclip: writes a model in OpenCLIP's files, or None.
        cost: what its towers cost, or None where it does not say.
        published: its published checkpoints, `families.published.KnownModel` each.
        oddities: from a `config.json` to what is odd about it, for people.
    """

    name: str
    config: type[Any] | None = None
    text_config: type[Any] | None = None
    image_config: type[Any] | None = None
    model: str | None = None
    text_tower: str | None = None
    image_tower: str | None = None
    processor: str | None = None
    class_of: Callable[[str, Collection[str]], str] | None = None
    padding: Literal["longest", "max_length"] = "longest"
    text_is_causal: bool = True
    pooling: Literal["end", "last", "first", "attention"] = "end"
    text_ends: TextEnds | None = None
    scores: Literal["softmax", "sigmoid"] = "softmax"
    rewritings: Mapping[str, str] = dataclasses.field(default_factory=dict)
    tensor_names: TensorNames | None = None
    layouts: tuple[Layout, ...] = ()
    write_openclip: Callable[..., None] | None = None
    cost: Cost | None = None
    published: Callable[[], tuple[Any, ...]] = lambda: ()
    oddities: Callable[[Mapping[str, Any]], list[str]] = lambda config: []

    @property
    def model_types(self) -> dict[str, type[Any]]:
        """From a `model_type` in a `config.json` to the configuration's class."""
        classes = (self.config, self.text_config, self.image_config)
        return {cls.model_type: cls for cls in classes if cls is not None}


def register(family: Family) -> None:
    """Adds a family of your own, or replaces the one of the same name.

    Args:
        family: the row. Its configurations' `model_type` must be of no other family.

    Raises:
        ValueError: another family has one of its model types.
    """
    others = [row for row in families() if row.name != family.name]
    taken = {kind: row.name for row in others for kind in row.model_types}
    for kind in family.model_types:
        if kind in taken:
            raise ValueError(
                f"`model_type` must be of one family. Received: {kind!r} of {family.name}, which {taken[kind]} has. "
                "Choose another."
            )
    _registered[:] = [row for row in _registered if row.name != family.name] + [family]


def families() -> tuple[Family, ...]:
    """Returns all rows: the package's own, then those that were registered."""
    return (*_own_rows(), *_registered)


@functools.cache
def _own_rows() -> tuple[Family, ...]:
    return tuple(importlib.import_module(module).FAMILY for module in _ROWS)


def family_of(subject: Any) -> Family:
    """Returns the family of a model type, a parsed `config.json`, a configuration, or a tower or model with a `config`.

    Args:
        subject: one of these.

    Raises:
        ValueError: no family has it.
    """
    kind = model_type_of(subject)
    for family in families():
        if kind in family.model_types:
            return family
    known = ", ".join(kind for family in families() for kind in family.model_types)
    raise ValueError(
        f"`model_type` must be one of {known}. Received: {kind!r} of {type(subject).__name__}. Register the family of "
        "your own with tf_clip.families.family.register."
    )


def model_type_of(subject: Any) -> str | None:
    """Returns a `model_type`; see `family_of`. None where there is none."""
    if isinstance(subject, str):
        return subject
    if isinstance(subject, Mapping):
        found = subject.get("model_type")
        return None if found is None else str(found)
    return getattr(getattr(subject, "config", subject), "model_type", None)


def class_at(path: str) -> Any:
    """Imports and returns a class.

    Args:
        path: `"module:Class"`.
    """
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)


def rewriting_of(tower: Any) -> str | None:
    """Returns the name of the rewriting that is exact for a tower: of its very class, and not of a subclass.

    Args:
        tower: any object.
    """
    own = f"{type(tower).__module__}:{type(tower).__qualname__}"
    for family in families():
        if own in family.rewritings:
            return family.rewritings[own]
    return None
