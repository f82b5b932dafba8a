"""`Opened`: what lies in a checkpoint's files; and `Layout`: how files that are not Hugging Face's become so."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tf_clip.checkpoints.readers.stored import StoredTensor


@dataclasses.dataclass(frozen=True)
class Opened:
    """A checkpoint on its way to Hugging Face's form. Its weights are looked at when `tensors` is first asked.

    Args:
        path: the file of weights, its index, or the folder while none is known.
        is_file: whether the caller named the file of weights, and not its folder.
        weights: the name of the file of weights, `"model.safetensors"` also where it is cut up; None if there is none.
        descriptions: the parsed JSON files beside it, by name.
        config: Hugging Face's `config.json`, parsed; None while nothing says it.
        layout: the format, in words; empty while the weights were not looked at.
        read: reads the tensors and says their format.
        notes: what is odd about the files, for people.
    """

    path: Path
    is_file: bool
    weights: str | None
    descriptions: Mapping[str, Mapping[str, Any]]
    config: Mapping[str, Any] | None
    read: Callable[[], tuple[dict[str, StoredTensor], str]]
    notes: tuple[str, ...] = ()

    @property
    def tensors(self) -> dict[str, StoredTensor]:
        """The tensors, still in their files."""
        return self.read()[0]

    @property
    def layout(self) -> str:
        """The format, in words."""
        return self.read()[1]

    def with_tensors(self, tensors: dict[str, StoredTensor], layout: str | None = None, *notes: str) -> Opened:
        """Returns the same with other tensors, and with another format and more notes where they are given."""
        found = (tensors, self.layout if layout is None else layout)
        return dataclasses.replace(self, read=lambda: found, notes=(*self.notes, *notes))


@dataclasses.dataclass(frozen=True)
class Layout:
    """One way in which others store a family's models.

    Args:
        recognizes: whether what was opened is stored so.
        translate: turns it into Hugging Face's configuration and tensors, or a step nearer to it.
    """

    recognizes: Callable[[Opened], bool]
    translate: Callable[[Opened], Opened]
