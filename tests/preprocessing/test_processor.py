"""`CLIPProcessor`: every kind of image to pixels, and both halves together."""

import io
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from helpers.image_files import RGB, noise, png, written
from tf_clip import CLIPFeatureExtractorTF, CLIPProcessor
from tf_clip.preprocessing.images.opening import open_image

COLOUR = Image.fromarray(noise((9, 12, 3)))
SIXTEEN_BITS = np.random.default_rng(0).integers(0, 65536, (9, 12)).astype(np.uint16)


@pytest.fixture(scope="module")
def processor(tiny_tokenizer):
    return CLIPProcessor(CLIPFeatureExtractorTF(size=10, crop_size=10), tiny_tokenizer)


def on_white(image):
    rgba = image.convert("RGBA")
    return np.asarray(Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB"))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "YCbCr", "HSV", "LAB", "F"])
def test_opaque_modes_convert_as_pillow_does(mode):
    image = COLOUR.convert("RGB" if mode in ("HSV", "LAB") else mode)
    np.testing.assert_array_equal(open_image(image), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["LA", "PA", "RGBA", "RGBa"])
def test_transparent_modes_are_composited_on_white(mode):
    rgba = Image.fromarray(noise((9, 12, 4)))
    image = rgba.convert("LA").convert("PA") if mode == "PA" else rgba.convert(mode)
    np.testing.assert_array_equal(open_image(image), on_white(image))


@pytest.mark.parametrize(("mode", "transparency"), [("P", 3), ("P", bytes(range(0, 250, 10))), ("L", 77), ("1", 0)])
def test_transparent_colors_are_composited_on_white(mode, transparency):
    image = COLOUR.quantize(25) if mode == "P" else COLOUR.convert(mode)
    image.info["transparency"] = transparency
    np.testing.assert_array_equal(open_image(image), on_white(image))


def test_odd_modes_come_through_extractor_and_processor_alike(processor):
    transparent = COLOUR.quantize(25)
    transparent.info["transparency"] = 3
    images = [*(COLOUR.convert(mode) for mode in ("L", "1", "CMYK")), transparent, Image.fromarray(SIXTEEN_BITS)]
    images += [Image.fromarray(noise((9, 12, 4))), Image.fromarray(noise((9, 12, 4))).convert("LA")]
    assert [image.mode for image in images] == ["L", "1", "CMYK", "P", "I;16", "RGBA", "LA"]
    rows = processor.image_processor([open_image(image) for image in images])["pixel_values"]
    np.testing.assert_array_equal(processor.image_processor(images)["pixel_values"], rows)
    np.testing.assert_array_equal(processor(images=images)["pixel_values"], rows)


@pytest.mark.parametrize(
    ("image", "values"),
    [
        (Image.fromarray(SIXTEEN_BITS), SIXTEEN_BITS >> 8),
        (Image.fromarray(SIXTEEN_BITS.astype(np.int32)), SIXTEEN_BITS >> 8),
        (Image.fromarray(np.array([[-5, 70_000]], np.int32)), [[0, 255]]),
    ],
    ids=["I;16", "I", "out of range"],
)
def test_16_bit_grays_are_cut_to_8(image, values):
    np.testing.assert_array_equal(open_image(image), np.repeat(np.array(values)[..., np.newaxis], 3, axis=-1))


@pytest.mark.parametrize("file_format", ["BMP", "TIFF", "PPM", "PNG", "WEBP"])
def test_any_format_that_pillow_knows_opens(file_format):
    data = written(COLOUR, file_format, **({"lossless": True} if file_format == "WEBP" else {}))
    np.testing.assert_array_equal(open_image(data), COLOUR)


def test_of_an_animation_the_first_frame_counts():
    data = written(COLOUR, "PNG", save_all=True, append_images=[COLOUR.rotate(180)])
    np.testing.assert_array_equal(open_image(data), COLOUR)


@pytest.mark.parametrize("as_source", ["bytes", "path"])
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "an empty file"),
        (b"not an image", "not an image that Pillow knows"),
        (written(COLOUR, "JPEG")[:300], "broken or cut short"),
        (written(noise((90, 90, 3)), "PNG")[:900], "broken or cut short"),
        (written(COLOUR, "WEBP")[:60], "broken or cut short"),
    ],
    ids=["empty", "text", "jpeg", "png", "webp"],
)
def test_files_that_are_no_whole_images_are_refused_by_name(tmp_path, data, reason, as_source):
    source = data
    if as_source == "path":
        source = tmp_path / "file.jpg"
        source.write_bytes(data)
    name = f"{len(data)} bytes" if as_source == "bytes" else str(source)
    with pytest.raises(ValueError, match=rf"`images` must be whole images of a safe size\..*{reason}") as caught:
        open_image(source)
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize("limit", [50, 107], ids=["beyond twice", "just beyond"])
def test_an_image_of_more_pixels_than_pillow_deems_safe_is_refused(monkeypatch, limit):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
    with pytest.raises(ValueError, match=r"of a safe size.*too many pixels"):
        open_image(png(RGB, 8, shape=(9, 12)))


