"""Runs tf_clip on one backend of Keras, in a process of its own, by commands like those of reference.py."""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops
from serving import serve

import tf_clip
from tf_clip.models.pretrained import write_openclip
from tf_clip.training.optimizers import AdamW


@functools.lru_cache(maxsize=1)
def load(kind: str, path: str, arguments: str = "{}") -> Any:
    return getattr(tf_clip, kind).from_pretrained(path, **json.loads(arguments))


def flat(output: Any, prefix: str = "") -> dict[str, Any]:
    """Returns every tensor of an output, a tower's behind its name and tuples by their numbers."""
    results = {}
    for name, value in output.items():
        if isinstance(value, dict):
            results.update(flat(value, name.removesuffix("_model_output") + "."))
        elif isinstance(value, tuple):
            results.update({f"{prefix}{name}.{index}": part for index, part in enumerate(value)})
        else:
            results[prefix + name] = value
    return results


def run(kind: str, path: str, inputs: str, outputs: str, options: str = "{}", arguments: str = "{}") -> None:
    """Loads a checkpoint and saves what it returns."""
    model, chosen = load(kind, path, arguments), json.loads(options)
    with np.load(inputs) as file:
        tensors = dict(file)
    if kind == "CLIPModel":
        pairs = len(tensors["input_ids"]) == len(tensors["pixel_values"])
        results = flat(model(**tensors, **chosen, return_loss=pairs))
        pixels = tensors.pop("pixel_values")
        stretch = chosen.get("interpolate_pos_encoding", False)
        results["text_features"] = model.get_text_features(**tensors)
        results["image_features"] = model.get_image_features(pixels, interpolate_pos_encoding=stretch)
    else:
        results = flat(model(**tensors, **chosen))
    np.savez(outputs, **{name: ops.convert_to_numpy(value) for name, value in results.items()})


def make(kind: str, config: str, folder: str, dtype: str = "float32") -> None:
    """Saves a random model, every weight of it moved."""
    keras.utils.set_random_seed(0)
    model = getattr(tf_clip, kind)(json.loads(Path(config).read_text()))
    generator = np.random.default_rng(0)
    for variable in model.weights:
        if variable.path.endswith("logit_scale"):
            variable.assign(np.log(100.0))
        elif "seed_generator" not in variable.path:
            moved = 0.02 * generator.normal(size=variable.shape)
            variable.assign(variable.numpy() + moved.astype("float32"))
    model.save_pretrained(folder, dtype=dtype)


def again(kind: str, path: str, folder: str) -> None:
    """Loads a checkpoint of any format and saves it in Hugging Face's."""
    load(kind, path).save_pretrained(folder)


def as_openclip(path: str, folder: str) -> None:
    """Loads a checkpoint of any format and saves it in OpenCLIP's."""
    model = load("CLIPModel", path)
    write_openclip(model, folder)


def gradients(folder: str, inputs: str, outputs: str) -> None:
    """Saves the loss of a batch of pairs, and its gradients under Hugging Face's names and in its layout."""
    model = load("CLIPModel", folder)
    with np.load(inputs) as file:
        tensors = dict(file)
    variables = {variable.path: path for path, variable in model._variables_by_path().items()}
    loss, found = GRADIENTS[keras.backend.backend()](model, tensors)
    sources = model._sources_of(variables.values())
    arrays = {}
    for variable, gradient in zip(model.trainable_variables, found, strict=True):
        source = sources[variables[variable.path]]
        arrays[source.name] = source.to_file_layout(ops.convert_to_numpy(gradient))
    np.savez(outputs, loss=ops.convert_to_numpy(loss), **arrays)


