"""What .tflite files answer, compared with the Keras model."""

from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from helpers.lite_files import LABELS, TEMPLATES, edges, levels, noise, unit
from tf_clip import CLIPFeatureExtractorTF, class_embeddings, class_probabilities
from tf_clip.export import LiteRTModel
from tf_clip.export.tflite.file import converted, operations_of
from tf_clip.export.tflite.resize import ImageResizer
from tf_clip.export.tflite.runtime import LiteRTFile, description_of, utf8_inputs

pytestmark = pytest.mark.slow

TEXTS = ["", "an owl", "ÜBER isn't 日本 🏯", "far too long for sixteen tokens", "a\u0301 <|endoftext|> b"]
SIZES = [(20, 20), (21, 30), (300, 40), (40, 300), (7, 9), (1, 50), (50, 1), (20, 400), (123, 77), (64, 64)]


@pytest.fixture(scope="session")
def files(small_files):
    return {part: LiteRTFile(path) for part, path in small_files.items()}


def test_all_operations_are_built_in(small_files):
    for part, path in small_files.items():
        operations = operations_of(path.read_bytes())
        print(f"\n{part}:", *operations)
        assert not [name for name in operations if name.startswith("CUSTOM") or "VAR" in name]


def test_images_of_the_models_size(small, small_runtime):
    model, processor = small
    images = [noise(20, 20, seed) for seed in range(5)]
    wanted = unit(model.get_image_features(processor(images=images)["pixel_values"]))
    np.testing.assert_allclose(small_runtime.encode_images(images), wanted, atol=1e-5)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", [noise, edges])
def test_images_of_any_size_are_resized_within_one_level(kind, size, small, files):
    image = kind(*size)
    resized = files["image"]("resize_image", image=image)["image_pixels"]
    assert np.abs(resized.astype(np.float32) - levels(small[1], image)).max() <= 1
    same = files["image"]("encode_pixels", image_pixels=resized)["image_embeds"]
    np.testing.assert_allclose(files["image"]("encode_image", image=image)["image_embeds"], same, atol=1e-6)


@pytest.fixture(scope="session")
def usual_size():
    """Resizing alone, to the 224 pixels of most models."""
    images = CLIPFeatureExtractorTF()
    resize = ImageResizer(images)
    spec = tf.TensorSpec([None, None, 3], tf.uint8, "image")
    function = tf.function(lambda image: {"image_pixels": resize(image)}, input_signature=[spec], autograph=False)
    return images, LiteRTFile(converted({"resize": function}, SimpleNamespace(variables={})))


@pytest.mark.parametrize("size", [(201, 64), (97, 150), (448, 448), (600, 801), (30, 20), (2, 9000), (3000, 200)])
@pytest.mark.parametrize("kind", [noise, edges])
def test_images_are_resized_to_the_usual_size_nearly_to_the_bit(kind, size, usual_size):
    images, file = usual_size
    image = kind(*size)
    wanted = levels(SimpleNamespace(image_processor=images), image)[0]
    difference = np.abs(file("resize", image=image)["image_pixels"] - wanted)
    assert difference.max() <= 1 and np.mean(difference > 0) < 5e-4


def test_texts_of_any_script_and_length(small, small_runtime):
    model, processor = small
    wanted = unit(model.get_text_features(**processor(text=TEXTS, max_length=16)))
    np.testing.assert_allclose(small_runtime.encode_texts(TEXTS), wanted, atol=1e-5)
    np.testing.assert_allclose(small_runtime.encode_texts([text.encode() for text in TEXTS]), wanted, atol=1e-5)
    ids = [processor.tokenizer.encode(text, truncation=True, max_length=16) for text in TEXTS]
    np.testing.assert_allclose(small_runtime.encode_ids(ids), wanted, atol=1e-5)


def test_a_text_that_is_cut_or_invalid_says_so_or_is_replaced(small, files):
    def answer(data):
        return files["text_from_utf8"]("encode_utf8", **utf8_inputs(data, files["text_from_utf8"]))

    assert (answer(b"owl")["is_cut"], answer(b"owl")["num_tokens"]) == (0, 5)
    assert (answer(b"x" * 15)["is_cut"], answer(b"x" * 15)["num_tokens"]) == (1, 16)
    assert answer(b" " * 2000)["is_cut"] == 1
    invalid = answer(b"a\xff\xc3 b")
    np.testing.assert_array_equal(invalid["text_embeds"], answer("a\ufffd\ufffd b")["text_embeds"])


