"""Whatever is sent, the sender gets a sentence and the next request its answer."""

import base64

import numpy as np
import pytest

from helpers.serving.plain_model import write_plain_model
from tf_clip.serving.errors import RequestError
from tf_clip.serving.loaded_version import LoadedVersion

pytestmark = pytest.mark.process

MODEL = "/v1/models/clip:predict"
IMAGE = {"b64": base64.b64encode(b"\x89PNG").decode()}

BODIES = {
    "no JSON": (b"{", "JSON"),
    "invalid UTF-8": (b'{"instances": ["\xff"]}', "UTF-8"),
    "half a surrogate pair": (b'{"instances": ["\\ud800"]}', "JSON"),
    "nothing": (b"", "JSON"),
    "a list": (b"[]", "instances"),
    "a hundred thousand brackets": (b"[" * 100_000, "JSON"),
    "not a number": (b'{"signature_name": "slow", "inputs": [NaN]}', "JSON"),
}

CALLS = {
    "neither form": ({}, "instances"),
    "both forms": ({"instances": ["a"], "inputs": ["a"]}, "instances"),
    "a key that nothing reads": ({"inputs": ["a"], "signature": "encode_text"}, "'signature'"),
    "an unknown signature": ({"signature_name": "encode", "inputs": ["a"]}, "one of encode_image"),
    "a signature that is no name": ({"signature_name": 3, "inputs": ["a"]}, "string"),
    "an unknown input": ({"signature_name": "encode_text", "inputs": {"texts": ["a"]}}, "text"),
    "a missing input": ({"signature_name": "similarity", "inputs": {"text": ["a"]}}, "image_bytes"),
    "no rows": ({"instances": []}, "at least one"),
    "no rows in a column": ({"signature_name": "encode_text", "inputs": []}, "at least one row"),
    "too many rows": ({"signature_name": "encode_text", "inputs": ["a"] * 129}, "129 rows"),
    "rows that are no list": ({"instances": "a"}, "list"),
    "a number for a string": ({"signature_name": "encode_text", "inputs": [1]}, "string"),
    "null for a string": ({"signature_name": "encode_text", "inputs": [None]}, "string"),
    "a string for a number": ({"signature_name": "encode_tokens", "inputs": [["a"]]}, "int32"),
    "a fraction for an integer": ({"signature_name": "encode_tokens", "inputs": [[1.5]]}, "int32"),
    "an integer too large": ({"signature_name": "encode_tokens", "inputs": [[2**40]]}, "int32"),
    "an integer far too large": ({"signature_name": "encode_tokens", "inputs": [[2**63 - 1]]}, "int32"),
    "a byte out of range": ({"signature_name": "encode_image_pixels", "inputs": [[[[0, 0, 256]]]]}, "uint8"),
    "rows of different length": ({"signature_name": "encode_tokens", "inputs": [[1], [1, 2]]}, "different lengths"),
    "a dimension too few": ({"signature_name": "encode_tokens", "inputs": [1]}, r"[1]"),
    "a dimension too many": ({"signature_name": "encode_text", "inputs": [["a"]]}, "string"),
    "the channels first": ({"signature_name": "encode_image_pixels", "inputs": [[[[0] * 5] * 5] * 3]}, "[1, 3, 5, 5]"),
    "no base64": ({"signature_name": "encode_text", "inputs": [{"b64": "?"}]}, "string"),
    "base64 that is no string": ({"signature_name": "encode_text", "inputs": [{"b64": 1}]}, "string"),
    "sides of different length": (
        {"signature_name": "similarity_pairs", "inputs": {"image_bytes": [IMAGE], "text": ["a", "b"]}},
        "same number",
    ),
}


def check(server, response, status, part):
    assert response.status_code == status, response.text
    assert response.json().keys() == {"error"}
    sentence = response.json()["error"]
    assert part in sentence and "\n" not in sentence and len(sentence) < 500
    assert "Traceback" not in sentence
    assert server.is_well()


@pytest.mark.parametrize("name", BODIES)
def test_bodies(server, name):
    body, part = BODIES[name]
    check(server, server.http.post(MODEL, content=body), 400, part)


@pytest.mark.parametrize("name", CALLS)
def test_calls(server, name):
    body, part = CALLS[name]
    check(server, server.predict(body), 400, part)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/v1/models/clop:predict", 404),
        ("GET", "/v1/models/clop", 404),
        ("GET", "/v1/models/clip/versions/x", 404),
        ("POST", "/v1/models/clip:classify", 405),
        ("POST", "/v2/repository/models/clip/unload", 404),
        ("GET", "/docs", 404),
        ("GET", "/../../etc/passwd", 404),
        ("GET", "/v1/models/clip:predict", 404),
        ("DELETE", "/v1/models/clip", 405),
    ],
)
def test_addresses(server, method, path, status):
    check(server, server.http.request(method, path), status, "")


def test_one_bad_row_among_64_is_that_rows_alone(server):
    images = [IMAGE] * 64
    images[17] = {"b64": base64.b64encode(b"GIF8").decode()}
    outputs = server.columns("encode_image", image_bytes=images)
    assert [index for index, status in enumerate(outputs["status"]) if status != "ok"] == [17]
    assert outputs["image_embeds"][17] == [0.0] * 4 and outputs["image_embeds"][16] == outputs["image_embeds"][18]


def test_strings_of_any_kind_reach_the_model(server):
    texts = ["", "\0", "a" * 2**20, {"b64": base64.b64encode(b"\xff\xfe").decode()}, "🦉"]
    assert server.columns("encode_text", text=texts)["status"] == ["ok"] * 5


def test_a_model_that_fails_on_bad_rows_refuses_the_request_in_one_sentence(tmp_path):
    write_plain_model(tmp_path / "strict", 1, strict=True)
    version = LoadedVersion(tmp_path / "strict" / "1")
    with pytest.raises(RequestError, match="not an image") as refused:
        version.signature("encode_image").run({"image_bytes": np.array([b"\x89PNG", b"no image"], object)})
    assert refused.value.status == 400 and len(refused.value.message) < 400
    version.close()
