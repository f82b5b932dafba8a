"""The same numbers as transformers, from its files to ours and back."""

import sys

import numpy as np
import pytest

from tests.parity.conftest import largest, make_inputs, reference, report
from tf_clip import CLIPConfig, CLIPImageEncoder, CLIPModel, CLIPTextEncoder

EMBEDS, LOGITS, STATES = 1e-5, 2e-4, 1e-4


def compare(ours, theirs, label):
    for name in ("image_embeds", "text_embeds"):
        report(f"{label} {name}", largest(ours[name], theirs[name]), EMBEDS)
    for name in ("logits_per_image", "logits_per_text"):
        report(f"{label} {name}", largest(ours[name], theirs[name]), LOGITS)
    for side in ("text", "vision"):
        states = ours[f"{side}_model_output"].last_hidden_state
        report(f"{label} {side} states", largest(states, theirs[f"{side}_last_hidden_state"]), STATES)


@pytest.fixture
def model(checkpoint):
    model = CLIPModel.from_pretrained(checkpoint)
    assert not {"torch", "transformers"} & set(sys.modules), "loading must not need them"
    return model


def outputs(folder, inputs, kind="CLIPModel"):
    np.savez(folder / "inputs.npz", **inputs)
    reference("run", kind, folder, folder / "inputs.npz")
    return dict(np.load(folder / f"{kind}.npz"))


@pytest.mark.parametrize("padding", ["right", "left", "none"])
def test_saved_there_loaded_here(checkpoint, model, padding):
    inputs = make_inputs(model.config)
    if padding == "left":
        shift = inputs["attention_mask"].sum(axis=1)
        for name in ("input_ids", "attention_mask"):
            inputs[name] = np.stack([np.roll(row, -by) for row, by in zip(inputs[name], shift, strict=True)])
        inputs["input_ids"][inputs["attention_mask"] == 0] = 0
    elif padding == "none":
        del inputs["attention_mask"]
    theirs = outputs(checkpoint, inputs)
    compare(model(**inputs), theirs, padding)
    texts = model.get_text_features(inputs["input_ids"], inputs.get("attention_mask"))
    images = model.get_image_features(inputs["pixel_values"])
    report(f"{padding} text features", largest(texts, theirs["text_features"]), STATES)
    report(f"{padding} image features", largest(images, theirs["image_features"]), STATES)


@pytest.mark.parametrize(("dtype", "bound"), [("float32", EMBEDS), ("float16", 2e-3)])
def test_saved_here_loaded_there(checkpoint, tmp_path, dtype, bound):
    model = CLIPModel(CLIPConfig.from_pretrained(checkpoint))
    model.logit_scale.assign(np.log(100.0))
    model.save_pretrained(tmp_path, dtype=dtype)
    inputs = make_inputs(model.config, seed=1)
    theirs = outputs(tmp_path, inputs)
    if dtype == "float32":
        compare(model(**inputs), theirs, "back")
    for name in ("image_embeds", "text_embeds"):
        report(f"back, stored as {dtype}, {name}", largest(model(**inputs)[name], theirs[name]), bound)


@pytest.mark.parametrize(
    ("cls", "kind", "inputs_of"),
    [
        (CLIPTextEncoder, "CLIPTextModelWithProjection", ("input_ids", "attention_mask")),
        (CLIPImageEncoder, "CLIPVisionModelWithProjection", ("pixel_values",)),
    ],
)
def test_a_tower_alone(checkpoint, tmp_path, cls, kind, inputs_of):
    tower = cls.from_pretrained(checkpoint)
    tower.save_pretrained(tmp_path)
    inputs = make_inputs(CLIPConfig.from_pretrained(checkpoint), seed=2)
    theirs = outputs(tmp_path, inputs, kind)
    ours = tower(**{name: inputs[name] for name in inputs_of})
    for name in ("text_embeds", "image_embeds", "last_hidden_state"):
        if name in ours:
            report(f"{kind} {name}", largest(ours[name], theirs[name]), STATES)


def test_loss_and_gradients(checkpoint, model):
    import tensorflow as tf

    from tf_clip.checkpoints.huggingface import source_tensor

    inputs = make_inputs(model.config, count=4, seed=3)
    np.savez(checkpoint / "inputs.npz", **inputs)
    reference("gradients", checkpoint, checkpoint / "inputs.npz")
    theirs = dict(np.load(checkpoint / "gradients.npz"))
    variables = model._variables_by_path()
    with tf.GradientTape() as tape:
        loss = model(**inputs, return_loss=True).loss
    ours = tape.gradient(loss, [variable.value for variable in variables.values()])
    report("loss", abs(float(loss) - float(theirs["loss"])), 1e-5)
    scale = max(np.abs(gradient).max() for name, gradient in theirs.items() if name != "loss")
    worst = 0.0
    for path, gradient in zip(variables, ours, strict=True):
        source = source_tensor(path)
        gradient = source.to_file_layout(tf.convert_to_tensor(gradient).numpy())
        reach = max(np.abs(theirs[source.name]).max(), 1e-4 * scale)  # k_proj biases have a gradient of zero
        worst = max(worst, largest(gradient, theirs[source.name]) / reach)
    report("gradients, relative", worst, 1e-3 if "vit" in checkpoint.name else 1e-4)
