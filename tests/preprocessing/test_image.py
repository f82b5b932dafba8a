"""`CLIPFeatureExtractorTF` against Hugging Face's rules, restated with Pillow and numpy."""

import functools
import json
import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from helpers.image_files import noise, written
from tf_clip import CLIPFeatureExtractorTF
from tf_clip.families.clip.openclip import OPENAI_MEAN, OPENAI_STD
from tf_clip.preprocessing.images import image_processor as image_module

BYTES_ONLY = {"do_rescale": False, "do_normalize": False}
BOMB = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + b"\0\1\0\0" * 2 + bytes(9)


def cropped_as_hugging_face_does(image, height, width):
    """Restates `center_crop` of transformers.image_transforms, channels last."""
    top, left = (image.shape[0] - height) // 2, (image.shape[1] - width) // 2
    if top >= 0 and left >= 0:
        return image[top : top + height, left : left + width]
    padded = np.zeros((max(height, image.shape[0]), max(width, image.shape[1]), 3), image.dtype)
    top_pad = math.ceil((padded.shape[0] - image.shape[0]) / 2)
    left_pad = math.ceil((padded.shape[1] - image.shape[1]) / 2)
    padded[top_pad : top_pad + image.shape[0], left_pad : left_pad + image.shape[1]] = image
    top, left = max(0, top + top_pad), max(0, left + left_pad)
    return padded[top : top + height, left : left + width]


def cropped_as_torchvision_does(image, height, width):
    """Restates `center_crop` of torchvision.transforms.functional, channels last."""
    rows, columns = max(height - image.shape[0], 0), max(width - image.shape[1], 0)
    padding = ((rows // 2, (rows + 1) // 2), (columns // 2, (columns + 1) // 2), (0, 0))
    padded = np.pad(image, padding)
    top, left = round((padded.shape[0] - height) / 2), round((padded.shape[1] - width) / 2)
    return padded[top : top + height, left : left + width]


def prepared_as_hugging_face_does(image, shortest_edge, crop):
    height, width = image.shape[:2]
    short, long = min(height, width), max(height, width)
    other = int(shortest_edge * long / short)
    size = (shortest_edge, other) if width <= height else (other, shortest_edge)  # width, height
    resized = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))
    return cropped_as_hugging_face_does(resized, *crop)


def pixels_of(extractor, images):
    return extractor(images)["pixel_values"].numpy()


@pytest.fixture(autouse=True)
def forgotten():
    """Lets go of the extractors that options have made: each keeps its graphs, tens of megabytes."""
    yield
    image_module._with_options.cache_clear()


@pytest.fixture(scope="module")
def small():
    return CLIPFeatureExtractorTF(size=20, crop_size=20)


@functools.cache
def bytes_extractor(crop, **options):
    """Keeps extractors, since each is traced anew."""
    return CLIPFeatureExtractorTF(crop_size=dict(zip(("height", "width"), crop, strict=True)), **options, **BYTES_ONLY)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.tuples(st.integers(1, 70), st.integers(1, 70)), st.sampled_from([1, 13, 24]))
def test_resized_and_cropped_bytes_equal_hugging_faces(shape, shortest_edge):
    extractor = bytes_extractor((21, 16), size=shortest_edge)
    image = noise((*shape, 3))
    expected = prepared_as_hugging_face_does(image, shortest_edge, (21, 16))
    np.testing.assert_array_equal(pixels_of(extractor, image)[0], expected)


@pytest.mark.slow
@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.tuples(st.integers(1, 30), st.integers(1, 30)), st.sampled_from([(1, 1), (7, 12), (20, 13)]))
def test_the_center_crop_rounds_and_pads_as_hugging_faces_and_as_torchvisions(shape, crop):
    image = noise((*shape, 3))
    for style, cropped in [("huggingface", cropped_as_hugging_face_does), ("openai", cropped_as_torchvision_does)]:
        extractor = bytes_extractor(crop, do_resize=False, crop_style=style)
        np.testing.assert_array_equal(pixels_of(extractor, image)[0], cropped(image, *crop))