@pytest.mark.parametrize("wrong", [-1, -(2**31), 514, 2**31 - 1])
def test_ids_that_the_model_has_not_give_zeros_and_say_so(wrong, files, small_runtime):
    ids = np.array([[512, 5, 6, 7, 513]], np.int32)
    assert files["text"]("encode_ids_5", input_ids=ids)["is_valid"] == 1
    ids[0, 2] = wrong
    answer = files["text"]("encode_ids_5", input_ids=ids)
    assert answer["is_valid"] == 0 and not answer["text_embeds"].any()
    with pytest.raises(ValueError, match=r"`input_ids` must be ids of the model's vocabulary. Received: \[512, 5, "):
        small_runtime.encode_ids(ids)


def test_classes(small, files):
    model, processor = small
    image = noise(31, 45)
    pixels = files["classify"]("resize_image", image=image)["image_pixels"]
    classes = class_embeddings(model, processor, LABELS, TEMPLATES)
    images = unit(model.get_image_features(processor(images=pixels[0])["pixel_values"]))
    wanted = class_probabilities(images, classes, float(model.logit_scale.numpy()))
    for signature, inputs in (
        ("classify_pixels", {"image_pixels": pixels}),
        ("classify_image", {"image": image}),
    ):
        np.testing.assert_allclose(files["classify"](signature, **inputs)["probabilities"], wanted, atol=1e-5)


def test_files_say_what_they_are(small_files, files):
    for part, path in small_files.items():
        description = description_of(path.read_bytes())
        assert (description["part"], description["model"], description["quantization"]) == (part, "small", "float32")
        for name, signature in description["signatures"].items():
            shapes = {key: tuple(size or -1 for size in spec["shape"]) for key, spec in signature["inputs"].items()}
            assert shapes == files[part].shapes[name]
        assert set(description["signatures"]) == set(files[part].shapes)
    assert description["labels"] == LABELS and description["templates"] == TEMPLATES
    assert description["image"]["image_mean"][0] == pytest.approx(0.48145466)
    with pytest.raises(ValueError, match="12 bytes without tf_clip.json"):
        description_of(b"not a tflite")


def test_weights_are_stored_once(small_files):
    sizes = {part: path.stat().st_size for part, path in small_files.items()}
    weights = 4 * 514 * 24
    assert sizes["text"] < 4 * weights  # two lengths, and two blocks beside the vocabulary


def test_no_rows_give_no_rows(small_runtime):
    for encode in (small_runtime.encode_images, small_runtime.encode_texts, small_runtime.encode_ids):
        assert encode([]).shape == (0, 28)


def test_what_the_runtime_refuses(small_runtime, tmp_path):
    with pytest.raises(ValueError, match=r"`image` must have shape \['any', 'any', 3\] for encode_image"):
        small_runtime.encode_images([np.zeros((5, 5, 4), np.uint8)])
    with pytest.raises(ValueError, match=r"Received: shape \[0, 5, 3\]"):
        small_runtime.encode_images([np.zeros((0, 5, 3), np.uint8)])
    with pytest.raises(TypeError, match="`images` must be uint8 pixels. Received: dtype float64"):
        small_runtime.encode_images([np.zeros((5, 5, 3))])
    with pytest.raises(TypeError, match="`texts` must be a sequence of texts"):
        small_runtime.encode_texts("an owl")
    for ids in ([], [1] * 17):
        with pytest.raises(ValueError, match=rf"`input_ids` must hold 1 to 16 ids a text. Received: {len(ids)}"):
            small_runtime.encode_ids([ids])
    with pytest.raises(FileNotFoundError, match="`folder` must hold image_encoder.tflite"):
        LiteRTModel(tmp_path).encode_images([noise(5, 5)])


def test_a_wrong_signature_or_shape_is_refused(files):
    with pytest.raises(ValueError, match=r"`signature` must be one of \['encode_ids_16', 'encode_ids_5'\]"):
        files["text"]("encode", input_ids=np.zeros((1, 5), np.int32))
    with pytest.raises(ValueError, match=r"`image_pixels` must have shape \[1, 20, 20, 3\] for encode_pixels"):
        files["image"]("encode_pixels", image_pixels=np.zeros((1, 24, 24, 3), np.uint8))
