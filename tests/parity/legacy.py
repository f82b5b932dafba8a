"""Runs what came before and beside: transformers 4's TensorFlow and Flax CLIP, and KerasHub's; see reference.py."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from serving import serve

GENERATOR = np.random.default_rng(0)


def moved(array: Any) -> np.ndarray:
    """Returns weights with a little added: fresh norms and biases would hide a swapped or forgotten one."""
    array = np.asarray(array)
    return (array + 0.02 * GENERATOR.normal(size=array.shape)).astype(array.dtype)


def inputs_of(inputs: str) -> dict[str, np.ndarray]:
    with np.load(inputs) as file:
        tensors = dict(file)
    tensors["pixel_values"] = tensors["pixel_values"].transpose(0, 3, 1, 2)  # channels first
    return tensors


def results_of(output: Any) -> dict[str, np.ndarray]:
    results = {name: output[name] for name in ("text_embeds", "image_embeds", "logits_per_image", "logits_per_text")}
    for side in ("text", "vision"):
        for name in ("last_hidden_state", "pooler_output"):
            results[f"{side}.{name}"] = output[f"{side}_model_output"][name]
    return {name: np.asarray(value) for name, value in results.items()}


def make_tensorflow(target: str, form: str, config: str, inputs: str, outputs: str) -> None:
    """Saves TFCLIPModel as h5, as several h5 files, or as safetensors, and what it returns."""
    from transformers import CLIPConfig, TFCLIPModel

    model = TFCLIPModel(CLIPConfig(**json.loads(Path(config).read_text())))
    model.build()
    model.set_weights([moved(weight) for weight in model.get_weights()])
    limit = {"max_shard_size": "20KB" if model.count_params() < 10**6 else "200MB"} if form == "shards" else {}
    model.save_pretrained(target, safe_serialization=form == "safetensors", **limit)
    np.savez(outputs, **results_of(model(**inputs_of(inputs))))


def make_flax(target: str, form: str, config: str, inputs: str, outputs: str) -> None:
    """Saves FlaxCLIPModel as msgpack, whole or in several files, and what it returns."""
    import jax
    from transformers import CLIPConfig, FlaxCLIPModel

    wanted = CLIPConfig(**json.loads(Path(config).read_text()))
    size = wanted.vision_config.image_size
    model = FlaxCLIPModel(wanted, input_shape=((1, 1), (1, size, size, 3)))
    model.params = jax.tree_util.tree_map(moved, model.params)
    count = sum(leaf.size for leaf in jax.tree_util.tree_leaves(model.params))
    limit = {"max_shard_size": "20KB" if count < 10**6 else "200MB"} if form == "shards" else {}
    model.save_pretrained(target, **limit)
    np.savez(outputs, **results_of(model(**inputs_of(inputs))))


def make_keras_hub(target: str, config: str, inputs: str, outputs: str) -> None:
    """Saves a preset of CLIPBackbone, and what it returns."""
    import keras

    sys.path.append(str(Path(__file__).resolve().parents[1]))
    from helpers.keras_hub_backbone import backbone

    model = backbone(json.loads(Path(config).read_text()))
    for variable in model.weights:
        if variable.path.endswith("position_ids"):
            variable.assign(np.arange(variable.shape[1])[None])  # fresh ones are zero
        elif variable.path.endswith("logit_scale"):
            variable.assign(np.log(100.0))
        else:
            variable.assign(moved(variable.numpy()))
    model.save_to_preset(target)
    with np.load(inputs) as file:
        tensors = dict(file)
    text_features = model.get_text_embeddings(keras.ops.convert_to_tensor(tensors["input_ids"]))
    image_features = model.get_vision_embeddings(keras.ops.convert_to_tensor(tensors["pixel_values"]))
    logits = model({"images": tensors["pixel_values"], "token_ids": tensors["input_ids"]})["text_logits"]
    results = {"text_features": text_features, "image_features": image_features, "logits_per_text": logits}
    np.savez(outputs, **{name: keras.ops.convert_to_numpy(value) for name, value in results.items()})


if __name__ == "__main__":
    serve(make_tensorflow, make_flax, make_keras_hub)
