"""`CLIPForImageClassification`: CLIP's image tower with a linear classifier on top."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import keras
from keras import ops

from tf_clip.adapters.model import AdaptableModel
from tf_clip.checkpoints.source import Checkpoint
from tf_clip.families.config import TwoTowerConfig
from tf_clip.families.family import class_at, family_of
from tf_clip.losses import classification_loss
from tf_clip.models.outputs import CLIPOutput
from tf_clip.models.pretrained import PretrainedModel, variables_below
from tf_clip.models.transformer_tower import Tower

if TYPE_CHECKING:
    from typing_extensions import Self


class ImageClassificationModel(AdaptableModel, PretrainedModel, keras.Model):
    """Tells classes of images apart by the mean of the patches' last states.

    Fed by `CLIPFeatureExtractorTF`. `compile(optimizer)` and `fit(images, labels)` train it with the loss
    of `config.problem_type`; `predict` returns logits. `image_encoder.trainable = False` trains the
    classifier alone.

    Args:
        config: a `CLIPConfig`, a dictionary of its fields, or None for the defaults; its text tower is not used.
        num_labels: number of classes, named `LABEL_0` and so on; None takes `config.id2label`. 0 leaves the
            classifier away, and the logits are the mean states.
        attn_implementation, gradient_checkpointing: see `CLIPVisionModel`.

    Call arguments:
        pixel_values: float32 `[batch, height, width, 3]`, channels last, normalized.
        labels: adds the `loss`; `[batch]` of class numbers, or float `[batch, num_labels]` (several
            classes may be right) or `[batch]` (regression), by `config.problem_type`.
        output_attentions, output_hidden_states, interpolate_pos_encoding, adapter_ids: see `CLIPVisionModel`.
        training: whether attention dropout is on.

    Returns:
        A `CLIPOutput` with `logits` `[batch, num_labels]`, and `loss`, `hidden_states` and `attentions`
        where asked for.

    Raises:
        ValueError: the image tower is a ResNet, or labels and problem type do not go together.

    Example:
        >>> tower = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1, "image_size": 32}
        >>> model = CLIPForImageClassification({"vision_config": tower}, num_labels=3)
        >>> model(keras.ops.zeros((2, 32, 32, 3))).logits.shape
        (2, 3)

    Source: transformers' CLIPForImageClassification.
    """

    config: Any
    built: bool
    config_class: ClassVar[type[TwoTowerConfig]] = TwoTowerConfig
    _weights_root = ""

    def __init__(
        self,
        config: TwoTowerConfig | dict[str, Any] | None = None,
        num_labels: int | None = None,
        *,
        attn_implementation: str = "eager",
        gradient_checkpointing: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.config = self._as_config(config)
        if num_labels is not None and num_labels != self.config.num_labels:
            labels = {number: f"LABEL_{number}" for number in range(num_labels)}
            self.config = type(self.config).from_dict({**self.config.to_dict(), "id2label": labels})
        tower = _tower_without_projection(self.config.vision_config)
        if not issubclass(tower, Tower):
            raise ValueError(
                "`config` must be of a vision transformer, since the classifier reads patches. "
                f"Received: vision_config={self.config.vision_config!r}. For a ResNet, put a Dense on its embeddings."
            )
        self.image_encoder = tower(
            self.config.vision_config,
            attn_implementation=attn_implementation,
            gradient_checkpointing=gradient_checkpointing,
            dtype=self.dtype_policy,
            name="image_encoder",
        )
        # The mean of the patches goes around it: it is kept for the files that have it.
        self.image_encoder.post_layernorm.trainable = False
        self.classifier = None
        if self.config.num_labels:
            stddev = self.config.initializer_factor * self.config.vision_config.hidden_size**-0.5
            self.classifier = keras.layers.Dense(
                self.config.num_labels,
                kernel_initializer=keras.initializers.RandomNormal(stddev=stddev),
                dtype=self.dtype_policy,
                name="classifier",
            )
        self.adapters.hold([self.image_encoder], heads=[] if self.classifier is None else [self.classifier])
        self.build()

    def build(self, input_shape: Any = None) -> None:
        """Makes the classifier's variables; the tower has built itself."""
        if self.built:
            return
        if self.classifier is not None:
            self.classifier.build((None, self.config.vision_config.hidden_size))
        self.built = True

    def call(
        self,
        pixel_values: Any,
        labels: Any = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        interpolate_pos_encoding: bool = False,
        adapter_ids: Any = None,
        training: bool | None = None,
    ) -> CLIPOutput:
        """Classifies; see the class."""
        states = self.image_encoder(
            pixel_values,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            interpolate_pos_encoding=interpolate_pos_encoding,
            adapter_ids=adapter_ids,
            training=training,
        )
        logits = ops.mean(states.last_hidden_state[:, 1:], axis=1)
        logits = logits if self.classifier is None else self.classifier(logits)
        output = CLIPOutput()
        if labels is not None:
            output["loss"] = ops.mean(classification_loss(labels, logits, self.config.problem_type))
        output["logits"] = logits
        output.update({name: states[name] for name in ("hidden_states", "attentions") if name in states})
        return output

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Returns the loss of the problem type, or the one given to `compile`, plus any regularisation.

        Raises:
            ValueError: there are no labels.
        """
        if y is None:
            raise ValueError("`y` must hold the labels. Received: None. Call fit(images, labels).")
        if getattr(self, "loss", None) is not None:
            return super().compute_loss(x, y, y_pred["logits"], sample_weight, training)
        losses = classification_loss(y, y_pred["logits"], self.config.problem_type)
        if sample_weight is not None:
            losses = losses * ops.reshape(ops.cast(sample_weight, losses.dtype), (-1,))
        return ops.mean(losses) + sum(self.losses)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """Updates the metrics given to `compile`; they are shown the logits."""
        return super().compute_metrics(x, y, y_pred["logits"], sample_weight)  # type: ignore[no-any-return]

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of `__init__`."""
        return {
            **super().get_config(),
            "config": self.config.to_dict(),
            "attn_implementation": self.image_encoder.attn_implementation,
            "gradient_checkpointing": self.image_encoder.gradient_checkpointing,
        }

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, *, num_labels: int | None = None, **kwargs: Any) -> Self:
        """Loads a trained classifier, or the image tower of a CLIP checkpoint under a new one.

        Args:
            name_or_path: see `CLIPModel.from_pretrained`.
            num_labels: number of classes of a new classifier, whose weights are random; needed for
                checkpoints that have none, and only allowed for these.
            **kwargs: see `CLIPModel.from_pretrained`.

        Raises:
            ValueError: `num_labels` is given for a checkpoint that has a classifier of its own.
            CheckpointError: the checkpoint does not fit; among others, it has no classifier and
                `num_labels` is not given.
        """
        if num_labels is not None:
            kwargs["num_labels"] = num_labels
        return super().from_pretrained(name_or_path, **kwargs)

    @classmethod
    def _is_part_of(cls, checkpoint: Checkpoint) -> bool:
        return "logit_scale" in checkpoint.tensors

    def _variables_in(self, checkpoint: Checkpoint, arguments: Mapping[str, Any]) -> dict[str, Any]:
        variables = self._variables_by_path()
        if "num_labels" not in arguments:
            return variables
        if any(name.startswith("classifier.") for name in checkpoint.tensors):
            raise ValueError(
                f"`num_labels` must not be given, since {checkpoint.path} has a trained classifier. "
                f"Received: num_labels={arguments['num_labels']}. Leave it out, or load a CLIP checkpoint."
            )
        return {path: variable for path, variable in variables.items() if not path.startswith("classifier/")}

    def _variables_by_path(self) -> dict[str, Any]:
        variables = variables_below(self.image_encoder, "image_encoder")
        if self.classifier is not None:
            variables.update(variables_below(self.classifier, "classifier"))
        return variables


def _tower_without_projection(config: Any) -> Any:
    """Returns the class of a tower that was saved without a projection."""
    class_of = family_of(config).class_of
    return object if class_of is None else class_at(class_of(config.model_type, ()))
