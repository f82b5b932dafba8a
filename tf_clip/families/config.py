"""What configurations share: the fields of Hugging Face's `config.json`, read, checked and written.

A configuration is immutable and valid once it exists: every rule that the layers rely on is checked here, so that the
layers themselves can trust what they are given.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from tf_clip.errors import require
from tf_clip.families.family import families

if TYPE_CHECKING:
    from typing_extensions import Self

HIDDEN_ACTIVATIONS = ("quick_gelu", "gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu")
"""Names that `hidden_act` may take; `tf_clip.layers.transformer` holds the functions."""

PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")
"""What `CLIPForImageClassification` can be trained for."""


def require_positive_int(config: object, *names: str) -> None:
    """Checks that fields of a configuration are positive integers."""
    for name in names:
        value = getattr(config, name)
        require(
            isinstance(value, int) and not isinstance(value, bool) and value > 0,
            name,
            "a positive integer",
            value,
            "Check the checkpoint's config.json.",
        )


def require_transformer(config: Any) -> None:
    """Checks the rules that every transformer tower shares."""
    require_positive_int(
        config,
        "hidden_size",
        "intermediate_size",
        "projection_dim",
        "num_hidden_layers",
        "num_attention_heads",
    )
    require(
        config.hidden_size % config.num_attention_heads == 0,
        "hidden_size",
        f"a multiple of `num_attention_heads` ({config.num_attention_heads})",
        config.hidden_size,
        "Change one of the two.",
    )
    require(
        config.hidden_act in HIDDEN_ACTIVATIONS,
        "hidden_act",
        f"one of {', '.join(HIDDEN_ACTIVATIONS)}",
        config.hidden_act,
        "A checkpoint trained with another activation would give wrong features here.",
    )
    require(
        0.0 <= config.attention_dropout < 1.0,
        "attention_dropout",
        "in [0, 1)",
        config.attention_dropout,
        "Use 0.0 for no dropout.",
    )
    require(
        config.layer_norm_eps > 0.0,
        "layer_norm_eps",
        "above zero",
        config.layer_norm_eps,
        "CLIP checkpoints use 1e-5.",
    )


_OTHER_MODELS = {
    "siglip": "SigLIP, whose towers are built otherwise",
    "siglip2": "SigLIP 2, whose towers are built otherwise",
    "siglip_text_model": "the text tower of SigLIP, which is built otherwise",
    "siglip_vision_model": "the image tower of SigLIP, which is built otherwise",
    "chinese_clip": "Chinese-CLIP, whose text tower is a BERT",
    "clipseg": "CLIPSeg, which has a decoder behind CLIP",
    "align": "ALIGN, whose towers are an EfficientNet and a BERT",
    "altclip": "AltCLIP, whose text tower is an XLM-RoBERTa",
    "blip": "BLIP, which is not CLIP",
    "blip-2": "BLIP-2, which is not CLIP",
    "vision-text-dual-encoder": "a pair of other encoders",
}


def _require_kind(cls: type[JSONConfig], values: Mapping[str, Any], source: str) -> None:
    """Checks that a `config.json` is of the kind of model that a class describes."""
    model_type = str(values.get("model_type", cls.model_type))
    described = _OTHER_MODELS.get(model_type, "another kind of model")
    known = {kind: family for family in families() for kind in family.model_types}
    if model_type in known:
        family, config = known[model_type], known[model_type].model_types[model_type]
        described = f"what {config.__name__} describes"
        if config is family.image_config and cls.part == config.part:
            tower = (family.image_tower or "").rpartition(":")[2]
            described = f"the other kind of image tower: load it with {tower}, or the whole model it is part of"
    require(
        model_type == cls.model_type,
        "model_type",
        f"{cls.model_type!r} for {cls.__name__}",
        model_type,
        f"{source} describes {described}.",
    )


class JSONConfig:
    """Reading and writing shared by all configurations."""

    model_type: ClassVar[str]
    # What the configuration is called inside that of a whole model; None for a whole one.
    part: ClassVar[str | None] = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Builds a configuration from a parsed `config.json`.

        Keys that do not describe CLIP's architecture (`transformers_version`, `torch_dtype` and the
        dozens of text-generation fields that old files carry) are left out, as transformers does.

        Args:
            values: the parsed JSON object.

        Returns:
            The configuration.

        Raises:
            ValueError: a value breaks a rule, for example an unknown `hidden_act`.
        """
        known = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
        return cls(**{key: value for key, value in values.items() if key in known})

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as a JSON-ready dictionary, with `model_type`."""
        fields = dataclasses.asdict(self)  # type: ignore[call-overload]
        fields = {name: list(value) if isinstance(value, tuple) else value for name, value in fields.items()}
        return {"model_type": self.model_type, **fields}

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> Self:
        """Reads `config.json` from a local folder.

        A full CLIP configuration is accepted where a tower's is asked for: its part is taken.

        Raises:
            FileNotFoundError: the folder has no `config.json`.
            ValueError: the file is not JSON, or describes another kind of model.
        """
        path = Path(folder) / "config.json"
        if not path.is_file():
            raise FileNotFoundError(
                f"`folder` must hold a config.json. Received: folder={str(folder)!r}. "
                "Pass the folder of a checkpoint in Hugging Face layout."
            )
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path} must be valid JSON. Received: {error}. Download the file again.") from error
        return cls.from_checkpoint_dict(values, str(path))

    @classmethod
    def from_checkpoint_dict(cls, values: Mapping[str, Any], source: str) -> Self:
        """Builds a configuration from a checkpoint's `config.json`, which may be of a larger model.

        Args:
            values: the parsed JSON object.
            source: where it was found, for messages.

        Raises:
            ValueError: it describes another kind of model, or a value breaks a rule.
        """
        _require_kind(cls, values, source)
        return cls.from_dict(values)

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes `config.json` into a folder, which is made when missing."""
        path = Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        (path / "config.json").write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")