def train_one_step(folder: str, inputs: str, outputs: str, learning_rate: str, chunk_size: str) -> None:
    """Lets `fit` make one step of plain gradient descent; saves the loss and the weights after it."""
    model = tf_clip.CLIPModel.from_pretrained(folder)
    with np.load(inputs) as file:
        tensors = dict(file)
    model.compile(keras.optimizers.SGD(float(learning_rate)), encode_chunk_size=json.loads(chunk_size))
    history = model.fit(tensors, batch_size=len(tensors["input_ids"]), shuffle=False, verbose=0).history
    arrays = {}
    found = model._variables_by_path()
    sources = model._sources_of(found)
    for path, variable in found.items():
        source = sources[path]
        arrays[source.name] = source.to_file_layout(ops.convert_to_numpy(variable))
    np.savez(outputs, loss=history["loss"][0], **arrays)


def update(outputs: str, inputs: str, options: str) -> None:
    """Lets AdamW walk along given gradients from given weights; saves where it is after each step."""
    chosen = json.loads(options)
    beta_1, beta_2 = chosen["betas"]
    optimizer = AdamW(
        chosen["lr"], weight_decay=chosen["weight_decay"], beta_1=beta_1, beta_2=beta_2, epsilon=chosen["eps"]
    )
    with np.load(inputs) as file:
        weights, gradients = keras.Variable(file["weights"]), file["gradients"]
    path = []
    for gradient in gradients:
        optimizer.apply([ops.convert_to_tensor(gradient)], [weights])
        path.append(ops.convert_to_numpy(weights).copy())
    np.savez(outputs, path=np.stack(path))


def losses(inputs: str, outputs: str, chunk_size: str) -> None:
    """Saves the losses of features, and their gradients by these and by scale and bias."""
    sys.path.append(str(Path(__file__).resolve().parents[1]))
    from helpers.gradients import value_and_gradients

    with np.load(inputs) as file:
        values = {name: file[name] for name in file}
    names = ("image_embeds", "text_embeds", "scale", "bias")
    arrays: dict[str, Any] = {}
    for kind in (tf_clip.ContrastiveLoss, tf_clip.SigmoidLoss):
        loss = kind(chunk_size=json.loads(chunk_size))
        found, slopes = value_and_gradients(
            lambda images, texts, scale, bias, loss=loss: loss(texts, images, scale, bias),
            *(values[name] for name in names),
        )
        arrays[kind.__name__] = found
        arrays |= {f"{kind.__name__} {name}": slope for name, slope in zip(names, slopes, strict=True)}
    smoothed = tf_clip.ContrastiveLoss(0.1, json.loads(chunk_size))
    found = smoothed(values["text_embeds"], values["image_embeds"], values["scale"], pair_ids=values["pair_ids"])
    np.savez(outputs, smoothed=ops.convert_to_numpy(found), **arrays)


def _on_tensorflow(model: Any, tensors: dict[str, Any]) -> Any:
    import tensorflow as tf

    with tf.GradientTape() as tape:
        loss = model(**tensors, return_loss=True).loss
    found = tape.gradient(loss, [variable.value for variable in model.trainable_variables])
    return loss, [tf.convert_to_tensor(gradient) for gradient in found]


def _on_jax(model: Any, tensors: dict[str, Any]) -> Any:
    import jax

    fixed = [variable.value for variable in model.non_trainable_variables]

    def loss_of(values: Any) -> Any:
        output, _ = model.stateless_call(values, fixed, tensors, return_loss=True)
        return output["loss"]

    return jax.value_and_grad(loss_of)([variable.value for variable in model.trainable_variables])


def _on_torch(model: Any, tensors: dict[str, Any]) -> Any:
    for variable in model.trainable_variables:
        variable.value.grad = None
    loss = model(**tensors, return_loss=True).loss
    loss.backward()
    return loss, [variable.value.grad for variable in model.trainable_variables]


GRADIENTS = {"tensorflow": _on_tensorflow, "jax": _on_jax, "torch": _on_torch}


if __name__ == "__main__":
    allowed = {"torch"} if keras.backend.backend() == "torch" else set()
    serve(run, make, again, as_openclip, gradients, train_one_step, update, losses)
    # No format may have needed its own library.
    assert not ({"torch", "transformers", "flax", "open_clip", "keras_hub"} - allowed) & set(sys.modules)