def test_threads_that_open_images_leave_the_warnings_as_they_were(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 107)
    before = list(warnings.filters)
    large, small = png(RGB, 8, shape=(9, 12)), png(RGB, 8, shape=(8, 12))

    def opens(index):
        for _ in range(30):
            open_image(small)
            with pytest.raises(ValueError, match="too many pixels"):
                open_image(large)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(opens, range(4)))
    assert warnings.filters == before


def test_the_index_of_a_bad_file_in_a_list_is_named(processor, tmp_path):
    (tmp_path / "text.jpg").write_bytes(b"a text")
    broken = Image.open(io.BytesIO(written(COLOUR, "JPEG")[:-30]))
    for bad, name in [
        (b"a text", "'6 bytes' at index 1"),
        (tmp_path / "text.jpg", "text.jpg' at index 1"),
        (broken, "'a PIL image of mode RGB' at index 1"),
    ]:
        with pytest.raises(ValueError, match=name):
            processor(images=[COLOUR, bad])


def test_a_missing_path_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"`images` must name existing files\. Received: .*none\.jpg"):
        open_image(tmp_path / "none.jpg")


def test_text_and_images_give_the_models_arguments(processor):
    outputs = processor(text=["a cat", "a dog and a photo"], images=COLOUR)
    assert {name: tuple(tensor.shape) for name, tensor in outputs.items()} == {
        "input_ids": (2, 7),
        "attention_mask": (2, 7),
        "pixel_values": (1, 10, 10, 3),
    }


@pytest.mark.parametrize(
    ("inputs", "names"),
    [({"text": "a"}, {"input_ids", "attention_mask"}), ({"images": COLOUR}, {"pixel_values"})],
)
def test_either_may_be_left_out(processor, inputs, names):
    assert set(processor(**inputs)) == names


def test_every_kind_of_image_gives_the_same_values(processor, tmp_path):
    path = tmp_path / "color.png"
    COLOUR.save(path)
    images = [COLOUR, path, str(path), path.read_bytes(), np.asarray(COLOUR), tf.constant(np.asarray(COLOUR))]
    rows = processor(images=images, return_tensors="np")["pixel_values"]
    assert rows.shape == (6, 10, 10, 3)
    assert (rows == rows[0]).all()


def test_files_in_the_graph_and_through_pillow_give_the_same_values(processor):
    files = [written(COLOUR, name) for name in ("PNG", "JPEG", "GIF", "WEBP")]
    np.testing.assert_array_equal(
        processor.image_processor(files)["pixel_values"], processor(images=files)["pixel_values"]
    )


@pytest.mark.parametrize("return_tensors", ["tf", "np", "jax", "pt"])
def test_return_kinds_are_of_the_library(processor, return_tensors):
    module = {"tf": "tensorflow", "np": "numpy", "jax": "jax", "pt": "torch"}[return_tensors]
    pytest.importorskip(module)
    expected = processor(text="a", images=COLOUR)
    outputs = processor(text="a", images=COLOUR, return_tensors=return_tensors)
    assert outputs.keys() == expected.keys()
    for name, value in outputs.items():
        assert module in {kind.__module__.partition(".")[0].removesuffix("lib") for kind in type(value).__mro__}
        np.testing.assert_array_equal(np.asarray(value), expected[name])


@pytest.mark.parametrize(("return_tensors", "module"), [("jax", "jax"), ("pt", "torch")])
def test_a_library_that_is_not_installed_is_named(processor, monkeypatch, return_tensors, module):
    for name in (module, f"{module}.numpy"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=rf"`return_tensors` .*'{return_tensors}'.*Run `pip install {module}`"):
        processor(images=COLOUR, return_tensors=return_tensors)


def test_text_options_reach_the_tokenizer(processor):
    assert processor(text="a b c d e f", padding="max_length", max_length=5)["input_ids"].shape == (1, 5)


def test_neither_text_nor_images_is_refused(processor):
    with pytest.raises(ValueError, match=r"`text` or `images` must be given"):
        processor()


@pytest.mark.parametrize("return_tensors", ["list", None])
def test_unknown_return_kinds_are_refused(processor, return_tensors):
    with pytest.raises(ValueError, match=r"`return_tensors` must be one of .*Received: return_tensors="):
        processor(text="a", return_tensors=return_tensors)


def test_batch_decode_is_the_tokenizers(processor):
    ids = processor(text=["a cat", "a dog"])["input_ids"]
    assert processor.batch_decode(ids, skip_special_tokens=True) == ["a cat", "a dog"]


def test_saved_files_load_to_an_equal_processor(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    loaded = CLIPProcessor.from_pretrained(tmp_path)
    inputs = {"text": ["a photo of a cat"], "images": [COLOUR, COLOUR.rotate(90)]}
    for name, value in processor(**inputs).items():
        np.testing.assert_array_equal(loaded(**inputs)[name], value)
