"""The sides of the other libraries that run on TensorFlow, as graphs."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from library import Call, EncodersApart


class Graphs(EncodersApart):
    """A library whose encoders are traced by `tf.function`, once for each shape."""

    text_length: ClassVar[int | None] = 77
    padding: ClassVar[int | None] = 0

    @classmethod
    def warm_up(cls, mode: str) -> None:
        """Starts TensorFlow."""
        import tensorflow as tf

        tf.linalg.matmul(tf.ones((2, 2)), tf.ones((2, 2))).numpy()

    def trace(self, encode_image: Any, encode_text: Any, scale: float) -> None:
        """Takes the encoders."""
        import tensorflow as tf

        self._encode_image = tf.function(encode_image, autograph=False)
        self._encode_text = tf.function(encode_text, autograph=False)
        self._scale = scale

    def pixels(self, count: int) -> Any:
        """Returns images as the encoder takes them."""
        import tensorflow as tf

        return tf.constant(self.inputs.pixels(count))

    def tokens(self, count: int) -> list[Any]:
        """Returns ids and mask as the encoder takes them."""
        import tensorflow as tf

        return [tf.constant(value) for value in self.inputs.tokens(count, self.text_length, self.padding).values()]

    def image(self, images: int, texts: int) -> Call:
        """Encodes images."""
        pixels = self.pixels(images)
        return lambda: self._encode_image(pixels).numpy()

    def text(self, images: int, texts: int) -> Call:
        """Encodes captions."""
        tokens = self.tokens(texts)
        return lambda: self._encode_text(*tokens).numpy()


class TFCLIPModel(Graphs):
    """transformers 4.57's TensorFlow model, the last there is; pads to the longest."""

    imports: ClassVar[tuple[str, ...]] = ("tensorflow", "transformers")
    text_length = None
    padding = None

    @classmethod
    def prepare_imports(cls) -> None:
        """Takes transformers 4 from a folder of its own, beside the newest."""
        sys.path.insert(0, str(Path(sys.prefix) / "transformers-4"))

    @classmethod
    def warm_up(cls, mode: str) -> None:
        """Imports the model's own modules, too."""
        super().warm_up(mode)
        importlib.import_module("transformers").TFCLIPModel  # noqa: B018

    def load(self) -> None:
        """Makes the model and loads the weights: its `from_pretrained` expects an older safetensors."""
        from safetensors.numpy import load_file
        from transformers import CLIPConfig, TFCLIPModel
        from transformers.modeling_tf_pytorch_utils import load_pytorch_state_dict_in_tf2_model

        folder = self.inputs.folder / "weights"
        model = TFCLIPModel(CLIPConfig.from_pretrained(folder))
        load_pytorch_state_dict_in_tf2_model(model, load_file(folder / "model.safetensors"))
        self.trace(
            lambda pixels: model.get_image_features(pixels),
            lambda ids, mask: model.get_text_features(ids, attention_mask=mask),
            float(np.exp(model.clip.logit_scale.numpy()).item()),
        )

    def pixels(self, count: int) -> Any:
        """Returns images, channels first."""
        import tensorflow as tf

        return tf.constant(self.inputs.pixels(count, channels_first=True))


class KerasHub(Graphs):
    """KerasHub, whose preprocessor pads to 77."""

    imports: ClassVar[tuple[str, ...]] = ("keras_hub",)

    def load(self) -> None:
        """Makes the model and gives it the weights; KerasHub reads no CLIP checkpoint of Hugging Face's layout."""
        from safetensors import safe_open

        sys.path.append(str(Path(__file__).resolve().parents[2] / "tests"))
        from helpers.keras_hub_backbone import backbone

        folder = self.inputs.folder / "weights"
        model = backbone(json.loads((folder / "config.json").read_text()))
        sides = {"vision_model": model.vision_encoder, "text_model": model.text_encoder}
        with safe_open(folder / "model.safetensors", "numpy") as file:
            for side, encoder in sides.items():
                last_norm = {"vision_model": "post_layernorm", "text_model": "final_layer_norm"}[side]
                _assign_encoder(encoder, lambda name, side=side: file.get_tensor(f"{side}.{name}"), last_norm)
            model.vision_projection.kernel.assign(file.get_tensor("visual_projection.weight").T)
            model.text_projection.kernel.assign(file.get_tensor("text_projection.weight").T)
            scale = float(np.exp(file.get_tensor("logit_scale")))
        self.trace(model.get_vision_embeddings, lambda ids, mask: model.get_text_embeddings(ids), scale)


class ZeroModels(Graphs):
    """ZeroModels, whose text model has one length."""

    imports: ClassVar[tuple[str, ...]] = ("zeromodels",)
    padding = None

    @classmethod
    def prepare_imports(cls) -> None:
        """Takes it from a folder of its own."""
        sys.path.insert(0, str(Path(sys.prefix) / "zeromodels"))

    def load(self) -> None:
        """Makes the model from the configuration, and lets it read the weights."""
        import keras
        from safetensors.numpy import load_file
        from zeromodels.models.clip import CLIPModel

        folder = self.inputs.folder / "weights"
        weights = load_file(folder / "model.safetensors")
        model = CLIPModel(**CLIPModel.config_from_hf(json.loads((folder / "config.json").read_text())))
        CLIPModel.transfer_from_hf(model, weights)
        inputs = {tensor.name: tensor for tensor in model.inputs}
        images = keras.Model(inputs["images"], model.output["image_embeddings"])
        tokens = {name: inputs[name] for name in ("token_ids", "padding_mask")}
        texts = keras.Model(tokens, model.output["text_embeddings"])
        self.trace(
            images,
            lambda ids, mask: texts({"token_ids": ids, "padding_mask": mask}),
            float(np.exp(weights["logit_scale"])),
        )


def _assign_encoder(encoder: Any, read: Callable[[str], np.ndarray], last_norm: str) -> None:
    """Gives a tower of KerasHub weights by Hugging Face's names, `read` from a file."""
    norms = {"pre_layer_norm": "pre_layrnorm", "layer_norm": last_norm}
    for variable in encoder.weights:
        layer, *inside, kind = variable.path.split("/")
        kind = {"gamma": "weight", "beta": "bias", "kernel": "weight"}.get(kind, kind)
        if kind == "position_ids":
            variable.assign(np.arange(variable.shape[1])[None])  # fresh ones are zero
            continue
        if kind == "class_embedding":
            name = "embeddings.class_embedding"
        elif layer == "embedding":
            name = f"embeddings.{inside[0]}.weight"
        elif layer in norms:
            name = f"{norms[layer]}.{kind}"
        else:
            name = f"encoder.layers.{layer.removeprefix('encoder_block_')}.{_IN_BLOCK[inside[-1]]}.{kind}"
        value = read(name)
        if value.ndim == 4:
            value = value.transpose(2, 3, 1, 0)
        elif variable.path.endswith("kernel"):
            value = value.T
        variable.assign(value.reshape(variable.shape))


_IN_BLOCK = {
    **{name: f"self_attn.{name[0]}_proj" for name in ("query", "key", "value")},
    **{"attention_output": "self_attn.out_proj", "dense_1": "mlp.fc1", "dense_2": "mlp.fc2"},
    **{"layer_norm_1": "layer_norm1", "layer_norm_2": "layer_norm2"},
}
