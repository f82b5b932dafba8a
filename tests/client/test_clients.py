"""Both clients: rows, batches, order, statuses, inputs of every kind."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from helpers.fake_model_server import IMAGE, NO_IMAGE, WIDTH, embedding
from tf_clip.client import ServingError


def image(number):
    return IMAGE + bytes([number])


def test_rows_come_back_in_order_whatever_the_batches(connect, server):
    images = [image(number) for number in range(23)]
    expected = np.stack([embedding(image) for image in images])
    for options in ({"batch_size": 23}, {"batch_size": 5}, {"batch_size": 2, "concurrency": 4}):
        server.seen.clear()
        result = connect(**options).encode_images(images)
        np.testing.assert_allclose(result.embeds, expected, atol=1e-6)
        assert result.embeds.dtype == np.float32
        assert result.status == ["ok"] * 23 and result.ok.all()
        sizes = [len(inputs["image_bytes"]) for _, inputs in server.seen]
        assert sum(sizes) == 23 and max(sizes) == min(23, options["batch_size"])


def test_concurrency_is_bounded(connect, server):
    connect(batch_size=1, concurrency=3).encode_texts([str(number) for number in range(20)])
    assert 1 < server.most_under_way <= 3


def test_a_client_serves_several_threads(connect):
    from concurrent.futures import ThreadPoolExecutor

    client = connect(batch_size=2)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda word: client.encode_texts([word] * 3), "abcdefgh"))
    for word, answer in zip("abcdefgh", answers, strict=True):
        np.testing.assert_allclose(answer.embeds, [embedding(word.encode())] * 3, atol=1e-6)


def test_texts_of_any_kind(connect, server):
    texts = ["an owl", "", "ünï €", b"\xff\xfe", "half a pair \ud83d"]
    connect().encode_texts(texts)
    sent = server.seen[0][1]["text"]
    assert sent == [b"an owl", b"", "ünï €".encode(), b"\xff\xfe", b"half a pair \xed\xa0\xbd"]


def test_images_of_any_kind(connect, server, tmp_path):
    pixels = np.arange(4 * 3 * 3, dtype=np.uint8).reshape(4, 3, 3)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    data = (tmp_path / "a.png").read_bytes()
    connect().encode_images([tmp_path / "a.png", str(tmp_path / "a.png"), data, pixels, Image.fromarray(pixels)])
    sent = server.seen[0][1]["image_bytes"]
    assert sent[:3] == [data] * 3
    for one in sent:
        np.testing.assert_array_equal(Image.open(io.BytesIO(one)), pixels)


def test_a_bad_row_loses_nothing(connect, server, tmp_path):
    images = [image(0), b"no image", tmp_path / "missing.png", image(3), tmp_path]
    result = connect(batch_size=2).encode_images(images)
    assert result.ok.tolist() == [True, False, False, True, False]
    assert result.status[1] == NO_IMAGE
    assert result.status[2] == "the file cannot be read: No such file or directory"
    np.testing.assert_allclose(result.embeds[[0, 3]], [embedding(image(0)), embedding(image(3))], atol=1e-6)
    assert not result.embeds[~result.ok].any()
    assert sum(len(inputs["image_bytes"]) for _, inputs in server.seen) == 3  # what cannot be read is not sent


def test_a_bad_row_is_an_error_by_option(connect, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    client = connect(on_bad_row="raise", batch_size=2)
    with pytest.raises(ServingError, match=r"row 2 \(bytes\): not a JPEG.*on_bad_row=\"status\""):
        client.encode_images([image(0), image(1), b"no image"])
    with pytest.raises(ServingError, match=r"row 1 \('missing.png'\): the file cannot be read"):
        client.similarity([image(0), "missing.png"], ["a"])


def test_nothing_readable_and_nothing_at_all_have_the_right_shapes(connect, server, tmp_path):
    client = connect()
    assert client.encode_texts([]).embeds.shape == (0, WIDTH)
    result = client.classify([tmp_path / "missing.png"])
    assert result.labels.tolist() == [["", ""]] and result.probabilities.tolist() == [[0, 0, 0]]
    assert not server.seen


def test_classify(connect):
    result = connect(batch_size=2).classify([image(0), b"no image", image(2)])
    assert result.labels.tolist() == [["owl", "bus"], ["", ""], ["owl", "bus"]]
    np.testing.assert_allclose(result.scores[0], embedding(image(0))[:2], atol=1e-6)
    assert result.probabilities.shape == (3, 3) and result.status == ["ok", NO_IMAGE, "ok"]


def test_similarity_sends_all_texts_with_every_batch(connect, server, tmp_path):
    images = [image(0), image(1), tmp_path / "missing.png", image(3), b"no image"]
    result = connect(batch_size=2, concurrency=2).similarity(images, ["a", "b"])
    texts = np.stack([embedding(b"a"), embedding(b"b")])
    for row in (0, 1, 3):
        np.testing.assert_allclose(result.logits_per_image[row], texts @ embedding(images[row]), atol=1e-6)
    assert not result.logits_per_image[[2, 4]].any() and not result.probabilities[[2, 4]].any()
    assert [status == "ok" for status in result.image_status] == [True, True, False, True, False]
    assert result.text_status == ["ok", "ok"]
    assert [inputs["text"] for _, inputs in server.seen] == [[b"a", b"b"]] * 3


def test_similarity_of_nothing_readable(connect, tmp_path):
    result = connect().similarity([tmp_path / "missing.png"], ["a", "b"])
    assert result.logits_per_image.tolist() == [[0, 0]]
    assert result.text_status == ["not sent: no image could be read"] * 2
    with pytest.raises(ValueError, match="must not be empty. Received: 0 images, 1 texts"):
        connect().similarity([], ["a"])


def test_similarity_pairs(connect):
    result = connect(batch_size=2).similarity_pairs([image(0), image(1), image(2)], ["a", "b", "c"])
    expected = [embedding(image(row)) @ embedding(text) for row, text in enumerate([b"a", b"b", b"c"])]
    np.testing.assert_allclose(result.logits, expected, atol=1e-6)
    assert result.status == ["ok"] * 3
    with pytest.raises(ValueError, match="the same length. Received: 1 images, 2 texts"):
        connect().similarity_pairs([image(0)], ["a", "b"])


def test_metadata(connect):
    described = connect().metadata()
    assert (described["name"], described["version"]) == ("clip", 1)
    assert list(described["signatures"]) == ["classify", "encode_image", "encode_text"]
    assert described["signatures"]["encode_image"] == {
        "inputs": {"image_bytes": {"dtype": "string", "shape": [None]}},
        "outputs": {
            "image_embeds": {"dtype": "float32", "shape": [None, WIDTH]},
            "status": {"dtype": "string", "shape": [None]},
        },
    }


def test_is_ready(connect, server):
    assert connect().is_ready()
    assert not connect(model="other").is_ready()
    server.state = "LOADING"
    client = connect()
    assert not client.is_ready()
    server.stop()
    assert not client.is_ready()


def test_version_label_and_headers_are_sent(connect, server):
    connect(version=3, headers={"Authorization": "Bearer secret"}).encode_texts(["a"])
    connect(label="canary").encode_texts(["a"])
    first, second = server.headers
    if server.protocol == "rest":
        assert first["path"] == "/v1/models/clip/versions/3:predict" and first["Authorization"] == "Bearer secret"
        assert second["path"] == "/v1/models/clip/labels/canary:predict"
    else:
        assert first["spec"].version.value == 3 and first["authorization"] == "Bearer secret"
        assert second["spec"].version_label == "canary"


def test_repr_keeps_secrets(connect, server):
    shown = repr(connect(headers={"Authorization": "Bearer secret"}))
    assert server.address in shown and "model='clip'" in shown and "secret" not in shown


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "`batch_size` must be at least 1. Received: batch_size=0"),
        ({"retries": -1}, "`retries` must be at least 0"),
        ({"timeout": 0}, "`timeout` must be a number of seconds above 0"),
        ({"deadline": -1.0}, "`deadline` must be a number of seconds above 0"),
        ({"on_bad_row": "skip"}, "`on_bad_row` must be one of"),
        ({"version": 1, "label": "a"}, "must not both be given"),
    ],
)
def test_arguments_out_of_range(connect, options, message):
    with pytest.raises(ValueError, match=message):
        connect(**options)


def test_inputs_of_the_wrong_kind_are_refused_before_anything_is_sent(connect, server):
    client = connect(batch_size=1)
    for images, error, message in (
        ("owl.png", TypeError, "must be a list"),
        ([image(0), 3], TypeError, "int at index 1"),
        ([np.zeros((2, 2, 3))], ValueError, "float64 of shape"),
        ([np.zeros((2, 2), np.uint8)], ValueError, r"\[height, width, 3\]"),
    ):
        with pytest.raises(error, match=message):
            client.encode_images(images)
    for texts, message in (("owl", "must be a list"), (["owl", None], "NoneType at index 1")):
        with pytest.raises(TypeError, match=message):
            client.encode_texts(texts)
    assert not server.seen
