"""`CLIPModel`: both towers and the similarity between what they return."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, NoReturn

import keras
from keras import ops

from tf_clip.adapters.model import AdaptableModel
from tf_clip.families.config import TwoTowerConfig
from tf_clip.families.family import class_at, family_of
from tf_clip.families.tensor_names import SourceTensor
from tf_clip.losses import ContrastiveLoss, contrastive_loss
from tf_clip.models.outputs import CLIPOutput
from tf_clip.models.pair_training import PairTraining
from tf_clip.models.pretrained import PretrainedModel, tensor_names_of, variables_below
from tf_clip.unit_length import unit_length

MAX_LOGIT_SCALE = math.log(100.0)


@keras.saving.register_keras_serializable(package="tf_clip")
class LogitScaleRange(keras.constraints.Constraint):
    """Keeps the learned temperature in [0, ln 100] after each optimizer step, as open_clip does."""

    def __call__(self, w: Any) -> Any:
        """Returns the value, clipped."""
        return ops.clip(w, 0.0, MAX_LOGIT_SCALE)


class TwoTowerModel(PairTraining, AdaptableModel, PretrainedModel, keras.Model):
    """Compares images and texts in one vector space.

    Fed by `CLIPProcessor`. `fit` trains it on a dataset of dictionaries `{"input_ids",
    "attention_mask", "pixel_values"}` with no labels: row i of a batch is a pair, and rows with equal
    numbers in `"pair_ids"`, if there are any, belong together. `predict` is
    refused, since similarities have no batch axis; encode with `get_image_features` and
    `get_text_features` instead.

    Args:
        config: a `CLIPConfig`, a dictionary of its fields, or None for the defaults.
        attn_implementation: how the transformer towers compute attention: `"eager"`, `"sdpa"` (Keras's
            fused operation) or `"flash"` (JAX and PyTorch, on a GPU). All give the same result.
        gradient_checkpointing: whether training computes each transformer block a second time instead
            of keeping what is inside it: less memory, more time.

    Call arguments:
        input_ids: int32 `[num_texts, length]`; or a dictionary of the arguments that are tensors.
        pixel_values: float32 `[num_images, height, width, 3]`, channels last, normalized.
        attention_mask: `[num_texts, length]`, 1 keeps a token; None keeps all.
        position_ids: int32 `[length]` or `[1 or num_texts, length]`; None counts from 0.
        return_loss: adds the contrastive `loss`; needs as many images as texts.
        output_attentions: adds `attentions` to each tower's output; needs `attn_implementation="eager"`.
        output_hidden_states: adds `hidden_states` to each tower's output.
        interpolate_pos_encoding: reads images of any size, the positions stretched to theirs.
        text_adapter_ids, image_adapter_ids: int32, the number of each text's and each image's adapter while
            `Switch` is active, -1 for none.
        training: whether attention dropout is on, and a ResNet's norms use the batch's statistics.

    Returns:
        A `CLIPOutput` with `logits_per_image` `[num_images, num_texts]`, `logits_per_text`, its
        transpose, `text_embeds` and `image_embeds`, `[batch, projection_dim]` of unit length,
        `text_model_output` and `vision_model_output` with each tower's `last_hidden_state`,
        `pooler_output` and what was asked for, and `loss` when asked for.

    Raises:
        ValueError: one of `input_ids` and `pixel_values` is missing, a shape does not fit, or a ResNet
            is asked for attentions or for other image sizes.

    Source: Radford et al. 2021; transformers' CLIPModel. The temperature is clamped in training as
    in the paper, which transformers does not do.
    """

    config_class: ClassVar[type[TwoTowerConfig]] = TwoTowerConfig
    weights_root = ""

    def __init__(
        self,
        config: TwoTowerConfig | dict[str, Any] | None = None,
        *,
        attn_implementation: str = "eager",
        gradient_checkpointing: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.config = config = self.as_config(config)
        self.attn_implementation = attn_implementation
        self.gradient_checkpointing = gradient_checkpointing
        options = {"attn_implementation": attn_implementation, "gradient_checkpointing": gradient_checkpointing}
        text, image = config.text_config, config.vision_config
        self.text_encoder = self._tower(family_of(text).text_tower, text, "text_encoder", options)
        self.image_encoder = self._tower(family_of(image).image_tower, image, "image_encoder", options)
        self.adapters.hold((self.text_encoder, self.image_encoder))
        self.accuracy = keras.metrics.Mean(name="accuracy")
        self.pair_loss = ContrastiveLoss()
        self.encode_chunk_size = None
        self.build()

    def _tower(self, path: str | None, config: Any, name: str, options: Mapping[str, Any]) -> Any:
        """Makes a tower of its family's class, with those of the options that it has."""
        if path is None:
            raise ValueError(
                f"`config` must name towers that there are. Received: {config!r} for {name}, which its family lacks. "
                "Choose another family's."
            )
        cls = class_at(path)
        known = {option: value for option, value in options.items() if option in cls.init_options}
        return cls(config, projection_dim=self.config.projection_dim, dtype=self.dtype_policy, name=name, **known)

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
        self.logit_bias = None
        if self.config.logit_bias_init_value is not None:
            self.logit_bias = self.add_weight(
                shape=(),
                dtype="float32",
                initializer=keras.initializers.Constant(self.config.logit_bias_init_value),
                name="logit_bias",
            )
        self.built = True

    def __call__(
        self,
        input_ids: Any = None,
        pixel_values: Any = None,
        attention_mask: Any = None,
        position_ids: Any = None,
        return_loss: bool = False,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        interpolate_pos_encoding: bool = False,
        text_adapter_ids: Any = None,
        image_adapter_ids: Any = None,
        training: bool | None = None,
    ) -> CLIPOutput:
        """Compares; see the class."""
        if isinstance(input_ids, Mapping):
            inputs = dict(input_ids)
        else:
            inputs = {
                "input_ids": input_ids,
                "pixel_values": pixel_values,
                "attention_mask": attention_mask,
                "position_ids": position_ids,
                "text_adapter_ids": text_adapter_ids,
                "image_adapter_ids": image_adapter_ids,
            }
        inputs = {name: value for name, value in inputs.items() if value is not None}
        if self._is_in_step:
            # Past Keras's own __call__, as on JAX: it would show the weights in the compute dtype, and their gradients
            # would be added up in that.
            return self.call(inputs, training=training)
        return super().__call__(
            inputs,
            return_loss=return_loss,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            interpolate_pos_encoding=interpolate_pos_encoding,
            training=training,
        )

    def call(
        self,
        inputs: Mapping[str, Any],
        return_loss: bool = False,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
        interpolate_pos_encoding: bool = False,
        training: bool | None = None,
    ) -> CLIPOutput:
        """Compares what a dictionary of inputs holds; see the class."""
        _require_inputs(inputs)
        if self._is_in_step:
            return self._embed_pairs(inputs, training)
        inside = {"output_attentions": output_attentions, "output_hidden_states": output_hidden_states}
        texts = self.text_encoder(
            inputs["input_ids"],
            attention_mask=inputs.get("attention_mask"),
            position_ids=inputs.get("position_ids"),
            adapter_ids=inputs.get("text_adapter_ids"),
            training=training,
            **inside,
        )
        images = self.image_encoder(
            inputs["pixel_values"],
            training=training,
            **self._image_options(interpolate_pos_encoding=interpolate_pos_encoding, **inside),
            **self._image_adapters(inputs.get("image_adapter_ids")),
        )
        text_embeds = unit_length(texts.pop("text_embeds"))
        image_embeds = unit_length(images.pop("image_embeds"))
        logits_per_text = self._logits(text_embeds, image_embeds)
        output = CLIPOutput()
        if return_loss:
            self._require_one_copy()
            output["loss"] = contrastive_loss(logits_per_text, pair_ids=inputs.get("pair_ids"))
        output.update(
            logits_per_image=ops.transpose(logits_per_text),
            logits_per_text=logits_per_text,
            text_embeds=text_embeds,
            image_embeds=image_embeds,
            text_model_output=texts,
            vision_model_output=images,
        )
        return output

    def _logits(self, text_embeds: Any, image_embeds: Any) -> Any:
        scale = ops.cast(ops.exp(ops.convert_to_tensor(self.logit_scale)), text_embeds.dtype)
        logits = ops.matmul(text_embeds, ops.transpose(image_embeds)) * scale
        if self.logit_bias is not None:
            logits = logits + ops.cast(ops.convert_to_tensor(self.logit_bias), logits.dtype)
        return logits

    def _image_options(self, **options: bool) -> dict[str, bool]:
        """Returns the options that the image tower has; it is asked for no more than it can do."""
        tower = self.image_encoder
        for name in [name for name in options if name not in tower.call_options]:
            if options.pop(name):
                raise ValueError(
                    f"`{name}` must be False: the image tower, a {type(tower).__name__}, does not have it. "
                    f"Received: {name}=True. Call text_encoder for what the text tower has."
                )
        return options

    def _image_adapters(self, adapter_ids: Any) -> dict[str, Any]:
        """Returns the image tower's option for `Switch`, where it is given."""
        if adapter_ids is not None and "adapter_ids" not in self.image_encoder.call_options:
            raise ValueError(
                f"`image_adapter_ids` must be None: the image tower, a {type(self.image_encoder).__name__}, has no "
                "adapters. Received: image_adapter_ids. Leave it out."
            )
        return {} if adapter_ids is None else {"adapter_ids": adapter_ids}

    def get_text_features(
        self, input_ids: Any, attention_mask: Any = None, position_ids: Any = None, adapter_ids: Any = None
    ) -> Any:
        """Encodes texts alone.

        Args:
            input_ids: int32 `[batch, length]`.
            attention_mask: `[batch, length]`, 1 keeps a token; None keeps all.
            position_ids: int32 `[length]` or `[1 or batch, length]`; None counts from 0.
            adapter_ids: int32 `[batch]`, the number of each row's adapter while `Switch` is active, -1 for none.

        Returns:
            float `[batch, projection_dim]`, **not** of unit length, as in transformers 4.
        """
        return self.text_encoder(
            input_ids, attention_mask=attention_mask, position_ids=position_ids, adapter_ids=adapter_ids
        ).text_embeds

    def get_image_features(
        self, pixel_values: Any, interpolate_pos_encoding: bool = False, adapter_ids: Any = None
    ) -> Any:
        """Encodes images alone.

        Args:
            pixel_values: float32 `[batch, height, width, 3]`, channels last, normalized.
            interpolate_pos_encoding: reads images of any size, the positions stretched to theirs.
            adapter_ids: int32 `[batch]`, the number of each row's adapter while `Switch` is active, -1 for none.

        Returns:
            float `[batch, projection_dim]`, **not** of unit length, as in transformers 4.
        """
        options: dict[str, Any] = {
            **self._image_options(interpolate_pos_encoding=interpolate_pos_encoding, output_attentions=False),
            **self._image_adapters(adapter_ids),
        }
        return self.image_encoder(pixel_values, **options).image_embeds

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
        return {
            **super().get_config(),
            "config": self.config.to_dict(),
            "attn_implementation": self.attn_implementation,
            "gradient_checkpointing": self.gradient_checkpointing,
        }

    def _variables_by_path(self) -> dict[str, Any]:
        own = {variable.name: variable for variable in (self.logit_scale, self.logit_bias) if variable is not None}
        towers = (self.text_encoder, self.image_encoder)
        return {**own, **variables_below(towers[0], "text_encoder"), **variables_below(towers[1], "image_encoder")}

    def _sources_of(self, variables: Iterable[str]) -> dict[str, SourceTensor]:
        names = {
            "text_encoder": tensor_names_of(self.text_encoder),
            "image_encoder": tensor_names_of(self.image_encoder),
        }
        return {path: names.get(path.partition("/")[0], tensor_names_of(self))(path) for path in variables}


def _require_inputs(inputs: Mapping[str, Any]) -> None:
    for name, other in (("input_ids", "get_image_features"), ("pixel_values", "get_text_features")):
        if name not in inputs:
            raise ValueError(
                f"`{name}` must be given: CLIPModel compares texts with images. Received: {sorted(inputs)}. "
                f"Use {other} to encode the other half alone."
            )
    known = {"input_ids", "pixel_values", "attention_mask", "position_ids", "pair_ids"}
    unknown = set(inputs) - known - {"text_adapter_ids", "image_adapter_ids"}
    if unknown:
        raise ValueError(
            "`inputs` must hold only input_ids, pixel_values, attention_mask, position_ids, pair_ids and the adapters' "
            "text_adapter_ids and image_adapter_ids. "
            f"Received also: {sorted(unknown)}. Remove them."
        )
