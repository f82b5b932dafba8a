"""The published checkpoints that tf_clip can load: what each is, where it lies, what it may be used for.

Nothing is downloaded here. Each family's record has its own rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from tf_clip.families.config import TwoTowerConfig
from tf_clip.families.family import families, family_of


@dataclasses.dataclass(frozen=True)
class KnownModel:
    """One published checkpoint.

    Args:
        hub_id: its repository on the Hugging Face Hub, which `from_pretrained` takes.
        architecture: how its towers are called.
        config_dict: its configuration, as in `config.json`.
        layout: how its files are laid out, `"huggingface"` or `"openclip"`.
        trained_on: its training data.
        license: its license, by its usual short name.
        publisher: who trained it.
        images: how its images are prepared, where it is not as OpenAI's.
        sha256: the digest of the one file that OpenAI published, for its nine; None for the others.
    """

    hub_id: str
    architecture: str
    config_dict: Mapping[str, Any]
    layout: str
    trained_on: str
    license: str
    publisher: str
    images: str = ""
    sha256: str | None = None

    @property
    def url(self) -> str | None:
        """Where OpenAI published its file, which `from_pretrained` reads once it is downloaded; None for the others."""
        if self.sha256 is None:
            return None
        name = self.architecture.replace("/", "-")
        name = f"{name}px" if name == "ViT-L-14-336" else name
        return f"https://openaipublic.azureedge.net/clip/models/{self.sha256}/{name}.pt"

    @property
    def config(self) -> TwoTowerConfig:
        """The model's configuration."""
        config: TwoTowerConfig = (
            family_of(self.config_dict).model_types[self.config_dict["model_type"]].from_dict(self.config_dict)
        )
        return config


def _all() -> tuple[KnownModel, ...]:
    return tuple(model for family in families() for model in family.published())


def known_models(containing: str = "") -> list[KnownModel]:
    """Lists the known checkpoints, or those that have a word in their id, architecture, training data or publisher.

    Args:
        containing: the word, in any case; empty for all.
    """
    word = containing.lower()
    return [
        model
        for model in _all()
        if any(word in part.lower() for part in (model.hub_id, model.architecture, model.trained_on, model.publisher))
    ]


def find(hub_id: str) -> KnownModel | None:
    """Returns the known checkpoint of a Hub id, in any case, or None.

    Args:
        hub_id: the id, such as `"openai/clip-vit-base-patch32"`.
    """
    return next((model for model in _all() if model.hub_id.lower() == hub_id.lower()), None)
