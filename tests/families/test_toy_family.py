"""A family that the package does not know goes all the way: load, call, fit, save, a new process, compile, export."""

from __future__ import annotations

import subprocess
import sys

import keras
import numpy as np
import pytest

import tf_clip
from helpers import environment
from helpers.seeds import seed
from helpers.toy_family import ToyModel, ToyProcessor, toy_processor
from tf_clip import class_embeddings, compile_for_inference, embed_images, zero_shot_classifier
from tf_clip.export import LiteRTModel
from tf_clip.export.tflite.runtime import LiteRTFile
from tf_clip.families.family import family_of
from tf_clip.models.load import load

TEXTS = ["an owl", "a bus", ""]
LABELS = ["owl", "bus"]


@pytest.fixture(scope="module")
def toy():
    """Its weights are seeded."""
    seed()
    model = ToyModel()
    model.logit_scale.assign(1.0)
    return model, toy_processor()


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def folder(toy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy")
    for part in toy:
        part.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def logits(toy, pixels):
    model, processor = toy
    return np.asarray(model(**processor(text=TEXTS, images=list(pixels))).logits_per_image)


def unit(rows):
    return np.asarray(rows) / np.linalg.norm(rows, axis=1, keepdims=True)


def test_texts_are_padded_as_the_family_says(toy):
    assert family_of(toy[0]).padding == "max_length"
    assert toy[1](text=TEXTS)["input_ids"].shape == (3, 10)


def test_fit_lowers_the_loss_of_its_scores(toy, pixels):
    model = ToyModel()
    model.compile(keras.optimizers.Adam(3e-2))
    inputs = toy[1](text=TEXTS, images=list(pixels))
    losses = model.fit(inputs, epochs=30, verbose=0).history["loss"]
    assert losses[-1] < losses[0] / 2
    assert type(model._pair_loss) is tf_clip.SigmoidLoss
    returned = model(**inputs, return_loss=True)
    np.testing.assert_allclose(returned.loss, tf_clip.sigmoid_loss(returned.logits_per_text), rtol=1e-5)


def test_it_is_loaded_by_its_folder_alone(folder, pixels, logits):
    loaded = load(folder)
    assert (type(loaded.model), type(loaded.processor)) == (ToyModel, ToyProcessor)
    inputs = loaded.processor(text=TEXTS, images=list(pixels))
    np.testing.assert_array_equal(loaded.model(**inputs).logits_per_image, logits)


@pytest.mark.process
def test_it_is_loaded_in_a_new_process(toy, folder, pixels, logits, tmp_path):
    np.save(tmp_path / "pixels.npy", pixels)
    toy[0].save(tmp_path / "model.keras")
    code = f"""
import sys
import keras, numpy as np
import helpers.toy_family
from tf_clip.models.load import load

loaded = load({str(folder)!r})
inputs = loaded.processor(text={TEXTS!r}, images=list(np.load({str(tmp_path / "pixels.npy")!r})))
restored = keras.models.load_model({str(tmp_path / "model.keras")!r})
np.savez({str(tmp_path / "found.npz")!r}, *(model(**inputs).logits_per_image for model in (loaded.model, restored)))
"""
    subprocess.run([sys.executable, "-c", code], check=True, env=environment(), timeout=120)
    with np.load(tmp_path / "found.npz") as found:
        for name in found.files:
            np.testing.assert_allclose(found[name], logits, atol=1e-6)


@pytest.mark.parametrize("engine", ["tensorflow", pytest.param("xla", marks=pytest.mark.slow)])
def test_compiled_it_computes_the_same(toy, pixels, logits, engine):
    model, processor = toy
    fast = compile_for_inference(model, processor, engine=engine, batch_sizes=[3], cache_dir=None)
    traces = fast.traces
    inputs = processor(text=TEXTS, images=list(pixels))
    np.testing.assert_allclose(fast(**inputs).logits_per_image, logits, atol=1e-5)
    assert fast.traces == traces
    ids = inputs["input_ids"]
    np.testing.assert_allclose(fast.get_text_features(ids), model.get_text_features(ids), atol=1e-5)
    assert np.abs(fast.get_text_features(ids) - fast.get_text_features(**processor(text=TEXTS))).max() > 1e-3
    np.testing.assert_allclose(fast.get_image_features(pixels)[:1], fast.get_image_features(pixels[:1]), atol=1e-5)


def test_its_probabilities_are_of_each_pair_alone(toy, pixels):
    model, processor = toy
    classifier = zero_shot_classifier(model, processor, LABELS)
    images = embed_images(model, processor, list(pixels)).embeds
    np.testing.assert_allclose(classifier.probabilities(images), probabilities_of_labels(toy, list(pixels)), atol=1e-6)


@pytest.mark.slow
def test_a_saved_model_of_it(toy, pixels, logits, tmp_path):
    from helpers.served_models import encoded, signatures_of

    model, processor = toy
    served = signatures_of(tf_clip.export.saved_model(model, processor, tmp_path, labels=LABELS))
    tokens = processor(text=TEXTS)
    wanted = unit(model.get_text_features(**tokens))
    np.testing.assert_allclose(served["encode_text"](text=TEXTS)["text_embeds"], wanted, atol=1e-5)
    # A short text alone is as long as any.
    np.testing.assert_allclose(served["encode_text"](text=TEXTS[:1])["text_embeds"], wanted[:1], atol=1e-5)
    np.testing.assert_allclose(served["encode_tokens"](**tokens)["text_embeds"], wanted, atol=1e-5)
    files = [encoded(shape=(16, 16, 3), seed=seed) for seed in range(2)]
    found = served["similarity"](image_bytes=files, text=TEXTS)
    expected = model(**processor(text=TEXTS, images=files)).logits_per_image
    np.testing.assert_allclose(found["logits_per_image"], expected, atol=1e-5)
    np.testing.assert_allclose(found["probabilities"], 1 / (1 + np.exp(-np.asarray(expected))), atol=1e-5)
    probabilities = served["classify"](image_bytes=files)["probabilities"]
    np.testing.assert_allclose(probabilities, probabilities_of_labels(toy, files), atol=1e-5)


def probabilities_of_labels(toy, images):
    images = embed_images(*toy, images).embeds
    return 1 / (1 + np.exp(10.0 - np.exp(1.0) * images @ class_embeddings(*toy, LABELS).T))


@pytest.mark.slow
@pytest.mark.parametrize("quantization", ["float32", "dynamic_int8"])
def test_litert_files_of_it(toy, pixels, tmp_path, quantization):
    model, processor = toy
    files = tf_clip.export.litert(model, processor, tmp_path, labels=LABELS, quantization=quantization)
    atol = 1e-5 if quantization == "float32" else 0.1
    runtime = LiteRTModel(tmp_path)
    texts = unit(model.get_text_features(**processor(text=TEXTS)))
    images = unit(model.get_image_features(**processor(images=list(pixels))))
    np.testing.assert_allclose(runtime.encode_texts(TEXTS), texts, atol=atol)
    ids = processor.tokenizer(TEXTS, padding=False, return_tensors=None)["input_ids"]
    np.testing.assert_allclose(runtime.encode_ids(ids), texts, atol=atol)
    np.testing.assert_allclose(runtime.encode_images(list(pixels)), images, atol=atol)
    found = LiteRTFile(files["classify"])("classify_pixels", image_pixels=pixels[:1])
    np.testing.assert_allclose(found["probabilities"], probabilities_of_labels(toy, list(pixels[:1])), atol=atol)


def test_a_length_that_it_does_not_read_is_refused(toy, tmp_path):
    with pytest.raises(ValueError, match="`text_lengths` must be left out for a model that reads every text at 10"):
        tf_clip.export.litert(*toy, tmp_path / "mobile", parts=["text"], text_lengths=[8])
