"""`compile_for_inference`: every engine's answers, sizes, traces, what is remembered, and what is refused."""

import importlib.util
import json

import numpy as np
import pytest
import tensorflow as tf

from tf_clip import CLIPModel, class_embeddings, compile_for_inference, embed_images, embed_texts
from tf_clip.adapters import Parallel
from tf_clip.inference import choice, compiled_model
from tf_clip.inference.choice import Choices, fastest


def assert_close(ours, theirs):
    np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), atol=1e-5)


@pytest.fixture(scope="module")
def wide_model(make_model):
    """A model whose text tower has whole panels."""
    return make_model(hidden_size=64, intermediate_size=256, num_attention_heads=2)


@pytest.fixture
def pixels(tiny_processor, images):
    return tiny_processor.image_processor(images)["pixel_values"].numpy()


@pytest.fixture(scope="module")
def plain(small_model, tiny_processor):
    """TensorFlow's graphs, which most tests are content with."""
    return compile_for_inference(small_model, tiny_processor, engine="tensorflow")


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["tensorflow", "xla", "litert"])
def test_every_engine_computes_what_the_model_does(small_model, tiny_processor, images, pixels, captions, engine):
    fast = compile_for_inference(small_model, tiny_processor, engine=engine)
    theirs = small_model(captions, pixels)
    ours = fast(captions, images)
    for name in ("image_embeds", "text_embeds"):
        assert_close(ours[name], theirs[name])
    # Cosines times 14, with their errors.
    for name in ("logits_per_image", "logits_per_text"):
        np.testing.assert_allclose(ours[name], theirs[name], atol=14e-6, rtol=1e-6)
    # Pixels, and another size.
    assert_close(fast.get_image_features(pixels[:2]), small_model.get_image_features(pixels[:2]))
    assert_close(fast.get_text_features(captions[:1]), small_model.get_text_features(captions[:1]))


@pytest.mark.parametrize(
    ("options", "with_onednn", "expected"),
    [
        ({"engine": "tensorflow"}, True, True),
        ({"engine": "tensorflow"}, False, False),
        ({"engine": "xla"}, True, False),
        ({"engine": "auto"}, True, True),
        ({"engine": "auto", "candidates": ("xla",)}, True, False),
    ],
)
def test_text_kernels_are_in_panels_where_that_is_faster(wide_model, monkeypatch, options, with_onednn, expected):
    monkeypatch.setattr(compiled_model, "multiplies_with_onednn", lambda: with_onednn)
    fast = compile_for_inference(wide_model, cache_dir=None, **options)
    kernel = fast._text_work.weights.blocks[0].fc1[0].kernel
    assert len(kernel.shape) == (3 if expected else 2)


def test_texts_padded_on_the_left(small_model, plain, captions):
    mask = np.ones_like(captions)
    mask[0, :2] = mask[3, 1] = 0
    expected = small_model.get_text_features(captions, mask)
    assert_close(plain.get_text_features(captions, mask), expected)
    assert_close(compile_for_inference(small_model, engine="xla").get_text_features(captions, mask), expected)


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "texts", "count"), [("tensorflow", 300, 70), ("xla", 34, 34)])
def test_many_rows_come_back_in_their_order(small_model, tiny_processor, engine, texts, count):
    generator = np.random.default_rng(0)
    ids = generator.integers(0, 512, (texts, 16))
    ids[np.arange(texts), generator.integers(9, 16, texts)] = 513
    images = generator.integers(0, 256, (count, 20, 20, 3), dtype=np.uint8)
    fast = compile_for_inference(small_model, tiny_processor, engine=engine)
    pixel_values = tiny_processor.image_processor(images)["pixel_values"]
    assert_close(fast.get_text_features(ids), small_model.get_text_features(ids))
    assert_close(fast.get_image_features(images), small_model.get_image_features(pixel_values))


def test_nothing_in_nothing_out(plain):
    assert plain.encode_text(np.zeros((0, 5), np.int32)).shape == (0, 28)
    assert plain.encode_image(np.zeros((0, 20, 20, 3), np.uint8)).shape == (0, 28)


def test_graphs_are_traced_once(small_model, tiny_processor, captions, images):
    fast = compile_for_inference(small_model, tiny_processor, engine="tensorflow", batch_sizes=[1])
    # Pixels and bytes of one image, and one text of any length.
    assert fast.traces == 3
    for count in (1, 2, 3, 5):
        fast(captions[:count], images[:count])
        fast.encode_text(captions[:count, :5] % 500)
    # Several images have another graph than one, as have several texts.
    assert fast.traces == 5
    mask = np.ones_like(captions)
    mask[0, 0] = 0
    fast.encode_text(captions, mask)
    fast.encode_text(captions[:2], mask[:2])
    assert fast.traces == 6


