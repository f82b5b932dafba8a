"""`CLIPModel`: both towers and the similarity between what they return."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NoReturn

import keras
from keras import ops

from tf_clip.configuration import CLIPConfig
from tf_clip.losses import contrastive_loss
from tf_clip.models.image_encoder import CLIPImageEncoder
from tf_clip.models.outputs import CLIPOutput
from tf_clip.models.pretrained import PretrainedModel
from tf_clip.models.text_encoder import CLIPTextEncoder

MAX_LOGIT_SCALE = math.log(100.0)


@keras.saving.register_keras_serializable(package="tf_clip")
class LogitScaleRange(keras.constraints.Constraint):
    """Keeps the learned temperature in [0, ln 100] after each optimizer step, as open_clip does."""

    def __call__(self, w: Any) -> Any:
        """Returns the value, clipped."""
        return ops.clip(w, 0.0, MAX_LOGIT_SCALE)


@keras.saving.register_keras_serializable(package="tf_clip")
class CLIPModel(PretrainedModel, keras.Model):
    """Compares images and texts in one vector space.

    Fed by `CLIPProcessor`. `fit` trains it on a dataset of dictionaries `{"input_ids",
    "attention_mask", "pixel_values"}` with no labels: row i of a batch is a pair. `predict` is
    refused, since similarities have no batch axis; encode with `get_image_features` and
    `get_text_features` instead.

    Args:
        config: a `CLIPConfig`, a dictionary of its fields, or None for the defaults.

    Call arguments:
        input_ids: int32 `[num_texts, length]`; or a dictionary of the call arguments.
        pixel_values: float32 `[num_images, height, width, 3]`, channels last, normalised.
        attention_mask: `[num_texts, length]`, 1 keeps a token; None keeps all.
        return_loss: adds the contrastive `loss`; needs as many images as texts.
        training: whether attention dropout is on.

    Returns:
        A `CLIPOutput` with `logits_per_image` `[num_images, num_texts]`, `logits_per_text`, its
        transpose, `text_embeds` and `image_embeds`, `[batch, projection_dim]` of unit length,
        `text_model_output` and `vision_model_output` with each tower's `last_hidden_state` and
        `pooler_output`, and `loss` when asked for.

    Raises:
        ValueError: one of `input_ids` and `pixel_values` is missing, or a shape does not fit.

    Source: Radford et al. 2021; transformers' CLIPModel. The temperature is clamped in training as
    in the paper, which transformers does not do.
    """

    config_class = CLIPConfig
    weights_root = ""

    def __init__(self, config: CLIPConfig | dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(config, CLIPConfig):
            config = CLIPConfig.from_dict(config or {})
        self.config = config
        self.text_encoder = CLIPTextEncoder(
            config.text_config, config.projection_dim, dtype=self.dtype_policy, name="text_encoder"
        )
        self.image_encoder = CLIPImageEncoder(
            config.vision_config, config.projection_dim, dtype=self.dtype_policy, name="image_encoder"
        )
        self.accuracy = keras.metrics.Mean(name="accuracy")
        self.build()

    def build(self, input_shape: Any = None) -> None:
        """Makes the temperature; the towers have built themselves."""
        if self.built:
            return
        self.logit_scale = self.add_weight(
            shape=(),
            dtype="float32",  # exp() of a half-precision value would be off by whole units
            initializer=keras.initializers.Constant(self.config.logit_scale_init_value),
            constraint=LogitScaleRange(),
            name="logit_scale",
        )
        self.built = True

    def __call__(
        self,
        input_ids: Any = None,
        pixel_values: Any = None,
        attention_mask: Any = None,
        return_loss: bool = False,
        training: bool | None = None,
    ) -> CLIPOutput:
        """Compares; see the class."""
        if isinstance(input_ids, Mapping):
            inputs = dict(input_ids)
        else:
            inputs = {"input_ids": input_ids, "pixel_values": pixel_values, "attention_mask": attention_mask}
        inputs = {name: value for name, value in inputs.items() if value is not None}
        return super().__call__(inputs, return_loss=return_loss, training=training)

    def call(self, inputs: Mapping[str, Any], return_loss: bool = False, training: bool | None = None) -> CLIPOutput:
        """Compares what a dictionary of inputs holds; see the class."""
        _require_inputs(inputs)
        texts = self.text_encoder(inputs["input_ids"], attention_mask=inputs.get("attention_mask"), training=training)
        images = self.image_encoder(inputs["pixel_values"], training=training)
        text_embeds = unit_length(texts.pop("text_embeds"))
        image_embeds = unit_length(images.pop("image_embeds"))
        scale = ops.cast(ops.exp(ops.convert_to_tensor(self.logit_scale)), text_embeds.dtype)
        logits_per_text = ops.matmul(text_embeds, ops.transpose(image_embeds)) * scale
        output = CLIPOutput(loss=contrastive_loss(logits_per_text)) if return_loss else CLIPOutput()
        output.update(
            logits_per_image=ops.transpose(logits_per_text),
            logits_per_text=logits_per_text,
            text_embeds=text_embeds,
            image_embeds=image_embeds,
            text_model_output=texts,
            vision_model_output=images,
        )
        return output

    def get_text_features(self, input_ids: Any, attention_mask: Any = None) -> Any:
        """Encodes texts alone.

        Args:
            input_ids: int32 `[batch, length]`.
            attention_mask: `[batch, length]`, 1 keeps a token; None keeps all.

        Returns:
            float `[batch, projection_dim]`, **not** of unit length, as in transformers 4.
        """
        return self.text_encoder(input_ids, attention_mask=attention_mask).text_embeds

    def get_image_features(self, pixel_values: Any) -> Any:
        """Encodes images alone.

        Args:
            pixel_values: float32 `[batch, height, width, 3]`, channels last, normalised.

        Returns:
            float `[batch, projection_dim]`, **not** of unit length, as in transformers 4.
        """
        return self.image_encoder(pixel_values).image_embeds

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Returns the contrastive loss of a batch of pairs, plus any regularisation.

        Raises:
            ValueError: labels, sample weights or `compile(loss=...)` are given; the pairing itself is the label.
        """
        if getattr(self, "loss", None) is not None:
            raise ValueError(
                f"`loss` must be None, since CLIPModel trains with its contrastive loss. Received: loss={self.loss!r}. "
                "Call compile(optimizer) alone; for another loss, subclass CLIPModel and override compute_loss."
            )
        if y is not None or sample_weight is not None:
            raise ValueError(
                "`y` and `sample_weight` must be None: row i of the texts belongs to row i of the images. "
                "Received one of them. Call fit(x) with a dataset of input dictionaries alone."
            )
        return contrastive_loss(y_pred["logits_per_text"]) + sum(self.losses)

    def compute_metrics(self, x: Any, y: Any, y_pred: Any, sample_weight: Any = None) -> dict[str, Any]:
        """Updates `accuracy`, the share of images whose own text scores highest in the batch."""
        logits = y_pred["logits_per_image"]
        own = ops.arange(ops.shape(logits)[0], dtype="int32")
        hits = ops.cast(ops.argmax(logits, axis=-1), "int32") == own
        self.accuracy.update_state(ops.cast(hits, "float32"))
        return self.get_metrics_result()

    def predict(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refuses: similarities of every text with every image cannot be cut into batches of rows.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(
            "CLIPModel.predict would cut texts and images into batches and compare only within each. "
            "Call get_image_features and get_text_features (or image_encoder.predict and text_encoder.predict) "
            "and compare the embeddings, or call the model itself on one batch."
        )

    predict_on_batch = predict

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of `__init__`."""
        return {**super().get_config(), "config": self.config.to_dict()}


def unit_length(embeds: Any) -> Any:
    """Divides each row by its Euclidean length, with no epsilon, as the reference does."""
    return embeds / ops.sqrt(ops.sum(ops.square(embeds), axis=-1, keepdims=True))


def _require_inputs(inputs: Mapping[str, Any]) -> None:
    for name, other in (("input_ids", "get_image_features"), ("pixel_values", "get_text_features")):
        if name not in inputs:
            raise ValueError(
                f"`{name}` must be given: CLIPModel compares texts with images. Received: {sorted(inputs)}. "
                f"Use {other} to encode the other half alone."
            )
    unknown = set(inputs) - {"input_ids", "pixel_values", "attention_mask"}
    if unknown:
        raise ValueError(
            "`inputs` must hold only input_ids, pixel_values and attention_mask. "
            f"Received also: {sorted(unknown)}. Remove them."
        )
