"""Decoding files inside the graph: the pixels that Pillow gives, or a refusal on both sides."""

import struct

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from helpers.image_files import GRAY, GRAY_ALPHA, PALETTE, RGB, RGBA, noise, png, written
from tf_clip.preprocessing.images.decode import MAX_PIXELS, decode_rgb
from tf_clip.preprocessing.images.opening import open_image

SMOOTH = Image.fromarray(noise((8, 8, 3))).resize((25, 32))
NOISE = Image.fromarray(noise((32, 25, 3)))
CLEAR = SMOOTH.copy()
CLEAR.putalpha(Image.fromarray(noise((8, 8))).resize((25, 32)))
FEW_COLOURS = SMOOTH.quantize(8)

_traced = tf.function(decode_rgb, input_signature=[tf.TensorSpec([], tf.string)])


def decode(data):
    return _traced(data).numpy()


def decodes(function, data):
    try:
        function(data)
    except (ValueError, tf.errors.InvalidArgumentError):
        return False
    return True


def patched(data, position, patch):
    return data[:position] + patch + data[position + len(patch) :]


def gif(screen=(25, 32), offset=(0, 0), **options):
    """Returns a GIF whose frame of 25 x 32 does not begin, or end, where its screen does."""
    data = written(FEW_COLOURS, "GIF", **options)
    frame = data.index(b",\0\0\0\0" + struct.pack("<HH", 25, 32))
    return patched(patched(data, 6, struct.pack("<HH", *screen)), frame + 1, struct.pack("<HH", *offset))


def cmyk_jpeg(transform=None):
    """Returns a CMYK JPEG: as Pillow writes it, with another Adobe transform, or without Adobe's marker."""
    data = written(NOISE.convert("CMYK"), "JPEG")
    marker = data.index(b"\xff\xee\x00\x0eAdobe")
    return data[:marker] + data[marker + 16 :] if transform is None else patched(data, marker + 15, bytes([transform]))


def position_of_jpeg_size(data):
    return data.index(b"\xff\xc0") + 5


@pytest.mark.parametrize("interlaced", [False, True], ids=["", "interlaced"])
@pytest.mark.parametrize(
    ("color_type", "bit_depth", "options"),
    [
        *[(GRAY, depth, {}) for depth in (1, 2, 4, 8, 16)],
        *[(PALETTE, depth, {}) for depth in (1, 2, 4, 8)],
        *[(PALETTE, depth, {"palette_alpha": [255, 0]}) for depth in (1, 2, 4, 8)],
        *[(PALETTE, depth, {"palette_alpha": [0, 77]}) for depth in (1, 2, 4, 8)],
        *[(kind, depth, {}) for kind in (GRAY_ALPHA, RGB, RGBA) for depth in (8, 16)],
        *[(GRAY, depth, {"transparent": (2, 3)}) for depth in (1, 8, 16)],
        (RGB, 8, {"transparent": (2, 3)}),
    ],
)
def test_png_equals_pillow(color_type, bit_depth, options, interlaced):
    data = png(color_type, bit_depth, interlaced=interlaced, **options)
    np.testing.assert_array_equal(decode(data), open_image(data))


@pytest.mark.parametrize(("color_type", "bit_depth"), [(GRAY, 2), (GRAY, 4), (RGB, 16)])
def test_png_transparent_colors_that_pillow_misses_are_white(color_type, bit_depth):
    opaque = decode(png(color_type, bit_depth))
    is_transparent = (opaque == opaque[2, 3]).all(axis=-1)
    expected = np.where(is_transparent[..., np.newaxis], 255, opaque)
    np.testing.assert_array_equal(decode(png(color_type, bit_depth, transparent=(2, 3))), expected)


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1)])
def test_the_smallest_png_equals_pillow(shape):
    data = png(GRAY, 1, shape=shape, interlaced=True)
    np.testing.assert_array_equal(decode(data), open_image(data))


JPEGS = {
    "color": written(SMOOTH, "JPEG"),
    "gray": written(SMOOTH.convert("L"), "JPEG"),
    "progressive": written(NOISE, "JPEG", progressive=True),
    "restart markers": written(NOISE, "JPEG", restart_marker_blocks=2),
    "rgb": written(NOISE, "JPEG", keep_rgb=True),
    "one pixel": written(SMOOTH.resize((1, 1)), "JPEG"),
    **{f"subsampling {n}": written(NOISE, "JPEG", subsampling=n, quality=60) for n in (0, 1, 2)},
    "cmyk": cmyk_jpeg(transform=0),
    "ycck": cmyk_jpeg(transform=2),
    "cmyk without adobe's marker": cmyk_jpeg(),
}
GIFS = {
    "opaque": written(SMOOTH, "GIF"),
    "gray": written(SMOOTH.convert("L"), "GIF"),
    "two colors": written(SMOOTH.convert("1"), "GIF"),
    "not interlaced": written(SMOOTH, "GIF", interlace=0),
    "one pixel": written(SMOOTH.resize((1, 1)), "GIF"),
    "transparent": written(FEW_COLOURS, "GIF", transparency=3),
    "transparent first color": written(FEW_COLOURS, "GIF", transparency=0),
    "comment": written(FEW_COLOURS, "GIF", comment=b"," * 700, transparency=3, loop=2),
    "animated": written(SMOOTH, "GIF", save_all=True, append_images=[NOISE, SMOOTH.rotate(90)]),
    "animated transparent": written(
        FEW_COLOURS, "GIF", transparency=3, save_all=True, append_images=[NOISE.quantize(8)]
    ),
    "larger screen": gif((40, 50), (5, 6)),
    "larger transparent screen": gif((40, 50), (5, 6), transparency=3),
    "smaller screen": gif((10, 12)),
    "frame beyond the screen": gif((25, 32), (9, 1)),
}
WEBPS = {
    f"{name} {kind}": written(image, "WEBP", lossless=kind == "lossless", **options)
    for kind in ("lossy", "lossless")
    for name, image, options in [
        ("opaque", SMOOTH, {}),
        ("alpha", CLEAR, {}),
        ("profile", SMOOTH, {"icc_profile": b"odd"}),
        ("animated", SMOOTH, {"save_all": True, "append_images": [NOISE]}),
        ("animated with profile", SMOOTH, {"save_all": True, "append_images": [NOISE], "icc_profile": b"odd"}),
        ("animated alpha", CLEAR, {"save_all": True, "append_images": [CLEAR.rotate(90)]}),
    ]
}


