"""An exported model as a server sees it: a version's folder, its description and its signatures."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from tf_clip.export.savedmodel.write import DESCRIPTION


@dataclasses.dataclass(frozen=True)
class ExportedModel:
    """A version of a model, loaded by TensorFlow alone.

    Args:
        folder: `path/version`.
        version: the version.
        description: what `assets.extra/tf_clip.json` holds.
        signatures: the functions, by name.
    """

    folder: Path
    version: int
    description: Mapping[str, Any]
    signatures: Mapping[str, Any]

    @classmethod
    def open(cls, path: str | Path, version: int | None = None) -> ExportedModel:
        """Loads a version.

        Args:
            path: the model's folder, as a server is given it.
            version: the version; None for the highest.

        Raises:
            FileNotFoundError: there is no such version.
            ValueError: it was not exported by tf_clip.
        """
        base = Path(path)
        versions = {int(one.name): one for one in base.glob("[0-9]*") if one.name.isdecimal()}
        if version is None and versions:
            version = max(versions)
        folder = versions.get(version) if version is not None else None
        if version is None or folder is None or not (folder / "saved_model.pb").is_file():
            raise FileNotFoundError(
                f"`path` must hold an exported version. Received: path={str(path)!r}, version={version!r}; "
                f"its versions are {sorted(versions)}. Write one with `tf-clip export saved-model`."
            )
        description = _description(folder)
        signatures = tf.saved_model.load(str(folder)).signatures
        if set(signatures) != set(description["signatures"]):
            raise ValueError(
                f"`path` must hold a model whose {DESCRIPTION} lists its signatures. Received: {folder} has "
                f"{sorted(signatures)}, listed are {sorted(description['signatures'])}. Export it again."
            )
        return cls(folder, version, description, signatures)

    @property
    def batchable(self) -> list[str]:
        """The signatures that a server may batch."""
        return sorted(name for name, one in self.description["signatures"].items() if one["batchable"])

    def inputs(self, signature: str) -> dict[str, tf.TensorSpec]:
        """Returns a signature's inputs, by name."""
        specs: dict[str, tf.TensorSpec] = self.signatures[signature].structured_input_signature[1]
        return specs

    def run(self, signature: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Runs a signature and returns its outputs as arrays."""
        specs = self.inputs(signature)
        tensors = {name: tf.constant(value, specs[name].dtype) for name, value in inputs.items()}
        return {name: tensor.numpy() for name, tensor in self.signatures[signature](**tensors).items()}


def _description(folder: Path) -> dict[str, Any]:
    try:
        description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        if isinstance(description["signatures"], dict) and description["format"] == 1:
            return dict(description)
        reason = "is of another format"
    except (OSError, KeyError, TypeError, ValueError) as error:
        reason = f"cannot be read ({type(error).__name__}: {error})"
    raise ValueError(
        f"`path` must hold a model that tf_clip exported. Received: {folder}, whose {DESCRIPTION} {reason}. "
        "Write one with `tf-clip export saved-model`."
    )
