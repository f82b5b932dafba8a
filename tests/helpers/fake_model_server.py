"""A model of arithmetic, and the REST side of a server for it that fails as it is told."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler
from typing import Any

import numpy as np

WIDTH = 5
IMAGE = b"\x89PNG\r\n\x1a\n"
NO_IMAGE = "not a JPEG, PNG, WebP or GIF file"

SHAPES = {
    "encode_image": ({"image_bytes": ("string", [None])}, {"image_embeds": [None, WIDTH], "status": [None]}),
    "encode_text": ({"text": ("string", [None])}, {"text_embeds": [None, WIDTH], "status": [None]}),
    "classify": (
        {"image_bytes": ("string", [None])},
        {"labels": [None, 2], "scores": [None, 2], "probabilities": [None, 3], "status": [None]},
    ),
}


def embedding(data: bytes) -> Any:
    """A unit vector that tells one input from another."""
    values = np.frombuffer(hashlib.sha256(data).digest()[: 4 * WIDTH], np.uint32).astype(np.float64) - 2**31
    return (values / np.linalg.norm(values)).astype(np.float32)


def status_of(data: bytes) -> Any:
    return "ok" if data.startswith(IMAGE) else NO_IMAGE


def predict(signature: str, inputs: Any) -> Any:
    """The answer to one request: from a name to an array."""
    if signature == "encode_text":
        texts = inputs["text"]
        return {"text_embeds": np.stack([embedding(text) for text in texts]), "status": np.array(["ok"] * len(texts))}
    images = inputs["image_bytes"]
    status = np.array([status_of(image) for image in images])
    good = (status == "ok")[:, None]
    embeds = np.stack([embedding(image) for image in images]) * good
    if signature == "encode_image":
        return {"image_embeds": embeds, "status": status}
    if signature == "classify":
        labels = np.where(good, np.array([["owl", "bus"]]), "")
        return {"labels": labels, "scores": embeds[:, :2], "probabilities": embeds[:, :3], "status": status}
    texts = np.stack([embedding(text) for text in inputs["text"]])
    if signature == "similarity_pairs":
        return {"logits": (embeds * texts).sum(1), "status": status}
    logits = embeds @ texts.T
    return {
        "logits_per_image": logits,
        "probabilities": np.exp(logits) / np.exp(logits).sum(1, keepdims=True) * good,
        "image_status": status,
        "text_status": np.array(["ok"] * len(texts)),
    }


class FakeServer:
    """What both fakes share.

    Attributes:
        script: what happens to the next predictions, one entry each; nothing left is an answer.
        seen: the predictions received: (signature, inputs).
    """

    def __init__(self) -> None:
        self.script: list[Any] = []
        self.seen: list[Any] = []
        self.headers: list[Any] = []
        self.lock = threading.Lock()
        self.under_way = self.most_under_way = 0
        self.state = "AVAILABLE"

    def next_step(self, signature: str, inputs: Any) -> Any:
        with self.lock:
            self.seen.append((signature, inputs))
            return self.script.pop(0) if self.script else "answer"

    def answer(self, signature: str, inputs: Any) -> Any:
        with self.lock:
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
        time.sleep(0.01)
        with self.lock:
            self.under_way -= 1
        return predict(signature, inputs)


def as_bytes(value: Any) -> Any:
    return base64.b64decode(value["b64"]) if isinstance(value, dict) else value.encode()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    fake: FakeServer

    def log_message(self, *arguments: Any) -> None:
        pass

    def reply(self, code: Any, body: Any, headers: Any = ()) -> None:
        body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers:
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> Any:
        self.fake.headers.append(dict(self.headers))
        if not self.path.startswith("/v1/models/clip"):
            return self.reply(404, {"error": f"Servable not found for request: {self.path}"})
        if self.path.endswith("/metadata"):
            return self.reply(200, rest_metadata())
        return self.reply(200, {"model_version_status": [{"version": "1", "state": self.fake.state}]})

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        inputs = {name: [as_bytes(value) for value in values] for name, values in request["inputs"].items()}
        self.fake.headers.append({**self.headers, "path": self.path, "connection": self.client_address})
        step = self.fake.next_step(request["signature_name"], inputs)
        if step == "cut":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b'{"outputs": {')
            self.close_connection = True
        elif step == "slow":
            time.sleep(0.6)
            self.reply(200, b"{}")
        elif step == "drip":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            for _ in range(8):
                self.wfile.write(b" ")
                self.wfile.flush()
                time.sleep(0.1)
            self.close_connection = True
        elif step == "answer":
            outputs = self.fake.answer(request["signature_name"], inputs)
            self.reply(200, {"outputs": {name: value.tolist() for name, value in outputs.items()}})
        else:
            self.reply(*step)


def rest_metadata() -> Any:
    types = {"string": "DT_STRING", "float32": "DT_FLOAT"}

    def tensor(dtype: Any, shape: Any) -> Any:
        axes = [{"size": str(-1 if size is None else size), "name": ""} for size in shape]
        return {"dtype": types[dtype], "tensor_shape": {"dim": axes, "unknown_rank": False}, "name": "x:0"}

    signatures = {
        name: {
            "inputs": {key: tensor(*one) for key, one in inputs.items()},
            "outputs": {key: tensor(dtype_of(key), shape) for key, shape in outputs.items()},
            "method_name": "tensorflow/serving/predict",
        }
        for name, (inputs, outputs) in SHAPES.items()
    }
    signatures["__saved_model_init_op"] = {"inputs": {}, "outputs": {}, "method_name": ""}
    spec = {"name": "clip", "signature_name": "", "version": "1"}
    return {"model_spec": spec, "metadata": {"signature_def": {"signature_def": signatures}}}


def dtype_of(output: Any) -> Any:
    return "string" if output in ("status", "labels") else "float32"
