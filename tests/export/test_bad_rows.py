"""A row that cannot be read costs its own row, and says why."""

import struct
import zlib

import numpy as np
import pytest
import tensorflow as tf

from helpers.served_models import encoded
from tf_clip.export.savedmodel.graph import EncodingGraph, Limits
from tf_clip.export.weights import StoredWeights
from tf_clip.preprocessing.images.decode import MAX_PIXELS

pytestmark = pytest.mark.slow

GOOD = encoded("JPEG", (90, 60, 3))
NOT_AN_IMAGE = b"not a JPEG, PNG, WebP or GIF file"
BROKEN = b"the file is broken or cut short"
TOO_MANY_PIXELS = f"more than {MAX_PIXELS} pixels".encode()
TOO_LONG = b"more than 65536 bytes of text"


def png_header(width, height):
    """Returns a PNG that says its size and has nothing else."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


def large_gif():
    """Returns a GIF whose frame is larger than its screen, and more than any machine should unpack."""
    data = bytearray(encoded("GIF", (4, 4, 3)))
    at = data.index(b"\x2c", 13 + 3 * (2 << (data[10] & 7)))
    data[at + 5 : at + 9] = struct.pack("<HH", 65_535, 65_535)
    return bytes(data)


BAD_FILES = {
    "empty": (b"", NOT_AN_IMAGE),
    "a text": (b"hello", NOT_AN_IMAGE),
    "a BMP": (encoded("BMP"), NOT_AN_IMAGE),
    "a JPEG cut short": (GOOD[: len(GOOD) // 2], BROKEN),
    "a JPEG's first bytes": (b"\xff\xd8\xff", BROKEN),
    "a PNG cut short": (encoded("PNG")[:200], BROKEN),
    "a PNG's first bytes": (b"\x89PNG\r\n\x1a\n", BROKEN),
    "a PNG with a wrong byte": (encoded("PNG")[:90] + b"!!!!" + encoded("PNG")[94:], BROKEN),
    "a GIF cut short": (encoded("GIF")[:900], BROKEN),
    "a GIF's first bytes": (b"GIF89a", BROKEN),
    "a WebP cut short": (encoded("WebP")[:100], BROKEN),
    "a WebP's first bytes": (b"RIFF\0\0\0\0WEBP", BROKEN),
    "a PNG of no pixels": (png_header(0, 0), BROKEN),
    "a PNG of 40 000 x 40 000": (png_header(40_000, 40_000), TOO_MANY_PIXELS),
    "a PNG of 2^32 x 2^32": (png_header(2**32 - 1, 2**32 - 1), TOO_MANY_PIXELS),
    "a GIF of 65 535 x 65 535": (large_gif(), TOO_MANY_PIXELS),
}


def graph_of(small, **changes):
    limits = Limits("status", MAX_PIXELS, 1_000)._replace(**changes)
    return EncodingGraph(StoredWeights(small[0], "float32"), small[1], limits)


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_costs_its_own_row(served, name):
    data, reason = BAD_FILES[name]
    found = served["encode_image"](image_bytes=[GOOD, data, GOOD])
    assert found["status"].tolist() == [b"ok", reason, b"ok"]
    assert not found["image_embeds"][1].any()
    alone = served["encode_image"](image_bytes=[GOOD])["image_embeds"]
    np.testing.assert_allclose(found["image_embeds"][[0, 2]], np.repeat(alone, 2, axis=0), rtol=0, atol=1e-6)


def test_one_bad_file_of_64(served):
    files = [encoded("JPEG", (40, 50, 3), seed) for seed in range(64)]
    good = served["encode_image"](image_bytes=files)["image_embeds"]
    files[17] = files[17][:300]
    found = served["encode_image"](image_bytes=files)
    assert [index for index, status in enumerate(found["status"]) if status != b"ok"] == [17]
    good[17] = 0
    np.testing.assert_allclose(found["image_embeds"], good, rtol=0, atol=1e-6)


def test_nothing_but_bad_files(served):
    found = served["classify"](image_bytes=[data for data, _ in BAD_FILES.values()])
    assert found["status"].tolist() == [reason for _, reason in BAD_FILES.values()]
    assert not found["scores"].any() and not found["probabilities"].any()
    assert set(found["labels"].ravel()) == {b""}


def test_a_file_of_more_pixels_than_this_model_takes(small):
    graph = graph_of(small, max_pixels=90 * 60)
    _, status = graph.image_bytes(tf.constant([GOOD, encoded("PNG", (90, 61, 3)), encoded("WebP", (91, 60, 3))]))
    assert status.numpy().tolist() == [b"ok", b"more than 5400 pixels", b"more than 5400 pixels"]


def test_a_text_that_is_too_long_costs_its_own_row(served):
    found = served["encode_text"](text=["owl", "a" * 65_537, "a " * 32_768, b"\xff\xfe caf\xc3"])
    assert found["status"].tolist() == [b"ok", TOO_LONG, b"ok", b"ok"]
    assert not found["text_embeds"][1].any()
    alone = served["encode_text"](text=["owl"])["text_embeds"]
    np.testing.assert_allclose(found["text_embeds"][:1], alone, rtol=0, atol=1e-6)


def test_unknown_tokens_cost_their_own_row(served):
    ids = np.int32([[4512, 3, 4513], [4512, 4514, 4513], [4512, -1, 4513]])
    found = served["encode_tokens"](input_ids=ids)
    assert found["status"].tolist() == [b"ok", *[b"a token id outside 0..4513"] * 2]
    assert found["text_embeds"][0].any() and not found["text_embeds"][1:].any()


@pytest.mark.parametrize("length", [0, 33])
def test_rows_of_tokens_that_no_text_has_are_an_error(served, length):
    with pytest.raises(tf.errors.InvalidArgumentError, match=f"must have 1 to 32 columns. Received: {length}. Cut"):
        served["encode_tokens"](input_ids=np.ones((2, length), np.int32))


def test_pixels_of_no_size_are_an_error(served):
    with pytest.raises(tf.errors.InvalidArgumentError, match="must be of at least one row and one column"):
        served["encode_image_pixels"](image_pixels=np.zeros((2, 0, 4, 3), np.uint8))


def test_bad_rows_take_no_part_in_the_similarities_of_others(served):
    texts = ["owl", "bus"]
    good = served["similarity"](image_bytes=[GOOD], text=texts)
    found = served["similarity"](image_bytes=[b"", GOOD], text=["owl", "x" * 70_000, "bus"])
    assert found["image_status"].tolist() == [NOT_AN_IMAGE, b"ok"]
    assert found["text_status"].tolist() == [b"ok", TOO_LONG, b"ok"]
    for name in ("logits_per_image", "probabilities"):
        assert not found[name][0].any() and not found[name][:, 1].any()
        np.testing.assert_allclose(found[name][1, [0, 2]], good[name][0], rtol=0, atol=1e-5)
    nothing = served["similarity"](image_bytes=[GOOD], text=["x" * 70_000])
    assert nothing["probabilities"].tolist() == nothing["logits_per_image"].tolist() == [[0.0]]


def test_a_pair_is_as_good_as_its_worse_half(served):
    found = served["similarity_pairs"](
        image_bytes=[GOOD, b"", GOOD, b""], text=["owl", "owl", "x" * 70_000, "x" * 70_000]
    )
    assert found["status"].tolist() == [b"ok", NOT_AN_IMAGE, TOO_LONG, NOT_AN_IMAGE]
    assert found["logits"][0] != 0 and not found["logits"][1:].any()


def test_a_bad_row_can_be_an_error(small):
    graph = graph_of(small, on_bad_row="error")
    with pytest.raises(tf.errors.InvalidArgumentError, match="`image_bytes`.* Received: row 1, not a JPEG, PNG"):
        graph.image_bytes(tf.constant([GOOD, b"?", b""]))
    with pytest.raises(tf.errors.InvalidArgumentError, match="`text`.* Received: row 0, more than 1000 bytes of text"):
        graph.text(tf.constant(["a" * 1001, "b"]))
    with pytest.raises(tf.errors.InvalidArgumentError, match="`input_ids`.* Received: row 2, a token id outside"):
        tf.function(graph.input_ids)(tf.constant([[1], [2], [514]]))
    embeds, status = graph.image_bytes(tf.constant([GOOD, GOOD]))
    assert status.numpy().tolist() == [b"ok", b"ok"] and np.all(embeds)
    assert graph.text(tf.constant([], tf.string))[0].shape == (0, 28)


@pytest.mark.parametrize(
    ("name", "inputs"),
    [
        ("encode_image", {"image_bytes": [1.5]}),
        ("encode_image", {"image_bytes": [[GOOD]]}),
        ("encode_text", {"text": "no row"}),
        ("encode_tokens", {"input_ids": [1.5]}),
        ("encode_image_pixels", {"image_pixels": np.zeros((1, 4, 4, 4), np.uint8)}),
    ],
)
def test_another_type_or_shape_is_an_error(served, name, inputs):
    with pytest.raises((tf.errors.InvalidArgumentError, TypeError, ValueError)):
        served[name](**inputs)
