"""`from_pretrained` and `save_pretrained`, shared by the joint model and both towers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tf_clip.checkpoints import assign, hub
from tf_clip.configuration import CLIPConfig, CLIPTextConfig, CLIPVisionConfig

if TYPE_CHECKING:
    from typing_extensions import Self


class PretrainedModel:
    """Adds Hugging Face files to a Keras model that builds itself from a `config`."""

    config_class: ClassVar[type[CLIPConfig] | type[CLIPTextConfig] | type[CLIPVisionConfig]]
    # Where the model's variables lie inside CLIPModel: "" for the whole, else the tower's name.
    weights_root: ClassVar[str]

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, *, revision: str | None = None, dtype: Any = None) -> Self:
        """Loads a checkpoint in Hugging Face layout; it fits exactly, or nothing is returned.

        A tower also loads from a full CLIP checkpoint: its part is taken.

        Args:
            name_or_path: a shipped name, a local folder, or a Hub id such as
                `"openai/clip-vit-base-patch32"`.
            revision: branch, tag or commit on the Hub.
            dtype: Keras dtype or dtype policy of the model, such as `"mixed_bfloat16"`; None takes
                Keras's global policy.

        Returns:
            The model, with the checkpoint's weights.

        Raises:
            FileNotFoundError: there is no such checkpoint, or a file of it is missing.
            ValueError: the configuration has a value that cannot be honoured.
            CheckpointError: tensors are missing, left over or misshapen; all are listed.
        """
        folder = hub.resolve(name_or_path, revision)
        config = cls.config_class.from_pretrained(folder)
        arguments: dict[str, Any] = {} if dtype is None else {"dtype": dtype}
        is_part = bool(cls.weights_root) and _model_type(folder) == CLIPConfig.model_type
        if is_part:
            # In a full checkpoint the shared space has the top-level width, whatever the tower's part says.
            arguments["projection_dim"] = CLIPConfig.from_pretrained(folder).projection_dim
        model = cls(config, **arguments)  # type: ignore[call-arg]
        assign.load_weights(model._variables_by_path(), folder, partial=is_part)
        return model

    def save_pretrained(self, folder: str | Path, *, dtype: str = "float32") -> None:
        """Writes `config.json` and `model.safetensors`, which transformers loads too.

        Args:
            folder: where to; made when missing.
            dtype: how weights are stored, `"float32"` or, in half the space, `"float16"`.

        Raises:
            ValueError: `dtype` is neither.
        """
        config = self.config  # type: ignore[attr-defined]
        if self.weights_root:
            config = type(config).from_dict({**config.to_dict(), "projection_dim": self.projection_dim})  # type: ignore[attr-defined]
        config.save_pretrained(folder)
        assign.save_weights(self._variables_by_path(), folder, dtype)

    def _variables_by_path(self) -> dict[str, Any]:
        """Returns every weight under its path inside `CLIPModel`, whatever this model is called or part of."""
        if self.weights_root:
            return _below(self, self.weights_root)
        return {
            "logit_scale": self.logit_scale,  # type: ignore[attr-defined]
            **_below(self.text_encoder, "text_encoder"),  # type: ignore[attr-defined]
            **_below(self.image_encoder, "image_encoder"),  # type: ignore[attr-defined]
        }


def _below(tower: Any, root: str) -> dict[str, Any]:
    """Returns a tower's weights, their paths starting with `root` in place of the tower's own path."""
    return {root + variable.path.removeprefix(tower.path): variable for variable in tower.weights}


def _model_type(folder: Path) -> str | None:
    return json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