@pytest.mark.slow
def test_batch_sizes_make_all_ready(small_model, captions):
    fast = compile_for_inference(small_model, engine="xla", batch_sizes=[2])
    ready = fast.traces
    fast.get_text_features(captions[4:6, :8])
    fast(captions[1:3], np.zeros((2, 20, 20, 3), np.float32))
    assert fast.traces == ready


@pytest.mark.slow
def test_auto_takes_none_but_its_candidates(small_model, captions):
    fast = compile_for_inference(small_model, engine="auto", candidates=("xla",), cache_dir=None)
    many = np.tile(captions, (6, 1))
    assert_close(fast.get_text_features(many), small_model.get_text_features(many))
    assert set(fast.chosen["text"].values()) == {"xla"}
    assert {key[0] for key in fast._encoders["text"]._runners} == {"xla"}


def test_adapters_by_place_in_the_batch_are_refused(make_model):
    model = make_model()
    for name in ("one", "two"):
        model.add_adapter(name, "lora")
    model.active_adapters = Parallel("one", "two")
    with pytest.raises(ValueError, match="must do the same with every row"):
        compile_for_inference(model)


def test_xla_compiles_few_sizes(small_model, captions):
    fast = compile_for_inference(small_model, engine="xla")
    work = fast._text_work
    texts = [work.rows(captions[:count], None) for count in range(1, 8)]
    assert {work.size_of(text) for text in texts} == {(1, 16), (2, 16), (4, 16), (8, 16)}


def test_a_compiled_model_takes_a_models_place(small_model, tiny_processor, plain, images):
    images, texts = list(images), ["an owl", "a bus, the 2nd one", ""]
    for function, values in ((embed_texts, texts), (class_embeddings, texts[:2])):
        assert_close(function(plain, tiny_processor, values), function(small_model, tiny_processor, values))
    ours = embed_images(plain, tiny_processor, images).embeds
    assert_close(ours, embed_images(small_model, tiny_processor, images).embeds)
    assert float(plain.logit_scale.numpy()) == float(small_model.logit_scale.numpy())


def test_a_logit_bias_is_added(tiny_config, captions):
    import dataclasses

    model = CLIPModel(dataclasses.replace(tiny_config, logit_bias_init_value=-3.0))
    images = np.zeros((1, 20, 20, 3), np.float32)
    fast = compile_for_inference(model, engine="tensorflow")
    assert_close(fast(captions, images).logits_per_text, model(captions, images).logits_per_text)


def test_training_on_does_not_reach_a_compiled_model(make_model, captions):
    model = make_model()
    fast = compile_for_inference(model, engine="tensorflow")
    before = fast.encode_text(captions)
    for variable in model.trainable_variables:
        variable.assign(variable * 2)
    np.testing.assert_array_equal(fast.encode_text(captions), before)


def test_a_model_that_is_not_kept_gives_its_blocks_away(make_model, tiny_processor, captions, images):
    model = make_model()
    expected = compile_for_inference(model, tiny_processor, engine="tensorflow")(captions, images)
    fast = compile_for_inference(model, tiny_processor, engine="tensorflow", keep_model=False)
    np.testing.assert_array_equal(fast(captions, images).logits_per_image, expected.logits_per_image)
    blocks = [*model.image_encoder.encoder_layers, *model.text_encoder.encoder_layers]
    assert not any(np.asarray(variable.value).size for block in blocks for variable in block.weights)
    with pytest.raises((tf.errors.InvalidArgumentError, ValueError)):
        model(captions, np.zeros((1, 20, 20, 3), np.float32))


@pytest.mark.slow
def test_the_choice_is_measured_once_and_remembered(small_model, tmp_path, monkeypatch, captions):
    measured = []

    def slowest(runs):
        measured.append(list(runs))
        for run in runs.values():
            run()
        return list(runs)[-1]

    monkeypatch.setattr("tf_clip.inference.encoder.fastest", slowest)
    options = {"engine": "auto", "cache_dir": tmp_path / "new", "candidates": ("tensorflow", "xla")}
    fast = compile_for_inference(small_model, **options)
    expected = small_model.get_text_features(captions)
    assert_close(fast.get_text_features(captions), expected)
    assert_close(fast.get_text_features(captions[:6]), expected[:6])
    assert measured == [["tensorflow", "xla"]]
    assert fast.chosen["text"] == {(8, 16): "xla"}
    fast.get_text_features(captions[:1])
    assert len(measured) == 2
    (file,) = (tmp_path / "new").iterdir()
    assert set(json.loads(file.read_text())["choices"].values()) == {"xla"}

    again = compile_for_inference(small_model, **options)
    assert_close(again.get_text_features(captions), expected)
    assert len(measured) == 2
    other = compile_for_inference(small_model, **{**options, "candidates": ("tensorflow",)})
    other.get_text_features(captions)
    assert len(measured) == 3


