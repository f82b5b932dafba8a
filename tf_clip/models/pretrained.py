"""`from_pretrained`, `save_pretrained` and `from_config`, shared by every model."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tf_clip.checkpoints import assign, hub, save
from tf_clip.checkpoints.source import Checkpoint, read_checkpoint
from tf_clip.families.config import JSONConfig, TwoTowerConfig
from tf_clip.families.family import family_of
from tf_clip.families.tensor_names import SourceTensor, TensorNames
from tf_clip.layers.adapter_sites import is_of_adapter
from tf_clip.layers.initializers import weights_come_from_files

if TYPE_CHECKING:
    from typing_extensions import Self


class PretrainedModel:
    """Adds checkpoint files to a Keras model that builds itself from a `config`."""

    config_class: ClassVar[type[JSONConfig]]
    # Where the model's variables lie inside a whole model: "" for that, else the tower's name.
    _weights_root: ClassVar[str]
    # What the projection into the joint space is called in the towers that have one.
    _projection_name: ClassVar[str | None] = None

    @classmethod
    def _as_config(cls, config: JSONConfig | Mapping[str, Any] | None) -> Any:
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
    def from_config(cls, config: JSONConfig | Mapping[str, Any], **kwargs: Any) -> Self:
        """Makes a model with fresh weights.

        Args:
            config: a configuration, as in transformers; or what `get_config` returned, as in Keras.
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
        config: JSONConfig | Mapping[str, Any] | None = None,
        revision: str | None = None,
        dtype: Any = None,
        **kwargs: Any,
    ) -> Self:
        """Loads a checkpoint of any format that `docs/checkpoints.md` lists; it fits exactly, or nothing is returned.

        A tower also loads from a whole model's checkpoint: its part is taken.

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
        path = hub.resolve(name_or_path, revision)
        checkpoint = read_checkpoint(path, None if config is None else _as_dict(config))
        return cls._from_checkpoint(checkpoint, dtype=dtype, **kwargs)

    @classmethod
    def _from_checkpoint(cls, checkpoint: Checkpoint, *, dtype: Any = None, **kwargs: Any) -> Self:
        """Makes the model of a checkpoint that is open already; see `from_pretrained`.

        Args:
            checkpoint: the checkpoint.
            dtype: Keras dtype or dtype policy of the model; None takes Keras's global policy.
            **kwargs: arguments of the model.
        """
        arguments = {**cls._arguments_from(checkpoint), **kwargs}
        if dtype is not None:
            arguments["dtype"] = dtype
        with weights_come_from_files():
            model = cls(**arguments)
        variables = model._variables_in(checkpoint, kwargs)
        assign.load_weights(
            variables,
            model._sources_of(variables),
            checkpoint.tensors,
            source=str(checkpoint.path),
            partial=cls._is_part_of(checkpoint),
        )
        return model

    @classmethod
    def _is_part_of(cls, checkpoint: Checkpoint) -> bool:
        return bool(cls._weights_root) and _whole_config(checkpoint) is not None

    @classmethod
    def _arguments_from(cls, checkpoint: Checkpoint) -> dict[str, Any]:
        """Returns the arguments that make this model as a checkpoint describes it."""
        arguments: dict[str, Any] = {
            "config": cls.config_class.from_checkpoint_dict(checkpoint.config, str(checkpoint.path))
        }
        whole = _whole_config(checkpoint) if cls._weights_root and cls._projection_name else None
        if whole is not None:
            # In a whole model's checkpoint the shared space has the top-level width, whatever the tower's part says.
            arguments["projection_dim"] = whole.from_dict(checkpoint.config).projection_dim
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
        if self._projection_name:
            config = type(config).from_dict({**config.to_dict(), "projection_dim": self.projection_dim})  # type: ignore[attr-defined]
        variables = self._variables_by_path()
        save.save_hugging_face(variables, self._sources_of(variables), config.to_dict(), folder, dtype, max_shard_size)

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
        """Returns every weight under its path inside a whole model, whatever this model is called or part of."""
        return variables_below(self, self._weights_root)

    def _sources_of(self, variables: Iterable[str]) -> dict[str, SourceTensor]:
        """Returns where the value of each path is found in Hugging Face's files."""
        names = tensor_names_of(self)
        return {path: names(path) for path in variables}


def write_openclip(
    model: PretrainedModel,
    folder: str | Path,
    *,
    preprocessing: Mapping[str, Any] | None = None,
    dtype: str = "float32",
) -> None:
    """Writes a whole model as OpenCLIP's files.

    Args:
        model: the model.
        folder: where to; made when missing.
        preprocessing: the parsed `preprocessor_config.json`; None writes the family's usual mean and deviation.
        dtype: how weights are stored; see `PretrainedModel.save_pretrained`.

    Raises:
        ValueError: OpenCLIP has no such model, or no field for a value of its configuration.
    """
    family = family_of(model)
    if family.write_openclip is None or model._weights_root:
        raise ValueError(
            f"`model` must be a whole model of a family that OpenCLIP has. Received: {type(model).__name__} of "
            f"{family.name}. Save it with save_pretrained."
        )
    variables = model._variables_by_path()
    config = model.config.to_dict()  # type: ignore[attr-defined]
    family.write_openclip(variables, model._sources_of(variables), config, preprocessing, folder, dtype)


def tensor_names_of(tower: Any) -> TensorNames:
    """Returns the table of names of a tower's family, by its configuration."""
    return family_of(tower).tensor_names or TensorNames()


def _whole_config(checkpoint: Checkpoint) -> type[TwoTowerConfig] | None:
    """Returns the configuration's class of a whole model's checkpoint, None for a tower's."""
    try:
        return family_of(checkpoint.config).config if "text_config" in checkpoint.config else None
    except ValueError:  # another kind of model, which the configuration's own check will name
        return None


def variables_below(tower: Any, root: str) -> dict[str, Any]:
    """Returns a tower's weights without its adapters', their paths starting with `root` in place of the tower's own."""
    return {
        root + variable.path.removeprefix(tower.path): variable
        for variable in tower.weights
        if not is_of_adapter(variable)
    }


def _as_dict(config: JSONConfig | Mapping[str, Any]) -> Mapping[str, Any]:
    return config if isinstance(config, Mapping) else config.to_dict()