@pytest.mark.parametrize(
    ("style", "starts"),
    [
        ("huggingface", [-3, -2, -2, -1, -1, 0, 0, 1, 1, 2, 2, 3, 3]),
        ("openai", [-2, -2, -1, -1, 0, 0, 0, 1, 2, 2, 2, 3, 4]),
    ],
)
@pytest.mark.usefixtures("no_graphs")
def test_where_a_center_crop_of_7_begins(style, starts):
    extractor = bytes_extractor((7, 7), do_resize=False, crop_style=style)
    for length, start in zip(range(2, 15), starts, strict=True):
        image = np.repeat(np.arange(1, length + 1, dtype=np.uint8)[:, np.newaxis], 7, axis=1)
        rows = pixels_of(extractor, image)[0, :, 0, 0].tolist()
        assert rows == [row + 1 if 0 <= row < length else 0 for row in range(start, start + 7)]


def test_a_photo_at_clips_own_size():
    image = noise((480, 641, 3))
    pixels = prepared_as_hugging_face_does(image, 224, (224, 224))
    expected = (pixels / 255 - np.array(OPENAI_MEAN)) / np.array(OPENAI_STD)
    actual = pixels_of(CLIPFeatureExtractorTF(), image)
    assert (actual.shape, actual.dtype) == ((1, 224, 224, 3), np.float32)
    np.testing.assert_allclose(actual[0], expected, atol=2e-6)


def test_padding_is_black_before_the_values_are_normalized():
    extractor = CLIPFeatureExtractorTF(do_resize=False, crop_size=4)
    corner = pixels_of(extractor, np.full((1, 1, 3), 255, np.uint8))[0, 0, 0]
    np.testing.assert_allclose(corner, -np.array(OPENAI_MEAN) / np.array(OPENAI_STD), rtol=1e-6)


@pytest.mark.parametrize(
    ("size", "shape"),
    [(10, (13, 10)), ({"shortest_edge": 10}, (13, 10)), ({"height": 7, "width": 9}, (7, 9))],
    ids=["integer", "shortest edge", "both"],
)
@pytest.mark.usefixtures("no_graphs")
def test_the_forms_of_a_size(size, shape):
    extractor = CLIPFeatureExtractorTF(size=size, do_center_crop=False)
    assert pixels_of(extractor, noise((40, 30, 3))).shape == (1, *shape, 3)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [[[51, 102, 204]]]),
        ({"do_rescale": True}, [[[0.2, 0.4, 0.8]]]),
        ({"do_rescale": True, "rescale_factor": 0.5}, [[[25.5, 51, 102]]]),
        ({"do_normalize": True, "image_mean": [50, 100, 200], "image_std": [1, 2, 4]}, [[[1, 1, 1]]]),
        ({"do_center_crop": True, "crop_size": {"height": 1, "width": 2}}, [[[0, 0, 0], [51, 102, 204]]]),
        ({"do_resize": True, "size": {"height": 1, "width": 2}}, [[[51, 102, 204]] * 2]),
    ],
    ids=["nothing", "rescale", "factor", "normalize", "crop", "resize"],
)
@pytest.mark.usefixtures("no_graphs")
def test_each_step_can_be_switched_alone(options, expected):
    nothing = dict.fromkeys(["do_resize", "do_center_crop", "do_rescale", "do_normalize"], False)
    extractor = CLIPFeatureExtractorTF(**{**nothing, **options})
    pixels = np.array([[[51, 102, 204]]], np.uint8)
    np.testing.assert_allclose(pixels_of(extractor, pixels)[0], expected, rtol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        {"do_resize": False},
        {"size": 30},
        {"size": {"height": 7, "width": 9}, "do_center_crop": False},
        {"resample": 1},
        {"do_center_crop": False},
        {"crop_size": {"height": 5, "width": 50}},
        {"do_rescale": False},
        {"rescale_factor": 0.5},
        {"do_normalize": False},
        {"image_mean": np.array([0.1, 0.2, 0.3])},
        {"image_std": [1, 2, 3]},
        {"image_mean": 0.5, "image_std": 2},
        {"size": 12, "crop_size": 11, "do_normalize": False, "resample": 2},
    ],
    ids=str,
)
@pytest.mark.usefixtures("no_graphs")
def test_options_of_a_call_are_those_of_an_extractor(small, options):
    image = noise((40, 33, 3))
    wanted = pixels_of(CLIPFeatureExtractorTF(**{"size": 20, "crop_size": 20, **options}), image)
    before = small.to_dict()
    np.testing.assert_array_equal(small(image, **options)["pixel_values"], wanted)
    assert small.to_dict() == before