class TowerConfig(JSONConfig):
    """A configuration that may also be found inside a whole model's `config.json`."""

    part: ClassVar[str]

    @classmethod
    def from_checkpoint_dict(cls, values: Mapping[str, Any], source: str) -> Self:
        """Builds a configuration from a `config.json`; of a whole model's, its part is taken."""
        kinds = {kind: config for family in families() for kind, config in family.model_types.items()}
        whole = kinds.get(str(values.get("model_type")))
        if whole is not None and issubclass(whole, TwoTowerConfig):
            values = whole.tower_dict(values, cls.part)
        return super().from_checkpoint_dict(values, source)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TwoTowerConfig(JSONConfig):
    """Describes a whole model: two towers and the space they share. A family's own class adds its defaults.

    Args:
        text_config: a text tower's configuration, a dictionary of its fields, or None for the defaults.
        vision_config: an image tower's, likewise. The towers may be of other families: a dictionary says by its
            `model_type` of which.
        projection_dim: width of the joint space. It alone counts in the model; the towers' own
            `projection_dim` may differ in old files.
        logit_scale_init_value: initial logarithm of the factor on the cosine similarities.
        initializer_factor: factor on the projections' initial standard deviation.
        logit_bias_init_value: initial value of a bias on the logits, or None for none.
        id2label: from class number to name, for image classification; None stands for two unnamed classes, as in
            transformers.
        problem_type: `"regression"`, `"single_label_classification"` or
            `"multi_label_classification"`; None lets the number of classes and the labels' dtype tell.

    Raises:
        ValueError: a value breaks a rule; the message names the field.

    Source: the fields of transformers 5.
    """

    # The towers that are meant where nothing says which.
    text_config_class: ClassVar[type[TowerConfig]]
    vision_config_class: ClassVar[type[TowerConfig]]

    text_config: Any = None
    vision_config: Any = None
    projection_dim: int = 512
    logit_scale_init_value: float = 2.6592
    initializer_factor: float = 1.0
    logit_bias_init_value: float | None = None
    id2label: Mapping[int, str] | None = None
    problem_type: str | None = None

    def __post_init__(self) -> None:
        # Frozen dataclasses are set through object.__setattr__, here only to make configurations of dictionaries.
        for part, default in self._parts().items():
            object.__setattr__(self, part, _as_tower(getattr(self, part), part, default))
        require_positive_int(self, "projection_dim")
        require(
            self.problem_type in (None, *PROBLEM_TYPES),
            "problem_type",
            f"None or one of {', '.join(PROBLEM_TYPES)}",
            self.problem_type,
            "None lets the labels tell.",
        )
        if self.id2label is not None:
            labels = {int(number): str(label) for number, label in self.id2label.items()}  # JSON's keys are strings
            require(
                sorted(labels) == list(range(len(labels))),
                "id2label",
                "numbered from 0 without gaps",
                labels,
                "Number the classes as the rows of the classifier's weights.",
            )
            object.__setattr__(self, "id2label", dict(sorted(labels.items())))

    @property
    def num_labels(self) -> int:
        """Number of classes that an image classifier tells apart."""
        return 2 if self.id2label is None else len(self.id2label)

    @classmethod
    def from_text_vision_configs(cls, text_config: TowerConfig, vision_config: TowerConfig, **kwargs: Any) -> Self:
        """Builds a configuration from its two towers, as in transformers 4.

        Args:
            text_config: the text tower's.
            vision_config: the image tower's.
            **kwargs: the other fields, such as `projection_dim`.

        Example:
            >>> text, vision = CLIPTextConfig(), CLIPVisionConfig()
            >>> CLIPConfig.from_text_vision_configs(text, vision, projection_dim=64).projection_dim
            64
        """
        return cls(text_config=text_config, vision_config=vision_config, **kwargs)

    @classmethod
    def _parts(cls) -> dict[str, type[TowerConfig]]:
        return {"text_config": cls.text_config_class, "vision_config": cls.vision_config_class}

    @classmethod
    def tower_dict(cls, values: Mapping[str, Any], part: str) -> dict[str, Any]:
        """Returns one tower's fields from a whole model's `config.json`, old spellings included.

        Old Hub files carry `text_config_dict` beside `text_config`. transformers fills the former with
        defaults and lets all of it win; the same is done here.

        Args:
            values: the parsed file.
            part: `"text_config"` or `"vision_config"`.

        Raises:
            TypeError: the part is no dictionary.
        """
        found = values.get(part) or {}
        if isinstance(found, JSONConfig):
            found = found.to_dict()
        if not isinstance(found, Mapping):
            raise TypeError(
                f"`{part}` must be a dictionary of a tower's fields. Received: {part}={found!r}. "
                "Check the checkpoint's config.json."
            )
        merged = dict(found)
        override = values.get(f"{part}_dict")
        if override is not None:
            merged.update(cls._parts()[part].from_dict(override).to_dict())
        return merged

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Builds a configuration from a parsed `config.json`; see `JSONConfig.from_dict`."""
        return super().from_dict({**values, **{part: cls.tower_dict(values, part) for part in cls._parts()}})

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as a JSON-ready dictionary, with `model_type` in each part."""
        towers = {"text_config": self.text_config.to_dict(), "vision_config": self.vision_config.to_dict()}
        fields = {**super().to_dict(), **towers}
        if self.id2label is not None:
            fields["id2label"] = {str(number): label for number, label in self.id2label.items()}
            fields["label2id"] = {label: number for number, label in self.id2label.items()}
        # What most models do not have is not written, so that their files are transformers' own.
        optional = ("logit_bias_init_value", "id2label", "problem_type")
        return {name: value for name, value in fields.items() if name not in optional or value is not None}


def _as_tower(value: Any, part: str, default: type[TowerConfig]) -> TowerConfig:
    """Returns a tower's configuration; a dictionary says by its `model_type` which, where it is not the default."""
    if value is None:
        return default()
    if isinstance(value, Mapping):
        kind = value.get("model_type", default.model_type)
        others = {kind: cls for family in families() for kind, cls in family.model_types.items()}
        found = others.get(kind, default)
        return (found if found.part == part else default).from_dict(value)
    if getattr(value, "part", None) != part:
        raise TypeError(
            f"`{part}` must be a {default.__name__}, another tower's configuration or a dictionary of its fields. "
            f"Received: {part}={value!r}. Build one with {default.__name__}(...)."
        )
    return value  # type: ignore[no-any-return]
