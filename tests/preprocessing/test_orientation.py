"""Orientation tags read in the graph, against Pillow's `exif_transpose`: real, odd, broken and hostile ones."""

import io
import itertools
import struct
import time
import warnings
import zlib

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from helpers.image_files import RGB, noise, png, png_chunk, written
from tf_clip import CLIPFeatureExtractorTF, CLIPProcessor
from tf_clip.preprocessing.images.decode import decode_rgb
from tf_clip.preprocessing.images.opening import open_image
from tf_clip.preprocessing.images.orientation import MAX_BLOCKS, orientation, turned_upright

ORIENTATION = 0x0112
IMAGE = Image.fromarray(noise((9, 12, 3)))
FORMATS = ["JPEG", "PNG", "WEBP"]
TURNED = range(2, 9)

_traced = tf.function(orientation, input_signature=[tf.TensorSpec([], tf.string)])
_traced_upright = tf.function(
    lambda data: turned_upright(decode_rgb(data), data), input_signature=[tf.TensorSpec([], tf.string)]
)


def tag_of(data):
    return int(_traced(data))


def pillows_tag(data):
    """Returns the tag by which Pillow would turn an image, or 0 where it would leave it as it lies."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = Image.open(io.BytesIO(data))
        image.load()
        try:
            tag = image.getexif().get(ORIENTATION, 0)
        except (SyntaxError, struct.error):
            return 0
    return tag if tag in TURNED else 0


def tiff(*entries, order="<", header=None, directory=8, tail=b""):
    """Returns an EXIF block: entries of a number, a type, a count and four bytes."""
    header = {"<": b"II*\0", ">": b"MM\0*"}[order] if header is None else header
    packed = [struct.pack(order + "HHL", *entry[:3]) + entry[3] for entry in entries]
    return b"".join(
        [header, struct.pack(order + "L", directory), struct.pack(order + "H", len(entries)), *packed, bytes(4), tail]
    )


def short(value, order="<"):
    return (ORIENTATION, 3, 1, struct.pack(order + "HH", value, 0))


def segment(marker, body):
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body


def jpeg_with(*parts, before=None):
    """Returns a JPEG with bytes inserted before the first segment of a marker, by default the first of all."""
    data = written(IMAGE, "JPEG")
    data = data[:2] + data[data.index(b"\xff\xdb") :]  # without JFIF, which stands first
    position = 2 if before is None else data.index(b"\xff" + bytes([before]))
    return data[:position] + b"".join(parts) + data[position:]


def png_with(*chunks, before=b"IDAT"):
    data = png(RGB, 8)
    position = data.index(before) - 4
    return data[:position] + b"".join(chunks) + data[position:]


def webp_with(*chunks, flags):
    """Returns an extended WebP with chunks behind its image."""
    body = written(IMAGE, "WEBP", lossless=True)[12:]
    size = struct.pack("<I", IMAGE.width - 1)[:3] + struct.pack("<I", IMAGE.height - 1)[:3]
    body = b"VP8X" + struct.pack("<IB3x", 10, flags) + size + body
    for name, content in chunks:
        body += name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def jpeg_exif(block):
    return segment(0xE1, b"Exif\0\0" + block)


def xmp(text):
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description {text}/></x:xmpmeta>'.encode()


def jpeg_xmp(text):
    return segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + xmp(text))


def png_xmp(text):
    return png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp(text))


@pytest.mark.parametrize("file_format", FORMATS)
def test_every_orientation_is_turned_as_pillow_does(file_format):
    for tag, order in itertools.product(range(10), "<>"):
        exif = Image.Exif()
        exif.endian = order
        exif[0x010F] = "a maker whose name lies elsewhere"
        exif[ORIENTATION] = tag
        data = written(IMAGE, file_format, exif=exif)
        assert tag_of(data) == tag
        image = Image.open(io.BytesIO(data))
        np.testing.assert_array_equal(_traced_upright(data), ImageOps.exif_transpose(image).convert("RGB"))
        np.testing.assert_array_equal(_traced_upright(data), open_image(data))


@pytest.mark.parametrize("file_format", [*FORMATS, "GIF"])
def test_a_file_without_a_tag_stays_as_it_lies(file_format):
    data = written(IMAGE, file_format)
    assert tag_of(data) == 0
    np.testing.assert_array_equal(_traced_upright(data), open_image(data))


def test_eager_code_reads_them_too():
    data = jpeg_with(jpeg_exif(tiff(short(6))))
    assert int(orientation(tf.constant(data))) == 6
    assert turned_upright(decode_rgb(data), tf.constant(data)).shape == (12, 9, 3)


SIX, THREE = tiff(short(6)), tiff(short(3))
PLACED = {
    "jpeg, before the tables": jpeg_with(jpeg_exif(SIX)),
    "jpeg, before the frame": jpeg_with(jpeg_exif(SIX), before=0xC0),
    "jpeg, before the codes": jpeg_with(jpeg_exif(SIX), before=0xC4),
    "jpeg, before the scan": jpeg_with(jpeg_exif(SIX), before=0xDA),
    "jpeg, behind other segments": jpeg_with(
        segment(0xE0, b"JFIF\0\1\1\1\0\x48\0\x48\0\0"), segment(0xFE, b"Exif\0\0"), jpeg_exif(SIX)
    ),
    "jpeg, behind fill bytes": jpeg_with(b"\xff\xff\xff", jpeg_exif(SIX)),
    "jpeg, behind another APP1": jpeg_with(segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0"), jpeg_exif(SIX)),
    "jpeg, named twice": jpeg_with(jpeg_exif(b"Exif\0\0" + SIX)),
    "png, before the pixels": png_with(png_chunk(b"eXIf", SIX)),
    "png, behind the pixels": png_with(png_chunk(b"eXIf", SIX), before=b"IEND"),
    "png, named": png_with(png_chunk(b"eXIf", b"Exif\0\0" + SIX)),
    "webp": webp_with((b"EXIF", SIX), flags=8),
    "webp, named": webp_with((b"EXIF", b"Exif\0\0" + SIX), flags=8),
    "webp, behind an odd chunk": webp_with((b"odd ", b"odd"), (b"EXIF", SIX), flags=8),
    "jpeg, xmp alone": jpeg_with(jpeg_xmp('tiff:Orientation="6"')),
    "jpeg, xmp as an element": jpeg_with(jpeg_xmp("/><tiff:Orientation>6</tiff:Orientation><a")),
    "jpeg, xmp beside exif without a tag": jpeg_with(
        jpeg_xmp('tiff:Orientation="6"'), jpeg_exif(tiff((1, 3, 1, bytes(4))))
    ),
    "jpeg, exif wins over xmp": jpeg_with(jpeg_xmp('tiff:Orientation="3"'), jpeg_exif(SIX)),
    "png, xmp": png_with(png_xmp('tiff:Orientation="6"')),
    "png, xmp behind the pixels": png_with(png_xmp('tiff:Orientation="6"'), before=b"IEND"),
    "webp, xmp": webp_with((b"XMP ", xmp('tiff:Orientation="6"')), flags=4),
    "big endian": jpeg_with(jpeg_exif(tiff(short(6, ">"), order=">"))),
    "swapped version": jpeg_with(jpeg_exif(tiff(short(6), header=b"II\0*"))),
    "long": jpeg_with(jpeg_exif(tiff((ORIENTATION, 4, 1, b"\6\0\0\0")))),
    "two values": jpeg_with(jpeg_exif(tiff((ORIENTATION, 3, 2, b"\6\0\1\0")))),
    "three values elsewhere": jpeg_with(
        jpeg_exif(tiff((ORIENTATION, 3, 3, struct.pack("<I", 26)), tail=b"\6\0\1\0\1\0"))
    ),
    "an unknown type first": jpeg_with(jpeg_exif(tiff((ORIENTATION, 99, 1, b"\3\0\0\0"), short(6)))),
    "directory not at 8": jpeg_with(jpeg_exif(b"II*\0\x0c\0\0\0abcd" + tiff(short(6))[8:])),
}


@pytest.mark.parametrize("name", PLACED)
def test_the_tag_is_found_wherever_it_stands(name):
    assert pillows_tag(PLACED[name]) == 6
    np.testing.assert_array_equal(_traced_upright(PLACED[name]), open_image(PLACED[name]))


NONE = {
    "empty": jpeg_with(jpeg_exif(b"")),
    "no directory": jpeg_with(jpeg_exif(b"II*\0")),
    "no such byte order": jpeg_with(jpeg_exif(tiff(short(6), header=b"XX*\0"))),
    "64-bit": jpeg_with(jpeg_exif(tiff(short(6), header=b"II+\0"))),
    "not exif at all": png_with(png_chunk(b"eXIf", b"nothing of the kind"), png_xmp('tiff:Orientation="6"')),
    "directory far away": jpeg_with(jpeg_exif(tiff(short(6), directory=2**32 - 1))),
    "cut in the entry": jpeg_with(jpeg_exif(tiff(short(6))[:20])),
    "behind a value that is cut": jpeg_with(jpeg_exif(tiff((1, 2, 20, struct.pack("<I", 30)), short(6)))),
    "a byte": jpeg_with(jpeg_exif(tiff((ORIENTATION, 1, 1, b"\6\0\0\0")))),
    "no value": jpeg_with(jpeg_exif(tiff((ORIENTATION, 3, 0, b"\6\0\0\0")))),
    "zero": jpeg_with(jpeg_exif(tiff(short(0)))),
    "nine": jpeg_with(jpeg_exif(tiff(short(9)))),
    "in the scan": jpeg_with(b"").replace(b"\xff\xd9", jpeg_exif(SIX) + b"\xff\xd9"),
    "webp without the flag": webp_with((b"EXIF", SIX), flags=0),
    "xmp of nine": jpeg_with(jpeg_xmp('tiff:Orientation="9"')),
    "xmp without a digit": jpeg_with(jpeg_xmp('tiff:Orientation="x"')),
}


@pytest.mark.parametrize("name", NONE)
def test_a_tag_that_pillow_does_not_see_turns_nothing(name):
    assert pillows_tag(NONE[name]) == 0
    np.testing.assert_array_equal(_traced_upright(NONE[name]), open_image(NONE[name]))


def test_a_broken_block_beside_a_resolution_loses_no_image():
    # Of this one Pillow's exif_transpose itself raises SyntaxError.
    data = jpeg_with(segment(0xE0, b"JFIF\0\1\1\1\0\x48\0\x48\0\0"), jpeg_exif(b"nothing of the kind"))
    with pytest.raises(SyntaxError):
        ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert open_image(data).shape == (9, 12, 3)
    np.testing.assert_array_equal(_traced_upright(data), open_image(data))


_entries = st.lists(
    st.tuples(
        # As fractions and floats the tag is known to differ.
        st.sampled_from([0x010F, 0x011A, 0x8769]),
        st.integers(0, 20),
        st.sampled_from([0, 1, 2, 3, 5, 70, 2**32 - 1]),
        st.one_of(st.binary(min_size=4, max_size=4), st.integers(0, 60).map(lambda n: struct.pack("<I", n))),
    ),
    max_size=4,
    unique_by=lambda entry: entry[0],
)
_tags = st.tuples(
    st.just(ORIENTATION),
    st.sampled_from([0, 1, 2, 3, 4, 6, 7, 8, 9, 13, 14, 16, 17, 65535]),
    st.sampled_from([0, 1, 1, 1, 2, 4, 2**31]),
    st.integers(0, 9).map(lambda n: bytes([n, 0, 0, 0])),
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    before=_entries,
    tag=_tags,
    order=st.sampled_from("<>"),
    header=st.sampled_from([None, None, None, b"MM\0+", b"II\0*", b"II*\1"]),
    directory=st.sampled_from([8, 8, 8, 0, 9, 14, 2**31]),
    tail=st.binary(max_size=12),
    cut=st.one_of(st.none(), st.integers(0, 70)),
)
@example([], (ORIENTATION, 8, 1, b"\6\0\0\0"), "<", None, 8, b"", None)
def test_broken_blocks_are_read_as_far_as_pillow_reads_them(before, tag, order, header, directory, tail, cut):
    if order == ">":
        tag = (*tag[:3], tag[3][1::-1] + tag[3][:1:-1])
    block = tiff(*before, tag, order=order, header=header, directory=directory, tail=tail)[:cut]
    data = png_with(png_chunk(b"eXIf", block))
    tag = tag_of(data)
    assert (tag if tag in TURNED else 0) == pillows_tag(data)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    st.sampled_from([PLACED["jpeg, before the scan"], PLACED["png, xmp"], PLACED["webp, behind an odd chunk"]]),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=5),
    st.floats(0, 1),
)
def test_no_bytes_stop_the_search(data, changes, kept):
    data = bytearray(data)
    for place, value in changes:
        data[int(place * len(data))] = value
    assert tag_of(bytes(data[: int(kept * len(data))])) >= 0


def test_a_file_cut_short_anywhere_does_not_stop_the_search():
    for data in (data for name, data in PLACED.items() if "behind" in name):
        for end in range(len(data)):
            assert tag_of(data[:end]) in (0, 1, 6)


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8\xff" + b"\xff\xe0\0\2" * 1_000_000,
        b"\x89PNG\r\n\x1a\n" + png_chunk(b"none", b"") * 400_000,
        b"RIFF\0\0\0\0WEBPVP8X\x0a\0\0\0\x0c" + bytes(5_000_000),
    ],
    ids=["jpeg", "png", "webp"],
)
def test_millions_of_blocks_take_no_time(data):
    begin = time.monotonic()
    assert tag_of(data) == 0
    assert time.monotonic() - begin < 3  # about 0.1 s; all of them would be 10 s
    assert MAX_BLOCKS < 100_000


def test_a_large_file_is_not_copied():
    resource = pytest.importorskip("resource")
    body = zlib.compress(bytes(16), 0) + bytes(50_000_000)
    data = tf.constant(png_with(png_chunk(b"IDAT", body), png_chunk(b"eXIf", SIX), before=b"IEND"))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert tag_of(data) == 6
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < 20  # MiB


@pytest.fixture(scope="module", params=[True, False], ids=["upright", "as it lies"])
def processor(request, tiny_tokenizer):
    return CLIPProcessor(CLIPFeatureExtractorTF(size=10, crop_size=10, apply_exif=request.param), tiny_tokenizer)


@pytest.mark.slow
@pytest.mark.parametrize("file_format", FORMATS)
def test_a_path_its_bytes_and_a_string_tensor_give_the_same_values(processor, tmp_path, file_format):
    exif = Image.Exif()
    exif[ORIENTATION] = 8
    path = tmp_path / "turned"
    path.write_bytes(written(IMAGE, file_format, exif=exif))
    image = Image.open(path)
    expected = ImageOps.exif_transpose(image) if processor.image_processor.apply_exif else image
    wanted = processor(images=expected)["pixel_values"]
    data = path.read_bytes()
    for images in (path, str(path), data, [data, path], tf.constant(data), tf.constant([data])):
        for row in processor(images=images)["pixel_values"]:
            np.testing.assert_array_equal(row, wanted[0])
    dataset = tf.data.Dataset.from_tensors([data]).map(processor.image_processor)
    np.testing.assert_array_equal(next(iter(dataset))["pixel_values"], wanted)


@pytest.mark.usefixtures("no_graphs")
def test_pil_images_and_pixels_are_taken_as_they_lie(tmp_path):
    path = tmp_path / "turned.png"
    path.write_bytes(PLACED["png, before the pixels"])
    extractor = CLIPFeatureExtractorTF(size=10, crop_size=10)
    image = Image.open(path)
    np.testing.assert_array_equal(extractor(image)["pixel_values"], extractor(np.asarray(image))["pixel_values"])
    assert (extractor(image)["pixel_values"].numpy() != extractor(path.read_bytes())["pixel_values"].numpy()).any()