@pytest.mark.slow
def test_options_of_a_call_work_however_images_come(small):
    options = {"size": 12, "crop_size": 11, "image_mean": 0.5, "do_rescale": False, "resample": 2}
    image = noise((40, 33, 3))
    wanted = pixels_of(CLIPFeatureExtractorTF(**options), image)
    for function in (small, small.preprocess):
        for images in (image, written(image, "PNG")):
            np.testing.assert_array_equal(function(images, **options)["pixel_values"], wanted)
    dataset = tf.data.Dataset.from_tensors(image).map(lambda image: small(image, **options)["pixel_values"])
    np.testing.assert_array_equal(next(iter(dataset)), wanted)


def test_options_of_a_call_that_are_none_or_the_same_change_nothing(small):
    image = noise((40, 33, 3))
    assert small._with({"size": 20, "crop_size": {"height": 20, "width": 20}}) is small
    np.testing.assert_array_equal(pixels_of(small, image), small(image, size=None, do_resize=None)["pixel_values"])


def test_bad_options_of_a_call_are_refused_by_name(small):
    with pytest.raises(ValueError, match="`size` must be"):
        small(noise((5, 5, 3)), size={"longest_edge": 5})
    with pytest.raises(TypeError, match="do_pad"):
        small(noise((5, 5, 3)), do_pad=True)


def test_options_and_sizes_that_come_again_are_not_traced_again(monkeypatch):
    traces = []
    resampler = image_module.Resampler
    monkeypatch.setattr(image_module, "Resampler", lambda *words: traces.append(0) or resampler(*words))
    extractor = CLIPFeatureExtractorTF(size=8, crop_size=8)
    for size in range(5, 9):
        for options in ({}, {"size": 6}, {"size": 7, "crop_size": 7}):
            extractor([noise((size, 9, 3))], **options)
    assert len(traces) == 3


def test_the_extractors_kept_for_options_are_few(small):
    for size in range(1, 100):
        small._with({"size": size})
    assert image_module._with_options.cache_info().currsize <= 32
    assert small._with({"size": 99}) is small._with({"size": 99})


def test_the_return_kind_inside_a_graph_can_only_be_tensorflows(small):
    dataset = tf.data.Dataset.from_tensors(noise((5, 5, 3)))
    with pytest.raises(ValueError, match=r"`return_tensors` must be 'tf' inside .*Received: return_tensors='np'"):
        dataset.map(lambda image: small(image, return_tensors="np")["pixel_values"])


@pytest.mark.parametrize("channels", [1, 4])
def test_pixels_that_are_not_rgb_are_refused_where_they_may_not_be_converted(small, channels):
    with pytest.raises(ValueError, match=rf"RGB with do_convert_rgb=False. Received: pixels of {channels} channels"):
        small(noise((5, 5, channels)), do_convert_rgb=False)
    with pytest.raises(ValueError, match=r"Received: a PIL image of mode (L|RGBA) at index 1\. Convert them"):
        small([noise((5, 5, 3)), Image.fromarray(noise((5, 5, channels)).squeeze())], do_convert_rgb=False)


@pytest.mark.usefixtures("no_graphs")
def test_rgb_needs_no_conversion(small):
    image = noise((25, 31, 3))
    images = [image, Image.fromarray(image), written(Image.fromarray(image[..., 0]).convert("RGB"), "PNG")]
    np.testing.assert_array_equal(small(images, do_convert_rgb=False)["pixel_values"], pixels_of(small, images))
    # Files are decoded to RGB whatever they hold.
    gray = written(image[..., 0], "PNG")
    np.testing.assert_array_equal(small(gray, do_convert_rgb=False)["pixel_values"], pixels_of(small, gray))


