"""The three CLIP configurations, with the fields and defaults of Hugging Face's `config.json`.

A configuration is immutable and valid once it exists: every rule that the layers rely on is
checked here, so that the layers themselves can trust what they are given.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from typing_extensions import Self

HIDDEN_ACTIVATIONS = ("quick_gelu", "gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "silu")
"""Names that `hidden_act` may take; `tf_clip.layers.activations` holds the functions."""

PROBLEM_TYPES = ("regression", "single_label_classification", "multi_label_classification")
"""What `CLIPForImageClassification` can be trained for."""


def _require(condition: bool, argument: str, rule: str, received: object, advice: str) -> None:
    if not condition:
        raise ValueError(f"`{argument}` must be {rule}. Received: {argument}={received!r}. {advice}")


def _require_positive_int(config: object, *names: str) -> None:
    for name in names:
        value = getattr(config, name)
        _require(
            isinstance(value, int) and not isinstance(value, bool) and value > 0,
            name,
            "a positive integer",
            value,
            "Check the checkpoint's config.json.",
        )


def _require_tower(config: CLIPTextConfig | CLIPVisionConfig) -> None:
    """Checks the rules that both towers share."""
    _require_positive_int(
        config,
        "hidden_size",
        "intermediate_size",
        "projection_dim",
        "num_hidden_layers",
        "num_attention_heads",
    )
    _require(
        config.hidden_size % config.num_attention_heads == 0,
        "hidden_size",
        f"a multiple of `num_attention_heads` ({config.num_attention_heads})",
        config.hidden_size,
        "Change one of the two.",
    )
    _require(
        config.hidden_act in HIDDEN_ACTIVATIONS,
        "hidden_act",
        f"one of {', '.join(HIDDEN_ACTIVATIONS)}",
        config.hidden_act,
        "A checkpoint trained with another activation would give wrong features here.",
    )
    _require(
        0.0 <= config.attention_dropout < 1.0,
        "attention_dropout",
        "in [0, 1)",
        config.attention_dropout,
        "Use 0.0 for no dropout.",
    )
    _require(
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


def _require_kind(cls: type[_JSONConfig], values: Mapping[str, Any], source: str) -> None:
    """Checks that a `config.json` is of the kind of model that a class describes."""
    model_type = values.get("model_type", cls.model_type)
    described = _OTHER_MODELS.get(str(model_type), "another kind of model")
    if model_type in (CLIPResNetConfig.model_type, CLIPVisionConfig.model_type):
        described = "the other kind of image tower: load it with CLIPModel, CLIPImageEncoder (a transformer) or "
        described += "CLIPResNetImageEncoder (a ResNet)"
    _require(
        model_type == cls.model_type,
        "model_type",
        f"{cls.model_type!r} for {cls.__name__}",
        model_type,
        f"{source} describes {described}.",
    )


class _JSONConfig:
    """Reading and writing shared by the three configurations."""

    model_type: ClassVar[str]

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


class _TowerJSONConfig(_JSONConfig):
    """A configuration that may also be found inside a full CLIP `config.json`."""

    part: ClassVar[str]

    @classmethod
    def from_checkpoint_dict(cls, values: Mapping[str, Any], source: str) -> Self:
        """Builds a configuration from a `config.json`; of a full CLIP model's, its part is taken."""
        if values.get("model_type") == CLIPConfig.model_type:
            values = merged_tower_dict(values, cls.part)
        return super().from_checkpoint_dict(values, source)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CLIPTextConfig(_TowerJSONConfig):
    """Describes CLIP's text tower.

    Args:
        vocab_size: number of token ids.
        hidden_size: width of the residual stream.
        intermediate_size: width of the MLP's hidden layer.
        projection_dim: width of the joint space, used where the tower stands alone; inside a
            `CLIPConfig` the top-level value counts, as in transformers.
        num_hidden_layers: number of transformer blocks.
        num_attention_heads: number of heads; must divide `hidden_size`.
        max_position_embeddings: longest accepted text, in tokens.
        hidden_act: one of `HIDDEN_ACTIVATIONS`.
        layer_norm_eps: epsilon of every layer norm.
        attention_dropout: share of attention weights dropped in training.
        initializer_range: standard deviation of the vision embeddings' initial values.
        initializer_factor: factor on every initial standard deviation.
        pad_token_id, bos_token_id, eos_token_id: special ids. The text is pooled at the first
            `eos_token_id`, or at the highest id when `eos_token_id` is 2 (old checkpoints).

    Raises:
        ValueError: a value breaks a rule; the message names the field.

    Source: the defaults of transformers 5.
    """

    model_type: ClassVar[str] = "clip_text_model"
    part: ClassVar[str] = "text_config"

    vocab_size: int = 49408
    hidden_size: int = 512
    intermediate_size: int = 2048
    projection_dim: int = 512
    num_hidden_layers: int = 12
    num_attention_heads: int = 8
    max_position_embeddings: int = 77
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    attention_dropout: float = 0.0
    initializer_range: float = 0.02
    initializer_factor: float = 1.0
    pad_token_id: int | None = 1
    bos_token_id: int | None = 49406
    eos_token_id: int = 49407

    def __post_init__(self) -> None:
        _require_tower(self)
        _require_positive_int(self, "vocab_size", "max_position_embeddings")
        _require(
            isinstance(self.eos_token_id, int),
            "eos_token_id",
            "one integer",
            self.eos_token_id,
            "Pooling needs to know the one token that ends a text.",
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class CLIPVisionConfig(_TowerJSONConfig):
    """Describes CLIP's image tower, a vision transformer.

    Args:
        hidden_size: width of the residual stream.
        intermediate_size: width of the MLP's hidden layer.
        projection_dim: width of the joint space, used where the tower stands alone.
        num_hidden_layers: number of transformer blocks.
        num_attention_heads: number of heads; must divide `hidden_size`.
        num_channels: channels of an image.
        image_size: height and width of an image, in pixels.
        patch_size: height and width of a patch, in pixels.
        hidden_act: one of `HIDDEN_ACTIVATIONS`.
        layer_norm_eps: epsilon of every layer norm.
        attention_dropout: share of attention weights dropped in training.
        initializer_range: standard deviation of the patch and position embeddings' initial values.
        initializer_factor: factor on every initial standard deviation.

    Raises:
        ValueError: a value breaks a rule; the message names the field.

    Source: the defaults of transformers 5.
    """

    model_type: ClassVar[str] = "clip_vision_model"
    part: ClassVar[str] = "vision_config"

    hidden_size: int = 768
    intermediate_size: int = 3072
    projection_dim: int = 512
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    num_channels: int = 3
    image_size: int = 224
    patch_size: int = 32
    hidden_act: str = "quick_gelu"
    layer_norm_eps: float = 1e-5
    attention_dropout: float = 0.0
    initializer_range: float = 0.02
    initializer_factor: float = 1.0

    def __post_init__(self) -> None:
        _require_tower(self)
        _require_positive_int(self, "num_channels", "image_size", "patch_size")
        _require(
            self.patch_size <= self.image_size,
            "patch_size",
            f"at most `image_size` ({self.image_size})",
            self.patch_size,
            "An image must hold at least one patch.",
        )

    @property
    def num_patches(self) -> int:
        """Number of patches an image is cut into."""
        return (self.image_size // self.patch_size) ** 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class CLIPResNetConfig(_TowerJSONConfig):
    """Describes CLIP's other image tower, a ResNet that pools by attention (RN50 to RN50x64).

    Hugging Face has no such tower and thus no name for its fields; they are called as in its ResNet.

    Args:
        depths: number of bottleneck blocks in each of the four stages.
        embedding_size: width behind the stem; stage i is `4 * embedding_size * 2**i` wide.
        num_attention_heads: heads of the pooling attention; must divide its width, `32 * embedding_size`.
        projection_dim: width of the joint space, used where the tower stands alone.
        num_channels: channels of an image.
        image_size: height and width of an image, in pixels; a multiple of 32.

    Raises:
        ValueError: a value breaks a rule; the message names the field.

    Source: Radford et al. 2021, section 2.4 and table 20; OpenAI's ModifiedResNet.
    """

    model_type: ClassVar[str] = "clip_resnet_model"
    part: ClassVar[str] = "vision_config"

    depths: tuple[int, int, int, int] = (3, 4, 6, 3)
    embedding_size: int = 64
    num_attention_heads: int = 32
    projection_dim: int = 1024
    num_channels: int = 3
    image_size: int = 224

    def __post_init__(self) -> None:
        object.__setattr__(self, "depths", tuple(self.depths))  # JSON has lists
        _require_positive_int(
            self, "embedding_size", "num_attention_heads", "projection_dim", "num_channels", "image_size"
        )
        _require(
            len(self.depths) == 4 and all(isinstance(depth, int) and depth > 0 for depth in self.depths),
            "depths",
            "four positive integers",
            self.depths,
            "RN50 has (3, 4, 6, 3).",
        )
        _require(
            self.embedding_size % 2 == 0,
            "embedding_size",
            "even",
            self.embedding_size,
            "The stem starts at half of it.",
        )
        _require(
            self.hidden_size % self.num_attention_heads == 0,
            "num_attention_heads",
            f"a divisor of `32 * embedding_size` ({self.hidden_size})",
            self.num_attention_heads,
            "OpenAI's have half of `embedding_size`.",
        )
        _require(
            self.image_size % 32 == 0,
            "image_size",
            "a multiple of 32",
            self.image_size,
            "The stages halve an image five times.",
        )

    @property
    def hidden_size(self) -> int:
        """Width of the last stage."""
        return 32 * self.embedding_size

    @property
    def num_patches(self) -> int:
        """Number of places in the last feature map."""
        return (self.image_size // 32) ** 2


def merged_tower_dict(values: Mapping[str, Any], part: str) -> dict[str, Any]:
    """Returns one tower's fields from a full `config.json`, old spellings included.

    Old Hub files carry `text_config_dict` beside `text_config`. transformers fills the former with
    defaults and lets all of it win; the same is done here.
    """
    tower = CLIPTextConfig if part == CLIPTextConfig.part else CLIPVisionConfig
    found = values.get(part) or {}
    if isinstance(found, _JSONConfig):
        found = found.to_dict()
    if not isinstance(found, Mapping):
        raise TypeError(
            f"`{part}` must be a dictionary of a tower's fields. Received: {part}={found!r}. "
            "Check the checkpoint's config.json."
        )
    merged = dict(found)
    override = values.get(f"{part}_dict")
    if override is not None:
        merged.update(tower.from_dict(override).to_dict())
    return merged


@dataclasses.dataclass(frozen=True, kw_only=True)
class CLIPConfig(_JSONConfig):
    """Describes a whole CLIP model: two towers and the space they share.

    Args:
        text_config: a `CLIPTextConfig`, a dictionary of its fields, or None for the defaults.
        vision_config: a `CLIPVisionConfig` or `CLIPResNetConfig`, a dictionary of its fields (the
            latter's with its `model_type`), or None for the defaults.
        projection_dim: width of the joint space. It alone counts in `CLIPModel`; the towers' own
            `projection_dim` may differ in old files.
        logit_scale_init_value: initial logarithm of the factor on the cosine similarities.
        initializer_factor: factor on the projections' initial standard deviation.
        logit_bias_init_value: initial value of a bias on the logits, or None for none; some OpenCLIP
            checkpoints have one.
        id2label: from class number to name, for `CLIPForImageClassification`; None stands for two
            unnamed classes, as in transformers.
        problem_type: `"regression"`, `"single_label_classification"` or
            `"multi_label_classification"`; None lets the number of classes and the labels' dtype tell.

    Raises:
        ValueError: a value breaks a rule; the message names the field.

    Example:
        >>> CLIPConfig(text_config={"num_hidden_layers": 2}).text_config.num_hidden_layers
        2

    Source: the defaults of transformers 5.
    """

    model_type: ClassVar[str] = "clip"

    text_config: CLIPTextConfig = dataclasses.field(default_factory=CLIPTextConfig)
    vision_config: CLIPVisionConfig | CLIPResNetConfig = dataclasses.field(default_factory=CLIPVisionConfig)
    projection_dim: int = 512
    logit_scale_init_value: float = 2.6592
    initializer_factor: float = 1.0
    logit_bias_init_value: float | None = None
    id2label: Mapping[int, str] | None = None
    problem_type: str | None = None

    def __post_init__(self) -> None:
        # Frozen dataclasses are set through object.__setattr__, here only to normalize the towers.
        object.__setattr__(self, "text_config", _as_tower(self.text_config, CLIPTextConfig))
        object.__setattr__(self, "vision_config", _as_tower(self.vision_config, CLIPVisionConfig, CLIPResNetConfig))
        _require_positive_int(self, "projection_dim")
        _require(
            self.problem_type in (None, *PROBLEM_TYPES),
            "problem_type",
            f"None or one of {', '.join(PROBLEM_TYPES)}",
            self.problem_type,
            "None lets the labels tell.",
        )
        if self.id2label is not None:
            labels = {int(number): str(label) for number, label in self.id2label.items()}  # JSON's keys are strings
            _require(
                sorted(labels) == list(range(len(labels))),
                "id2label",
                "numbered from 0 without gaps",
                labels,
                "Number the classes as the rows of the classifier's weights.",
            )
            object.__setattr__(self, "id2label", dict(sorted(labels.items())))

    @property
    def num_labels(self) -> int:
        """Number of classes that `CLIPForImageClassification` tells apart."""
        return 2 if self.id2label is None else len(self.id2label)

    @classmethod
    def from_text_vision_configs(
        cls, text_config: CLIPTextConfig, vision_config: CLIPVisionConfig | CLIPResNetConfig, **kwargs: Any
    ) -> Self:
        """Builds a configuration from its two towers, as in transformers 4.

        Args:
            text_config: the text tower.
            vision_config: the image tower.
            **kwargs: the other fields of `CLIPConfig`, such as `projection_dim`.

        Example:
            >>> text, vision = CLIPTextConfig(), CLIPVisionConfig()
            >>> CLIPConfig.from_text_vision_configs(text, vision, projection_dim=64).projection_dim
            64
        """
        return cls(text_config=text_config, vision_config=vision_config, **kwargs)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Builds a configuration from a parsed `config.json`; see `_JSONConfig.from_dict`."""
        towers = {part: merged_tower_dict(values, part) for part in ("text_config", "vision_config")}
        return super().from_dict({**values, **towers})

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


def _as_tower(value: Any, *towers: type[Any]) -> Any:
    """Returns a tower's configuration; a dictionary says by its `model_type` which, the first being the default."""
    default = towers[0]
    if value is None:
        return default()
    if isinstance(value, Mapping):
        kind = value.get("model_type")
        return next((tower for tower in towers if tower.model_type == kind), default).from_dict(value)
    if not isinstance(value, towers):
        names = " or ".join(tower.__name__ for tower in towers)
        raise TypeError(
            f"`{default.part}` must be a {names} or a dictionary of its fields. "
            f"Received: {default.part}={value!r}. Build one with {default.__name__}(...)."
        )
    return value
