"""TensorFlow Serving's REST API as the local server speaks it."""

import base64
import statistics
import subprocess
import sys
import time

import numpy as np
import orjson
import pytest

from helpers import environment
from helpers.serving.plain_model import PlainModel
from tf_clip.serving import json_tensors

pytestmark = pytest.mark.process

PNG = b"\x89PNG and more"
AS_JSON = {"b64": base64.b64encode(PNG).decode()}
MODEL = "/v1/models/clip"


@pytest.fixture(scope="module")
def reference():
    return PlainModel(shift=1.0)


def test_columns_name_every_output(server, reference):
    outputs = server.columns("encode_image", image_bytes=[AS_JSON, "not one"])
    wanted = reference.encode_image([PNG, b"not one"])
    np.testing.assert_allclose(outputs["image_embeds"], wanted["image_embeds"], atol=1e-6)
    assert outputs["status"] == ["ok", "not an image"]
    assert outputs["image_embeds"][1] == [0] * 4


def test_rows_are_answered_by_rows(server):
    body = {"signature_name": "similarity_pairs", "instances": [{"image_bytes": AS_JSON, "text": t} for t in "ab"]}
    rows = server.predict(body).json()["predictions"]
    assert [row.keys() for row in rows] == [{"logits", "status"}] * 2


def test_one_input_needs_no_name_in_either_form(server):
    for key, answer in (("instances", "predictions"), ("inputs", "outputs")):
        bare = server.predict({"signature_name": "encode_text", key: ["a", AS_JSON]}).json()[answer]
        if key == "instances":
            named = [{"text": "a"}, {"text": AS_JSON}]
        else:
            named = {"text": ["a", AS_JSON]}
        assert server.predict({"signature_name": "encode_text", key: named}).json()[answer] == bare


def test_one_output_has_no_name(server):
    pixels = np.full((2, 2, 3, 3), 51).tolist()
    body = {"signature_name": "encode_image_pixels", "instances": pixels}
    np.testing.assert_allclose(server.predict(body).json()["predictions"], np.full((2, 3), 0.2), atol=1e-6)


def test_sides_of_different_length_need_columns(server):
    outputs = server.columns("similarity", image_bytes=[AS_JSON], text=["a", "b", "c"])
    assert np.shape(outputs["probabilities"]) == (1, 3)
    rows = [{"image_bytes": AS_JSON, "text": "a"}]
    assert server.predict({"signature_name": "similarity", "instances": rows}).status_code == 200


def test_the_default_signature(server):
    assert server.predict({"instances": [AS_JSON]}).json()["predictions"][0]["status"] == "ok"


def test_versions_are_addresses_too(server):
    text = {"signature_name": "encode_text", "inputs": ["a"]}
    assert server.http.post(f"{MODEL}/versions/1:predict", json=text).status_code == 200
    for method, path in (("POST", ":predict"), ("GET", ""), ("GET", "/metadata")):
        response = server.http.request(method, f"{MODEL}/versions/7{path}", json=text)
        assert response.status_code == 404 and "7" in response.json()["error"]


def test_what_kind_of_request_it_is_does_not_matter(server):
    # curl sends a form's type with --data; TensorFlow Serving reads JSON whatever the type.
    body = orjson.dumps({"signature_name": "encode_text", "inputs": ["a"]})
    for kind in ("application/x-www-form-urlencoded", "text/plain", "application/cloudevents+json"):
        response = server.http.post(f"{MODEL}:predict", content=body, headers={"Content-Type": kind, "ce-id": "1"})
        assert response.status_code == 200, response.text


def test_status_and_metadata_are_in_tensorflow_servings_words(server):
    (state,) = server.http.get(MODEL).json()["model_version_status"]
    assert state == {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    assert server.http.get(f"{MODEL}/versions/1").json() == {"model_version_status": [state]}
    metadata = server.http.get(f"{MODEL}/metadata").json()
    assert metadata["model_spec"] == {"name": "clip", "signature_name": "", "version": "1"}
    signature = metadata["metadata"]["signature_def"]["signature_def"]["similarity"]
    assert signature["method_name"] == "tensorflow/serving/predict"
    assert signature["inputs"]["text"]["dtype"] == "DT_STRING"
    assert signature["outputs"]["probabilities"]["tensor_shape"]["dim"][0]["size"] == "-1"


def test_health_names_and_metrics(server):
    assert server.http.get("/v2/health/live").json() == {"live": True}
    assert server.http.get("/v2/health/ready").json() == {"ready": True}
    assert server.http.get("/v1/models").json() == {"models": ["clip"]}
    server.is_well()
    metrics = server.http.get("/metrics").text
    assert 'request_predict_seconds_count{model_name="clip"}' in metrics
    assert 'tf_clip_batch_rows_count{signature="encode_text"}' in metrics


def test_an_answer_does_not_wait_for_its_headers_to_be_acknowledged(server):
    """Without TCP_NODELAY each answer on a kept connection takes 40 ms and more, whatever the machine."""
    seconds = []
    for _ in range(20):
        begin = time.perf_counter()
        server.http.get("/v2/health/live")
        seconds.append(time.perf_counter() - begin)
    assert statistics.median(seconds) < 0.035


def test_bytes_of_outputs_that_say_so_are_base64():
    outputs = {"image_bytes": np.array([PNG], object), "label": np.array(["Bär".encode()], object)}
    assert orjson.loads(json_tensors.to_json(outputs, in_rows=False)) == {
        "outputs": {"image_bytes": [AS_JSON], "label": ["Bär"]}
    }
    assert orjson.loads(json_tensors.to_json(outputs, in_rows=True)) == {
        "predictions": [{"image_bytes": AS_JSON, "label": "Bär"}]
    }


WITHOUT_KERAS = """
import sys
for name in ("keras", "tensorflow_text"):
    sys.modules[name] = None  # as if it were not installed
from pathlib import Path
from tf_clip.serving.server import ServerOptions
from tf_clip.serving.versions import Versions
version = Versions(Path(sys.argv[1])).current
print(version.signature("encode_text").run({"text": __import__("numpy").array([b"a"], object)})["status"])
print(sorted({name.split(".")[1] for name in sys.modules if name.startswith("tf_clip.")}))
"""


def test_the_server_needs_neither_keras_nor_tensorflow_text_nor_the_rest_of_tf_clip(plain_model):
    command = [sys.executable, "-c", WITHOUT_KERAS, str(plain_model)]
    result = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=120)
    assert result.stdout.split("\n")[:2] == ["[b'ok']", "['machine', 'serving']"], result.stderr