def test_pil_images_are_taken_alone_and_in_lists(small):
    image = Image.fromarray(noise((25, 31, 3))).quantize(9)
    rgb = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(pixels_of(small, image), pixels_of(small, rgb))
    np.testing.assert_array_equal(pixels_of(small, [image, rgb]), pixels_of(small, [rgb, rgb]))


def test_a_list_may_mix_sizes_bytes_and_pixels(small):
    images = [noise((9, 40, 3)), noise((31, 20, 3), 1), noise((20, 20, 3), 2)]
    mixed = [images[0], written(images[1], "PNG"), tf.constant(images[2])]
    rows = np.concatenate([pixels_of(small, image) for image in images])
    np.testing.assert_array_equal(pixels_of(small, mixed), rows)


def test_a_batch_equals_its_images_one_by_one(small):
    batch = noise((3, 25, 31, 3))
    np.testing.assert_array_equal(pixels_of(small, batch), pixels_of(small, list(batch)))


@pytest.mark.parametrize("shape", [(25, 31), (25, 31, 1), (2, 25, 31, 1)])
def test_one_channel_is_repeated(small, shape):
    gray = noise(shape)
    rgb = np.repeat(gray.reshape(-1, 25, 31, 1), 3, axis=-1)
    np.testing.assert_array_equal(pixels_of(small, gray), pixels_of(small, rgb))


def test_four_channels_are_composited_on_white_as_pillow_does(small):
    rgba = noise((25, 31, 4))
    white = Image.new("RGBA", (31, 25), "white")
    rgb = np.asarray(Image.alpha_composite(white, Image.fromarray(rgba)).convert("RGB"))
    np.testing.assert_array_equal(pixels_of(small, rgba), pixels_of(small, rgb))


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 300, 3), (300, 1, 3)])
def test_the_smallest_images_come_out_whole(small, shape):
    image = noise(shape)
    expected = (prepared_as_hugging_face_does(image, 20, (20, 20)) / 255 - np.array(OPENAI_MEAN)) / np.array(OPENAI_STD)
    np.testing.assert_allclose(pixels_of(small, image)[0], expected, atol=2e-6)


