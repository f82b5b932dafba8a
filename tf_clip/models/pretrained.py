"""`from_pretrained`, `save_pretrained` and `from_config`, shared by every model."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tf_clip.checkpoints import assign, hub, save
from tf_clip.checkpoints.source import Checkpoint, read_checkpoint
from tf_clip.families.clip.config import CLIPConfig, CLIPResNetConfig, CLIPTextConfig, CLIPVisionConfig
from tf_clip.layers.adapter_sites import is_of_adapter
from tf_clip.layers.initializers import weights_come_from_files

if TYPE_CHECKING:
    from typing_extensions import Self

AnyConfig = CLIPConfig | CLIPTextConfig | CLIPVisionConfig | CLIPResNetConfig


class PretrainedModel:
    """Adds checkpoint files to a Keras model that builds itself from a `config`."""

    config_class: ClassVar[type[AnyConfig]]
    # Where the model's variables lie inside CLIPModel: "" for the whole, else the tower's name.
    weights_root: ClassVar[str]
    # What the projection into the joint space is called in the towers that have one.
    projection_name: ClassVar[str | None] = None

    @classmethod
    def as_config(cls, config: AnyConfig | Mapping[str, Any] | None) -> Any:
        """Returns a configuration of this model's kind from one, a dictionary of its fields, or None."""
        if isinstance(config, cls.config_class):
            return config
        if config is not None and not isinstance(config, Mapping):
            raise TypeError(
                f"`config` must be a {cls.config_class.__name__}, a dictionary of its fields or None. "
                f"Received: config={config!r}. Build one with {cls.config_class.__name__}(...)."
            )
        return cls.config_class.from_dict(config or {})

    @classmethod
    def from_config(cls, config: AnyConfig | Mapping[str, Any], **kwargs: Any) -> Self:
        """Makes a model with fresh weights.

        Args:
            config: a `CLIPConfig` or a tower's configuration, as in transformers; or what `get_config`
                returned, as in Keras.
            **kwargs: arguments of the model, beside a configuration.
        """
        if isinstance(config, cls.config_class):
            return cls(config, **kwargs)  # type: ignore[call-arg]
        kwargs.pop("custom_objects", None)  # Keras hands it to every from_config
        return cls(**{**config, **kwargs})  # type: ignore[dict-item]

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        config: AnyConfig | Mapping[str, Any] | None = None,
        revision: str | None = None,
        dtype: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Loads a checkpoint of any format that `docs/checkpoints.md` lists; it fits exactly, or nothing is returned.

        A tower also loads from a full CLIP checkpoint: its part is taken.

        Args:
            name_or_path: a shipped name, a local folder or file, or a Hub id such as
                `"openai/clip-vit-base-patch32"`.
            config: a configuration to use in place of the checkpoint's own, needed only for files that
                come without one.
            revision: branch, tag or commit on the Hub.
            dtype: Keras dtype or dtype policy of the model, such as `"mixed_bfloat16"`; None takes
                Keras's global policy.
            **kwargs: arguments of the model, such as `attn_implementation`.

        Returns:
            The model, with the checkpoint's weights.

        Raises:
            FileNotFoundError: there is no such checkpoint, or a file of it is missing.
            ValueError: the configuration has a value that cannot be honored.
            CheckpointError: tensors are missing, left over or misshapen, or a file is broken or of
                another kind of model; all are listed.
        """
        checkpoint = read_checkpoint(hub.resolve(name_or_path, revision), None if config is None else _as_dict(config))
        arguments = {**cls._arguments_from(checkpoint), **kwargs}
        if dtype is not None:
            arguments["dtype"] = dtype
        with weights_come_from_files():
            model = cls(**arguments)
        assign.load_weights(
            model._variables_in(checkpoint, kwargs),
            checkpoint.tensors,
            source=str(checkpoint.path),
            partial=cls._is_part_of(checkpoint),
        )
        return model

    @classmethod
    def _is_part_of(cls, checkpoint: Checkpoint) -> bool:
        return bool(cls.weights_root) and checkpoint.config.get("model_type") == CLIPConfig.model_type

    @classmethod
    def _arguments_from(cls, checkpoint: Checkpoint) -> dict[str, Any]:
        """Returns the arguments that make this model as a checkpoint describes it."""
        arguments: dict[str, Any] = {
            "config": cls.config_class.from_checkpoint_dict(checkpoint.config, str(checkpoint.path))
        }
        if cls._is_part_of(checkpoint) and cls.projection_name:
            # In a full checkpoint the shared space has the top-level width, whatever the tower's part says.
            arguments["projection_dim"] = CLIPConfig.from_dict(checkpoint.config).projection_dim
        return arguments

    def _variables_in(self, checkpoint: Checkpoint, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the variables that a checkpoint must fill, given the arguments the caller made the model with."""
        return self._variables_by_path()

    def save_pretrained(
        self, folder: str | Path, *, dtype: str = "float32", max_shard_size: int | str = save.MAX_SHARD_SIZE
    ) -> None:
        """Writes `config.json` and `model.safetensors`, which transformers loads too.

        Args:
            folder: where to; made when missing.
            dtype: how weights are stored, `"float32"` or, in half the space, `"float16"` or `"bfloat16"`.
            max_shard_size: the largest file, in bytes or as `"5GB"`; larger models are cut into several
                and an index.

        Raises:
            ValueError: `dtype` or `max_shard_size` is none of these.
        """
        config = self.config  # type: ignore[attr-defined]
        if self.projection_name:
            config = type(config).from_dict({**config.to_dict(), "projection_dim": self.projection_dim})  # type: ignore[attr-defined]
        save.save_hugging_face(self._variables_by_path(), config.to_dict(), folder, dtype, max_shard_size)

    def push_to_hub(
        self, name: str, *, private: bool = False, message: str | None = None, dtype: str = "float32"
    ) -> str:
        """Uploads what `save_pretrained` writes to the Hugging Face Hub.

        Args:
            name: the repository, such as `"someone/my-clip"`; made when missing.
            private: whether a new repository is seen by its owner alone.
            message: the commit's message.
            dtype: see `save_pretrained`.

        Returns:
            The address of the commit.

        Raises:
            PermissionError: the Hub refuses: there is no token, or it may not write there.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, dtype=dtype)
            return hub.upload(folder, name, private=private, message=message)

    def _variables_by_path(self) -> dict[str, Any]:
        """Returns every weight under its path inside `CLIPModel`, whatever this model is called or part of."""
        return variables_below(self, self.weights_root)


def variables_below(tower: Any, root: str) -> dict[str, Any]:
    """Returns a tower's weights without its adapters', their paths starting with `root` in place of the tower's own."""
    return {
        root + variable.path.removeprefix(tower.path): variable
        for variable in tower.weights
        if not is_of_adapter(variable)
    }


def _as_dict(config: AnyConfig | Mapping[str, Any]) -> Mapping[str, Any]:
    return config if isinstance(config, Mapping) else config.to_dict()
