"""`CLIPModel`: both towers and the similarity between what they return."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

import keras
from keras import ops

from tf_clip.adapters.model import AdaptableModel
from tf_clip.checkpoints.save import MAX_SHARD_SIZE
from tf_clip.families.config import TwoTowerConfig
from tf_clip.families.family import class_at, family_of
from tf_clip.families.tensor_names import SourceTensor
from tf_clip.losses import ContrastiveLoss, PairLoss, SigmoidLoss, contrastive_loss, sigmoid_loss
from tf_clip.models.outputs import CLIPOutput
from tf_clip.models.pair_training import PairTraining
from tf_clip.models.pretrained import PretrainedModel, tensor_names_of, variables_below
from tf_clip.unit_length import unit_length

if TYPE_CHECKING:
    from typing_extensions import Self

_CONFIG_OF_TOWER = {"text_encoder": "text_config", "image_encoder": "vision_config"}
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
        text_encoder, image_encoder: ready towers, in place of those that the configuration would make: Keras layers
            that are built, with a `config` of a registered family, a `projection_dim`, and a `call` that returns
            a dictionary with `text_embeds` or `image_embeds`. They may be of different families. Setting the attribute
            replaces a tower later; call `compile` again afterwards.
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
    _weights_root = ""

    def __init__(
        self,
        config: TwoTowerConfig | dict[str, Any] | None = None,
        text_encoder: keras.layers.Layer | None = None,
        image_encoder: keras.layers.Layer | None = None,
        *,
        attn_implementation: str = "eager",
        gradient_checkpointing: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        given = {"text_encoder": text_encoder, "image_encoder": image_encoder}
        ready = {name: tower for name, tower in given.items() if tower is not None}
        self.config = self._as_config(config) if config is not None or not ready else self._config_of(ready)
        self.attn_implementation = attn_implementation
        self._gradient_checkpointing = gradient_checkpointing
        # Keras goes on watching a dictionary whose values are replaced, and saves the towers as what they are called.
        self._towers: dict[str, Any] = {}
        # The towers that the configuration alone would not make again.
        self._ready: set[str] = set()
        for name in given:
            if name in ready:
                _require_tower(name, ready[name], self.config.projection_dim)
                self._put_tower(name, ready[name])
            else:
                self._towers[name] = self._made_tower(name)
        self.adapters.hold((self.text_encoder, self.image_encoder))
        self.accuracy = keras.metrics.Mean(name="accuracy")
        self._pair_loss = self._usual_loss()
        self._encode_chunk_size = None
        self._make_temperature()
        # Not by calling `build`, after which Keras would not let a tower be replaced.
        self.built = True

    @property
    def text_encoder(self) -> Any:
        """The text tower. It can be replaced by another that projects into the same space."""
        return self._towers["text_encoder"]

    @property
    def image_encoder(self) -> Any:
        """The image tower. It can be replaced by another that projects into the same space."""
        return self._towers["image_encoder"]

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in _CONFIG_OF_TOWER:
            super().__setattr__(name, value)
            return
        # All is checked before Keras sees it: a tower that does not fit must leave no trace.
        _require_tower(name, value, self.config.projection_dim)
        self.adapters.hold(({**self._towers, name: value}).values())
        self._towers.pop(name)  # Keras forgets its weights
        self._put_tower(name, value)
        self.train_function = self.test_function = self.predict_function = None

    def _put_tower(self, name: str, tower: Any) -> None:
        """Takes a ready tower, which was checked."""
        self._towers[name] = tower
        self._ready.add(name)
        self.config = dataclasses.replace(self.config, **{_CONFIG_OF_TOWER[name]: tower.config})

    def _made_tower(self, name: str) -> Any:
        """Makes a tower as the configuration says, of its family's class and with those of the options that it has."""
        config = getattr(self.config, _CONFIG_OF_TOWER[name])
        cls = _tower_class(name, config)
        if cls is None:
            raise ValueError(
                f"`{_CONFIG_OF_TOWER[name]}` must be of a family with such a tower. Received: {config!r} of "
                f"{family_of(config).name}. Choose another family's, or pass a ready {name}."
            )
        options = {
            "attn_implementation": self.attn_implementation,
            "gradient_checkpointing": self._gradient_checkpointing,
        }
        options = {option: value for option, value in options.items() if option in getattr(cls, "init_options", ())}
        return cls(config, projection_dim=self.config.projection_dim, dtype=self.dtype_policy, name=name, **options)

    @classmethod
    def _config_of(cls, ready: Mapping[str, Any]) -> TwoTowerConfig:
        """Returns the configuration of a model with ready towers, whose width is theirs."""
        for name, tower in ready.items():
            _require_tower(name, tower, None)
        parts = {_CONFIG_OF_TOWER[name]: tower.config for name, tower in ready.items()}
        return cls.config_class(**parts, projection_dim=next(iter(ready.values())).projection_dim)

    def _usual_loss(self) -> PairLoss:
        """Returns the loss of the family's scores: of softmaxes over the batch, or of each pair on its own."""
        is_sigmoid = family_of(self).scores == "sigmoid"
        return SigmoidLoss() if is_sigmoid else ContrastiveLoss()

    def build(self, input_shape: Any = None) -> None:
        """Does nothing: the model is built once it exists."""

    def _make_temperature(self) -> None:
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
        return super().__call__(  # type: ignore[no-any-return]
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
        texts = CLIPOutput(self._run_text_tower(inputs, training, **inside))
        images = CLIPOutput(
            self._run_image_tower(inputs, training, interpolate_pos_encoding=interpolate_pos_encoding, **inside)
        )
        text_embeds = unit_length(texts.pop("text_embeds"))
        image_embeds = unit_length(images.pop("image_embeds"))
        logits_per_text = self._logits(text_embeds, image_embeds)
        output = CLIPOutput()
        if return_loss:
            self._require_one_copy()
            loss = sigmoid_loss if family_of(self).scores == "sigmoid" else contrastive_loss
            output["loss"] = loss(logits_per_text, pair_ids=inputs.get("pair_ids"))
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

    def _run_text_tower(self, inputs: Mapping[str, Any], training: bool | None = None, **options: Any) -> Any:
        """Encodes texts; the tower is handed what it has an option for."""
        options = {"position_ids": inputs.get("position_ids"), "adapter_ids": inputs.get("text_adapter_ids"), **options}
        known = _options_for(self.text_encoder, "text", options)
        mask = inputs.get("attention_mask")
        return self.text_encoder(inputs["input_ids"], attention_mask=mask, training=training, **known)

    def _run_image_tower(self, inputs: Mapping[str, Any], training: bool | None = None, **options: Any) -> Any:
        """Encodes images; the tower is handed what it has an option for."""
        options = {"adapter_ids": inputs.get("image_adapter_ids"), **options}
        known = _options_for(self.image_encoder, "image", options)
        return self.image_encoder(inputs["pixel_values"], training=training, **known)

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
        inputs = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "position_ids": position_ids,
            "text_adapter_ids": adapter_ids,
        }
        return self._run_text_tower(inputs)["text_embeds"]

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
        inputs = {"pixel_values": pixel_values, "image_adapter_ids": adapter_ids}
        return self._run_image_tower(inputs, interpolate_pos_encoding=interpolate_pos_encoding)["image_embeds"]

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
            "gradient_checkpointing": self._gradient_checkpointing,
            **{name: keras.saving.serialize_keras_object(self._towers[name]) for name in sorted(self._ready)},
        }

    @classmethod
    def from_config(cls, config: Any, **kwargs: Any) -> Self:
        """Makes a model with fresh weights; see `PretrainedModel.from_config`."""
        if isinstance(config, Mapping):
            towers = {name: config[name] for name in _CONFIG_OF_TOWER if isinstance(config.get(name), Mapping)}
            config = {
                **config,
                **{name: keras.saving.deserialize_keras_object(tower) for name, tower in towers.items()},
            }
        return super().from_config(config, **kwargs)

    def save_pretrained(
        self, folder: str | Path, *, dtype: str = "float32", max_shard_size: int | str = MAX_SHARD_SIZE
    ) -> None:
        """Writes `config.json` and the weights; see `PretrainedModel.save_pretrained`.

        Warns where a tower is of a class of your own: the files hold its weights and not its code.
        """
        for name in sorted(self._ready):
            tower = self._towers[name]
            if type(tower) is not _tower_class(name, tower):
                warnings.warn(
                    f"`{name}` is a {type(tower).__name__}, of which the files in {folder} hold the weights alone. "
                    f"Load them with from_pretrained(folder, {name}={type(tower).__name__}(...)).",
                    stacklevel=2,
                )
        super().save_pretrained(folder, dtype=dtype, max_shard_size=max_shard_size)

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