@pytest.mark.parametrize("name", JPEGS)
def test_jpeg_equals_pillow(name):
    np.testing.assert_array_equal(decode(JPEGS[name]), open_image(JPEGS[name]))


@pytest.mark.parametrize("name", GIFS)
def test_gif_equals_pillow(name):
    np.testing.assert_array_equal(decode(GIFS[name]), open_image(GIFS[name]))


@pytest.mark.parametrize("name", WEBPS)
def test_webp_equals_pillow(name):
    np.testing.assert_array_equal(decode(WEBPS[name]), open_image(WEBPS[name]))


@pytest.mark.parametrize("data", [JPEGS["color"], GIFS["opaque"], WEBPS["opaque lossy"], png(RGB, 8)])
def test_bytes_behind_the_image_are_ignored(data):
    np.testing.assert_array_equal(decode(data + b"more"), decode(data))


def test_eager_code_decodes_too():
    np.testing.assert_array_equal(decode_rgb(GIFS["transparent"]), decode(GIFS["transparent"]))


@pytest.mark.parametrize(
    ("data", "end_mark"),
    [
        (JPEGS["color"], 0),
        (JPEGS["progressive"], 0),
        (GIFS["opaque"], 3),
        (GIFS["animated transparent"], 3),
        (WEBPS["opaque lossy"], 0),
        (WEBPS["opaque lossless"], 0),
        (WEBPS["alpha lossy"], 0),
        (WEBPS["animated lossless"], 0),
        (png(RGB, 8), 20),
        (png(PALETTE, 4, interlaced=True), 20),
    ],
    ids=["jpeg", "progressive", "gif", "animated gif", "webp", "lossless", "alpha", "animated webp", "png", "palette"],
)
def test_a_file_cut_short_anywhere_is_refused_where_pillow_refuses_it(data, end_mark):
    """Pillow does not miss the end mark itself, of which the graph is stricter."""
    ends = {*range(0, len(data), max(1, len(data) // 60)), *range(len(data) - 40, len(data))}
    accepted = [(decodes(decode, data[:end]), decodes(open_image, data[:end]), end) for end in sorted(ends)]
    assert [end for ours, pillows, end in accepted if ours and not pillows] == []
    assert [end for ours, pillows, end in accepted if pillows and not ours and end < len(data) - end_mark - 1] == []


@pytest.mark.parametrize(
    "data", [b"", b"x", b"RIFF", b"RIFF\0\0\0\0WEBP", b"GIF89a", b"\xff\xd8\xff", b"BM" + b"\0" * 60]
)
def test_what_is_no_image_is_refused(data):
    assert not decodes(decode, data)


def with_size(data, position, layout, *numbers):
    return patched(data, position, struct.pack(layout, *numbers))


BOMBS = {
    "jpeg": with_size(JPEGS["color"], position_of_jpeg_size(JPEGS["color"]), ">HH", 60_000, 60_000),
    "png": with_size(png(RGB, 8), 16, ">II", 20_000, 20_000),
    "png of 2^62 pixels": with_size(png(RGB, 8), 16, ">II", 2**31 - 1, 2**31 - 1),
    "gif": with_size(GIFS["opaque"], 6, "<HH", 60_000, 60_000),
    "gif frame": with_size(GIFS["opaque"], GIFS["opaque"].index(b",\0\0\0\0") + 5, "<HH", 60_000, 60_000),
    "webp lossy": with_size(WEBPS["opaque lossy"], 26, "<HH", 16_383, 16_383),
    "webp lossless": with_size(WEBPS["opaque lossless"], 21, "<I", 16_382 | 16_382 << 14),
    "webp extended": with_size(WEBPS["alpha lossy"], 24, "<HBHB", 16_382, 0, 16_382, 0),
    "webp animated": with_size(WEBPS["animated lossy"], 24, "<HBHB", 0xFFFF, 0xFF, 0xFFFF, 0xFF),
}


@pytest.mark.parametrize("name", BOMBS)
def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(name):
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"more than {MAX_PIXELS} pixels"):
        decode(BOMBS[name])


def test_the_limit_is_pillows():
    assert MAX_PIXELS == 1024**3 // 4 // 3
    assert MAX_PIXELS == Image.MAX_IMAGE_PIXELS


def test_one_pixel_fewer_than_the_limit_allows_is_not_too_many():
    # The header is believed; the pixels are missing.
    data = with_size(png(RGB, 8), 16, ">II", MAX_PIXELS, 1)
    with pytest.raises(tf.errors.InvalidArgumentError, match="Invalid PNG"):
        decode(data)


def test_a_long_animation_costs_no_more_memory_than_its_first_frame():
    """Otherwise 500 frames would take 1.4 GiB."""
    resource = pytest.importorskip("resource")
    frames = [Image.new("P", (1000, 1000), index % 250) for index in range(500)]
    data = written(frames[0], "GIF", save_all=True, append_images=frames[1:])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert decode(data).shape == (1000, 1000, 3)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 200  # MiB