def test_no_folder_no_file(small_model, captions, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    fast = compile_for_inference(small_model, candidates=["tensorflow"], cache_dir=None)
    fast.encode_text(captions)
    assert not list(tmp_path.iterdir())
    compile_for_inference(small_model, candidates=["tensorflow"]).encode_text(captions)
    assert (tmp_path / ".cache" / "tf_clip" / choice.FILE).is_file()


def test_a_broken_file_is_told_and_replaced(tmp_path):
    (tmp_path / choice.FILE).write_text("{")
    with pytest.warns(UserWarning, match="written anew"):
        choices = Choices(tmp_path, {}, 2)
    with pytest.warns(UserWarning, match="written anew"):
        choices.put("images", ("tensorflow",), "tensorflow")
    assert Choices(tmp_path, {}, 2).get("images", ("tensorflow",)) == "tensorflow"
    assert Choices(tmp_path, {}, 3).get("images", ("tensorflow",)) is None
    assert Choices(tmp_path, {"depth": 1}, 2).get("images", ("tensorflow",)) is None


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    choices = Choices(tmp_path / "file" / "folder", {}, 2)
    with pytest.warns(UserWarning, match="not remembered"):
        choices.put("images", ("tensorflow",), "tensorflow")
    assert choices.get("images", ("tensorflow",)) == "tensorflow"


def test_the_fastest_is_found_and_the_first_preferred(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(choice.time, "perf_counter", lambda: clock[0])

    def taking(seconds):
        def run():
            clock[0] += seconds

        return run

    assert fastest({"first": taking(1.0), "second": taking(0.5)}) == "second"
    assert fastest({"first": taking(1.0), "second": taking(0.99)}) == "first"
    assert fastest({"first": taking(0.5), "second": taking(1.0)}) == "first"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "onnx"}, "`engine` must be one of tensorflow, xla, litert or auto"),
        ({"candidates": "xla"}, "`candidates` must be some of"),
        ({"candidates": ()}, "`candidates` must be some of"),
        ({"candidates": ["onnx"]}, "`candidates` must be some of"),
        ({"batch_sizes": [0]}, "`batch_sizes` must be positive"),
    ],
)
def test_arguments_without_a_meaning(small_model, options, message):
    with pytest.raises(ValueError, match=message):
        compile_for_inference(small_model, **options)


def test_other_kinds_of_models_and_missing_extras(small_model, tiny_processor, monkeypatch):
    with pytest.raises(TypeError, match="Received: CLIPTextEncoder and NoneType"):
        compile_for_inference(small_model.text_encoder)
    with pytest.raises(TypeError, match="Received: CLIPModel and CLIPTokenizer"):
        compile_for_inference(small_model, tiny_processor.tokenizer)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for options in ({"engine": "litert"}, {"candidates": ["tensorflow", "litert"]}):
        with pytest.raises(ImportError, match="ai-edge-litert, which is not installed"):
            compile_for_inference(small_model, **options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda fast: fast.encode_image(np.zeros((1, 20, 20, 3), np.uint8)), "`processor` must be given"),
        (lambda fast: fast.encode_image(np.zeros((1, 20, 21, 3), np.float32)), r"of shape \[n, 20, 20, 3\]"),
        (lambda fast: fast.encode_image(np.zeros((1, 20, 20, 3), np.int32)), r"Received: int32"),
        (lambda fast: fast.encode_text(np.zeros((1, 17), np.int32)), "1 to 16"),
        (lambda fast: fast.encode_text(np.zeros(4, np.int32)), r"shape \[4\]"),
        (lambda fast: fast.encode_text(np.zeros((1, 4))), "Received: float64"),
        (lambda fast: fast.encode_text(np.full((1, 4), 514)), "from 0 to 513"),
        (lambda fast: fast.encode_text(np.full((1, 4), -1)), "from 0 to 513"),
        (lambda fast: fast.encode_text(np.zeros((1, 4), int), np.ones((1, 5))), "`attention_mask` must have the shape"),
    ],
)
def test_inputs_that_do_not_fit(small_model, call, message):
    fast = compile_for_inference(small_model, engine="tensorflow")
    with pytest.raises(ValueError, match=message):
        call(fast)