def _tower_class(name: str, config: Any) -> Any:
    """Returns the class of a family's own tower, or None where it has none on that side."""
    family = family_of(config)
    path = family.text_tower if name == "text_encoder" else family.image_tower
    return None if path is None else class_at(path)


def _require_tower(name: str, tower: Any, projection_dim: int | None) -> None:
    """Checks that a ready tower can be part of a model."""
    config = getattr(tower, "config", None)
    width = getattr(tower, "projection_dim", None)
    for holds, rule, received, advice in (
        (isinstance(tower, keras.layers.Layer), "a Keras layer", type(tower).__name__, "Make it one."),
        (
            getattr(config, "part", None) == _CONFIG_OF_TOWER[name],
            f"a tower whose `config` is a family's `{_CONFIG_OF_TOWER[name]}`",
            f"config={config!r}",
            "Give it the configuration of a registered family.",
        ),
        (getattr(tower, "built", False), "built", "a tower without weights", "Call it once, or build it in __init__."),
        (
            width is not None and projection_dim in (None, width),
            f"of a `projection_dim` of {projection_dim or 'its own'}, the width of the space that both towers share",
            f"projection_dim={width!r}",
            "Make the tower with that projection_dim.",
        ),
    ):
        if not holds:
            raise ValueError(f"`{name}` must be {rule}. Received: {received}. {advice}")


def _options_for(tower: Any, side: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options that a tower has; asking for others is an error."""
    known = getattr(tower, "call_options", ())
    for name, value in options.items():
        if name not in known and value is not None and value is not False:
            argument = f"{side}_{name}" if name == "adapter_ids" else name
            raise ValueError(
                f"`{argument}` must be left out: the {side} tower, a {type(tower).__name__}, does not have it. "
                f"Received: {argument}. Call the other tower alone for what that has."
            )
    return {name: value for name, value in options.items() if name in known}


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