@pytest.mark.parametrize("shape", [(20, 20_000, 3), (20_000, 20, 3)], ids=["wide", "tall"])
def test_a_very_long_image_takes_little_memory(shape):
    resource = pytest.importorskip("resource")
    extractor = CLIPFeatureExtractorTF(**BYTES_ONLY)
    image = noise(shape)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    pixels = pixels_of(extractor, image)[0]
    grown_by_mebibytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    assert grown_by_mebibytes < 1024  # all of the resized image would be 3.6 GiB in float64
    # Beyond the crop and the reach of the filter the image does not count.
    middle = tuple(slice(max(0, n // 2 - 30), n // 2 + 30) for n in shape[:2])
    np.testing.assert_array_equal(pixels, pixels_of(extractor, image[middle])[0])


@pytest.mark.slow
def test_bytes_through_a_dataset_give_what_eager_code_gives(small):
    files = [written(noise((30, 20 + index, 3), index), name) for index, name in enumerate(["PNG", "JPEG", "GIF"])]
    dataset = tf.data.Dataset.from_tensor_slices(files).map(lambda data: small(data)["pixel_values"][0]).batch(3)
    np.testing.assert_array_equal(next(iter(dataset)), pixels_of(small, files))


@pytest.mark.parametrize("wrap", [bytes, tf.constant, lambda data: [data], lambda data: tf.constant([data])])
def test_a_file_in_any_wrapping_is_a_batch_of_one(small, wrap):
    image = noise((30, 25, 3))
    np.testing.assert_array_equal(pixels_of(small, wrap(written(image, "PNG"))), pixels_of(small, image))


def test_pixels_inside_a_graph_give_what_eager_code_gives(small):
    batch = noise((2, 25, 31, 4))
    traced = tf.function(
        lambda images: small(images)["pixel_values"], input_signature=[tf.TensorSpec([None] * 3 + [4], tf.uint8)]
    )
    np.testing.assert_array_equal(traced(batch), pixels_of(small, batch))


def test_images_of_other_sizes_do_not_retrace():
    extractor = CLIPFeatureExtractorTF(size=8, crop_size=8)
    for size in range(5, 15):
        extractor([noise((size, 2 * size, 3)), written(noise((size, 9, 3)), "PNG")])
    assert extractor._traced_pixels.experimental_get_tracing_count() == 1
    assert extractor._traced_bytes.experimental_get_tracing_count() == 1


@pytest.mark.parametrize("wrap", [list, tf.constant], ids=["list", "tensor"])
@pytest.mark.parametrize(
    "bad",
    [
        *[b"", b"no image at all", BOMB, b"\xff\xd8\xff" + written(noise(), "PNG")],
        *[written(noise(), name)[:200] for name in ("JPEG", "PNG", "WEBP", "GIF")],
    ],
    ids=["empty", "text", "bomb", "other magic", "jpeg", "png", "webp", "gif"],
)
def test_the_index_and_length_of_a_bad_file_are_named(small, wrap, bad):
    files = [written(noise(), "PNG"), bad]
    with pytest.raises(ValueError, match=rf"`images` must hold whole .*at index 1, {len(bad)} bytes") as caught:
        small(wrap(files))
    assert "Graph execution" not in str(caught.value)


@pytest.mark.slow
def test_a_bad_file_inside_a_dataset_stops_it(small):
    dataset = tf.data.Dataset.from_tensor_slices([b"no image"]).map(lambda data: small(data)["pixel_values"])
    with pytest.raises(tf.errors.InvalidArgumentError, match="not a JPEG, PNG, WebP or GIF image"):
        next(iter(dataset))


@pytest.mark.slow
def test_the_index_of_a_bad_file_inside_a_graph_is_named(small):
    traced = tf.function(lambda files: small(files)["pixel_values"])
    for bad, reason in (
        (b"a text", "not a JPEG"),
        (b"GIF89a" + bytes(9), "GIF without an image"),
        (BOMB, "more than 89478485 pixels"),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError, match=f"at index 1: {reason}"):
            traced(tf.constant([written(noise(), "PNG"), bad]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.uint16, bool])
def test_pixels_of_other_types_are_refused(small, dtype):
    with pytest.raises(TypeError, match=r"`images` must be uint8 pixels .*Received: dtype .*pass tf.cast"):
        small(np.zeros((5, 5, 3), dtype))


@pytest.mark.parametrize("shape", [(5,), (5, 5, 2), (5, 5, 5), (3, 5, 5), (1, 2, 5, 5, 3), (0, 5, 3), (5, 0, 3)])
def test_pixels_of_other_shapes_are_refused(small, shape):
    with pytest.raises(ValueError, match=r"`images` must have shape .*Received: shape .*Put the channels last"):
        small(np.zeros(shape, np.uint8))


def test_an_empty_list_is_refused(small):
    with pytest.raises(ValueError, match=r"`images` must hold at least one image"):
        small([])


def test_a_list_of_several_sizes_without_a_crop_is_refused():
    extractor = CLIPFeatureExtractorTF(size=10, do_center_crop=False)
    with pytest.raises(ValueError, match=r"`images` must come out in one size .*\(10, 10, 3\), \(10, 20, 3\)"):
        extractor([noise((10, 10, 3)), noise((10, 20, 3))])


@pytest.mark.parametrize("size", [0, -1, 2.5, True, "224", None, {}, {"height": 5}, {"height": 5, "width": None}])
@pytest.mark.parametrize("name", ["size", "crop_size"])
def test_sizes_that_are_none_are_refused_by_name(name, size):
    with pytest.raises(ValueError, match=rf"`{name}` must be a positive integer, or .*Received: {name}="):
        CLIPFeatureExtractorTF(**{name: size})


@pytest.mark.parametrize("size", [{"shortest_edge": 0}, {"shortest_edge": 5, "longest_edge": 9}, {"longest_edge": 5}])
def test_edges_that_cannot_be_honored_are_refused(size):
    with pytest.raises(ValueError, match=r"`size` must be .*or {'shortest_edge': n}\. Received"):
        CLIPFeatureExtractorTF(size=size)


@pytest.mark.parametrize("resample", [-1, 6, None, "bicubic"])
def test_unknown_filters_are_refused(resample):
    with pytest.raises(ValueError, match=r"`resample` must be one of Pillow's \[.*1, 2, 3, 4, 5\]"):
        CLIPFeatureExtractorTF(resample=resample)


@pytest.mark.parametrize(
    ("name", "values"), [("image_mean", [0.5]), ("image_std", [1, 1, 1, 1]), ("image_std", [1, 0, 1])]
)
def test_means_and_divisors_that_cannot_be_used_are_refused(name, values):
    with pytest.raises(ValueError, match=rf"`{name}` must be three numbers"):
        CLIPFeatureExtractorTF(**{name: values})


@pytest.mark.parametrize("size", [{"shortest_edge": 30}, {"height": 30, "width": 40}])
def test_saved_options_load_to_an_equal_extractor(tmp_path, size):
    extractor = CLIPFeatureExtractorTF(
        size=size, resample=2, crop_size={"height": 5, "width": 6}, rescale_factor=0.5, image_mean=(1, 2, 3)
    )
    extractor.save_pretrained(tmp_path / "new")
    assert CLIPFeatureExtractorTF.from_pretrained(tmp_path / "new").to_dict() == extractor.to_dict()


def test_options_that_other_libraries_do_not_know_are_saved_only_where_they_are_needed(tmp_path):
    assert not {"crop_style", "apply_exif"} & CLIPFeatureExtractorTF().to_dict().keys()
    extractor = CLIPFeatureExtractorTF(crop_style="openai", apply_exif=False, do_convert_rgb=False)
    extractor.save_pretrained(tmp_path)
    loaded = CLIPFeatureExtractorTF.from_pretrained(tmp_path)
    assert (loaded.crop_style, loaded.apply_exif, loaded.do_convert_rgb) == ("openai", False, False)
    assert loaded._with({"size": 30}).to_dict() == {**extractor.to_dict(), "size": {"shortest_edge": 30}}


@pytest.mark.parametrize("style", ["torchvision", None, ""])
def test_unknown_crop_styles_are_refused(style):
    with pytest.raises(ValueError, match=r"`crop_style` must be one of \('huggingface', 'openai'\)\. Received: "):
        CLIPFeatureExtractorTF(crop_style=style)


def test_the_oldest_config_form_loads(tmp_path):
    config = {"feature_extractor_type": "CLIPFeatureExtractor", "size": 224, "crop_size": 224, "resample": 3}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config), "utf-8")
    assert CLIPFeatureExtractorTF.from_pretrained(tmp_path).to_dict() == CLIPFeatureExtractorTF().to_dict()


def test_the_newest_config_form_loads(tmp_path):
    config = {"processor_class": "CLIPProcessor", "image_processor": {"size": {"shortest_edge": 336}, "crop_size": 336}}
    (tmp_path / "processor_config.json").write_text(json.dumps(config), "utf-8")
    loaded = CLIPFeatureExtractorTF.from_pretrained(tmp_path)
    assert loaded.to_dict() == CLIPFeatureExtractorTF(size=336, crop_size=336).to_dict()


@pytest.mark.parametrize("files", [{}, {"processor_config.json": '{"processor_class": "CLIPProcessor"}'}])
def test_a_folder_that_says_nothing_about_images_is_refused(tmp_path, files):
    for name, text in files.items():
        (tmp_path / name).write_text(text, "utf-8")
    with pytest.raises(
        FileNotFoundError, match=r"`folder` must hold preprocessor_config.json or processor_config.json"
    ):
        CLIPFeatureExtractorTF.from_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "must be valid JSON"),
        ("[]", "must hold a JSON object"),
        ('{"size": {"longest_edge": 5}}', "`size` must be"),
    ],
)
def test_a_config_that_is_broken_is_refused(tmp_path, text, message):
    (tmp_path / "preprocessor_config.json").write_text(text, "utf-8")
    with pytest.raises(ValueError, match=message):
        CLIPFeatureExtractorTF.from_pretrained(tmp_path)
