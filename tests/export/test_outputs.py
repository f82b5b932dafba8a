"""What a SavedModel gives is what the Python model gives, for every signature."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import tf_clip
from helpers import ROOT
from helpers.served_models import LABELS, TEMPLATES, encoded
from tf_clip import (
    CLIPConfig,
    CLIPModel,
    CLIPResNetConfig,
    class_embeddings,
    class_probabilities,
    embed_images,
    embed_texts,
)
from tf_clip.export.savedmodel.graph import EncodingGraph, Limits
from tf_clip.export.savedmodel.images import read_images
from tf_clip.export.weights import StoredWeights
from tf_clip.preprocessing.images.decode import MAX_PIXELS

pytestmark = pytest.mark.slow

IMAGES = [path.read_bytes() for path in sorted((ROOT / "examples" / "images").glob("*.png"))[:3]] + [
    encoded("JPEG", (90, 60, 3)),
    encoded("GIF", (57, 80, 3)),
    encoded("WebP", (40, 57, 3)),
]
TEXTS = ["an owl", "a bus, the 2nd one!", "", "été 🚀", "word " * 60]
LIMITS = Limits("status", MAX_PIXELS, 1_000)


@pytest.fixture(scope="module")
def image_embeds(pictogram):
    return embed_images(*pictogram, IMAGES).embeds


@pytest.fixture(scope="module")
def text_embeds(pictogram):
    return embed_texts(*pictogram, TEXTS)


@pytest.fixture(scope="module")
def scale(pictogram):
    return np.exp(float(pictogram[0].logit_scale))


def close(found, expected, atol=1e-5):
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


def test_encode_image(served, image_embeds):
    found = served["encode_image"](image_bytes=IMAGES)
    close(found["image_embeds"], image_embeds)
    assert found["status"].tolist() == [b"ok"] * len(IMAGES)


def test_encode_image_pixels(served, pictogram):
    model, processor = pictogram
    pixels = np.random.default_rng(0).integers(0, 256, (3, 70, 91, 3), dtype=np.uint8)
    expected = model.get_image_features(processor(images=list(pixels))["pixel_values"])
    found = served["encode_image_pixels"](image_pixels=pixels)
    assert set(found) == {"image_embeds"}
    close(found["image_embeds"], expected / np.linalg.norm(expected, axis=1, keepdims=True))


def test_encode_text(served, text_embeds):
    found = served["encode_text"](text=TEXTS)
    close(found["text_embeds"], text_embeds)
    assert found["status"].tolist() == [b"ok"] * len(TEXTS)


def test_encode_tokens_of_the_same_tokens_is_the_same_to_the_bit(served, pictogram):
    ids = pictogram[1].tokenizer(TEXTS, max_length=32)["input_ids"]
    by_tokens = served["encode_tokens"](input_ids=ids)
    assert by_tokens["status"].tolist() == [b"ok"] * len(TEXTS)
    np.testing.assert_array_equal(by_tokens["text_embeds"], served["encode_text"](text=TEXTS)["text_embeds"])


def test_padding_behind_the_end_token_changes_nothing(served, pictogram):
    ids = pictogram[1].tokenizer(TEXTS[:2])["input_ids"].numpy()
    padded = np.pad(ids, [[0, 0], [0, 5]])  # with zeros, as a server pads
    found = [served["encode_tokens"](input_ids=rows)["text_embeds"] for rows in (ids, padded)]
    close(*found, atol=1e-6)


def test_a_text_is_not_padded_beyond_its_batch(served, pictogram):
    # What is behind the longest row would cost time; the length of the ids says how long that is.
    longest = max(
        len(ids) for ids in pictogram[1].tokenizer(TEXTS[:2], padding=False, return_tensors=None)["input_ids"]
    )
    assert longest < 32
    alone = served["encode_text"](text=TEXTS[:1])["text_embeds"]
    close(served["encode_text"](text=TEXTS)["text_embeds"][:1], alone, atol=1e-6)


def test_classify(served, pictogram, image_embeds):
    classes = class_embeddings(*pictogram, LABELS, TEMPLATES)
    expected = class_probabilities(image_embeds, classes, float(pictogram[0].logit_scale))
    found = served["classify"](image_bytes=IMAGES)
    close(found["probabilities"], expected)
    order = np.argsort(-expected, axis=1, kind="stable")[:, :3]
    assert [[label.decode() for label in row] for row in found["labels"]] == [[LABELS[i] for i in row] for row in order]
    np.testing.assert_array_equal(found["scores"], np.take_along_axis(found["probabilities"], order, axis=1))
    assert found["status"].tolist() == [b"ok"] * len(IMAGES)


def test_serving_default_is_classify(served):
    for name, value in served["serving_default"](image_bytes=IMAGES[:2]).items():
        np.testing.assert_array_equal(value, served["classify"](image_bytes=IMAGES[:2])[name])


def test_similarity(served, image_embeds, text_embeds, scale):
    found = served["similarity"](image_bytes=IMAGES, text=TEXTS)
    logits = scale * image_embeds @ text_embeds.T
    close(found["logits_per_image"], logits, atol=1e-5 * scale)
    close(found["probabilities"], tf.nn.softmax(logits, axis=1))
    assert found["image_status"].tolist() == [b"ok"] * len(IMAGES)
    assert found["text_status"].tolist() == [b"ok"] * len(TEXTS)


def test_similarity_of_pairs(served, image_embeds, text_embeds, scale):
    found = served["similarity_pairs"](image_bytes=IMAGES[:5], text=TEXTS)
    close(found["logits"], scale * np.sum(image_embeds[:5] * text_embeds, axis=1), atol=1e-5 * scale)
    assert found["status"].tolist() == [b"ok"] * 5


def test_pixels_before_the_tower_are_the_extractors_to_the_bit(pictogram):
    extractor = pictogram[1].image_processor
    read = tf.function(lambda files: read_images(extractor, files, (56, 56), MAX_PIXELS), autograph=False)
    read = read(tf.constant(IMAGES))
    np.testing.assert_array_equal(read.pixel_values, extractor(IMAGES)["pixel_values"])
    assert read.rows.numpy().tolist() == list(range(len(IMAGES)))


def test_every_signature_takes_no_rows_at_all(served, pictogram_folder):
    description = json.loads((pictogram_folder / "assets.extra" / "tf_clip.json").read_text())
    kinds = {"string": str, "uint8": np.uint8, "int32": np.int32}
    for name, signature in description["signatures"].items():
        inputs = {}
        for key, spec in signature["inputs"].items():
            shape = [0, *(4 if size is None else size for size in spec["shape"][1:])]
            inputs[key] = (
                tf.zeros(shape, spec["dtype"]).numpy() if kinds[spec["dtype"]] is not str else np.zeros(0, "S1")
            )
        for key, value in served[name](**inputs).items():
            assert value.shape[0] == 0 and value.size == 0, (name, key)


def rows_of(spec, count):
    """Returns an input of some rows that every signature can read."""
    if spec["dtype"] == "string":
        return None
    shape = [count, *(4 if size is None else size for size in spec["shape"][1:])]
    return np.ones(shape, spec["dtype"])


@pytest.mark.parametrize("count", [1, 3])
def test_signatures_that_may_be_batched_give_a_row_for_each_row(served, pictogram_folder, count):
    description = json.loads((pictogram_folder / "assets.extra" / "tf_clip.json").read_text())
    strings = {"image_bytes": IMAGES[:1] * count, "text": ["a bus"] * count}
    batchable = {name: each for name, each in description["signatures"].items() if each["batchable"]}
    assert set(description["signatures"]) - set(batchable) == {"similarity"}
    for name, signature in batchable.items():
        assert all(spec["shape"][0] is None for side in ("inputs", "outputs") for spec in signature[side].values())
        inputs = {key: strings.get(key, rows_of(spec, count)) for key, spec in signature["inputs"].items()}
        found = served[name](**inputs)
        assert set(found) == set(signature["outputs"])
        for key, value in found.items():
            declared = signature["outputs"][key]
            assert len(value) == count, (name, key)
            assert all(want in (None, got) for want, got in zip(declared["shape"], value.shape, strict=True))


def test_the_file_beside_it_says_what_it_is(pictogram_folder):
    description = json.loads((pictogram_folder / "assets.extra" / "tf_clip.json").read_text())
    signatures = description.pop("signatures")
    assert description.pop("logit_scale") == pytest.approx(29.6, abs=0.1)
    assert description == {
        "format": 1,
        "model": "clip",
        "tf_clip": tf_clip.__version__,
        "projection_dim": 128,
        "dtype": "float32",
        "labels": LABELS,
        "templates": TEMPLATES,
    }
    assert signatures["classify"] == {
        "inputs": {"image_bytes": {"dtype": "string", "shape": [None]}},
        "outputs": {
            "labels": {"dtype": "string", "shape": [None, 3]},
            "scores": {"dtype": "float32", "shape": [None, 3]},
            "probabilities": {"dtype": "float32", "shape": [None, 4]},
            "status": {"dtype": "string", "shape": [None]},
        },
        "batchable": True,
    }


@pytest.mark.parametrize(("dtype", "precision"), [("float16", 1e-3), ("bfloat16", 8e-3)])
def test_half_precision_is_stored_and_float32_computed(small, dtype, precision):
    model, processor = small
    weights = StoredWeights(model, dtype)
    assert {path for path, stored in weights.variables.items() if stored.dtype != dtype} == {"logit_scale"}
    graph = EncodingGraph(weights, processor, LIMITS)
    text, images = graph.text(tf.constant(TEXTS))[0].numpy(), graph.image_bytes(tf.constant(IMAGES[3:]))[0].numpy()
    close(text, embed_texts(model, processor, TEXTS), precision)
    close(images, embed_images(model, processor, IMAGES[3:]).embeds, precision)
    # All that is lost is lost in the weights.
    rounded = CLIPModel(model.config)
    rounded.set_weights([tf.cast(tf.cast(value, dtype), tf.float32).numpy() for value in model.get_weights()])
    close(text, embed_texts(rounded, processor, TEXTS))
    close(images, embed_images(rounded, processor, IMAGES[3:]).embeds)


def test_half_precision_takes_half_the_memory(small):
    # All weights in float32 at once would take more than is saved: each waits for what comes before it.
    graph = EncodingGraph(StoredWeights(small[0], "float16"), small[1], LIMITS)
    tower = graph._text_tower.get_concrete_function().graph
    casts = [one for one in tower.get_operations() if one.type == "Cast" and one.inputs[0].dtype == tf.float16]
    weights = [one for one in casts if one.inputs[0].op.type == "ReadVariableOp"]
    assert len(weights) == 2 * 16 + 3  # of two layers, the last norm and the projection
    assert all(one.control_inputs or one.inputs[0].op.control_inputs for one in weights)
    # The vocabulary itself is not cast, but what is taken from it.
    assert sorted(one.inputs[0].op.type for one in casts if one not in weights) == ["GatherV2", "GatherV2"]


def test_the_model_is_not_changed(small):
    model, processor = small
    before = [weight.numpy().copy() for weight in model.weights]
    text = embed_texts(model, processor, TEXTS)
    weights = StoredWeights(model, "float16")
    EncodingGraph(weights, processor, LIMITS).text(tf.constant(TEXTS))
    for weight, value in zip(model.weights, before, strict=True):
        np.testing.assert_array_equal(weight.numpy(), value)
        assert weight.dtype == "float32"
    np.testing.assert_array_equal(embed_texts(model, processor, TEXTS), text)


def test_a_model_of_mixed_precision_is_computed_in_float32(small, tmp_path):
    model, processor = small
    mixed = CLIPModel(model.config, dtype=keras.DTypePolicy("mixed_bfloat16"))
    mixed.set_weights(model.get_weights())
    graph = EncodingGraph(StoredWeights(mixed, "float32"), processor, LIMITS)
    close(graph.text(tf.constant(TEXTS))[0].numpy(), embed_texts(model, processor, TEXTS))
    assert mixed.dtype_policy.name == "mixed_bfloat16"


def test_a_resnet_with_a_bias(small):
    model, processor = small
    vision = CLIPResNetConfig(depths=(1, 1, 1, 1), embedding_size=8, num_attention_heads=4, image_size=32)
    text = model.config.text_config
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=28, logit_bias_init_value=-3.0)
    model = CLIPModel(config)
    extractor = tf_clip.CLIPFeatureExtractorTF(size=32, crop_size=32)
    processor = tf_clip.CLIPProcessor(extractor, processor.tokenizer)
    graph = EncodingGraph(StoredWeights(model, "float32"), processor, LIMITS)
    images, texts = graph.image_bytes(tf.constant(IMAGES))[0], graph.text(tf.constant(TEXTS))[0]
    close(images.numpy(), embed_images(model, processor, IMAGES).embeds)
    logits = model(**processor(text=TEXTS, images=IMAGES)).logits_per_image
    close(graph.logits(images, texts).numpy(), logits, atol=2e-4)


def test_weights_are_stored_once(pictogram_folder, pictogram):
    stored = (pictogram_folder / "variables" / "variables.data-00000-of-00001").stat().st_size
    weights = 4 * pictogram[0].count_params()
    assert weights < stored < 1.02 * weights
    # The graph and the tokenizer's tables, which grow with neither width nor vocabulary very much.
    assert sum(file.stat().st_size for file in pictogram_folder.rglob("*") if file.is_file()) - stored < 3_600_000
