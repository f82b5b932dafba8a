"""Requests that are too large, too many or too slow are turned away, and cost the others nothing."""

import asyncio
import json
import re
import socket
import threading
import time
from urllib.parse import urlsplit

import httpx
import pytest

from helpers.serving.running import LocalServer
from tf_clip.serving import limits
from tf_clip.serving.limits import Places, RequestLimits

MODEL = "/v1/models/clip:predict"


@pytest.fixture(scope="module")
def small_server(plain_model):
    """One that takes little."""
    words = ["--max-body-mb", "0.1", "--max-concurrency", "2", "--max-batch-size", "4", "--batch-timeout-ms", "0"]
    with LocalServer(plain_model, *words) as server:
        yield server


def answer_to(server, *parts):
    """Sends parts of a request as they are and returns the response as soon as it has come."""
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
        for part in parts:
            connection.sendall(part)
        data = b""
        while b"\r\n\r\n" not in data or not data.endswith(b"}"):
            piece = connection.recv(65536)
            if not piece:
                break
            data += piece
    return data.decode()


def test_a_body_that_says_it_is_too_long_is_refused_before_it_comes(small_server):
    head = f"POST {MODEL} HTTP/1.1\r\nHost: here\r\nContent-Length: 1000000000\r\n\r\n".encode()
    answer = answer_to(small_server, head)
    assert answer.startswith("HTTP/1.1 413 ") and "0.1 MB" in answer
    assert small_server.is_well()


def test_a_body_in_chunks_is_refused_when_it_has_become_too_long(small_server):
    head = f"POST {MODEL} HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    chunk = b"8000\r\n" + b" " * 0x8000 + b"\r\n"
    assert answer_to(small_server, head, *[chunk] * 4).startswith("HTTP/1.1 413 ")
    assert small_server.is_well()


def test_a_client_that_sends_it_all_gets_the_sentence(small_server):
    response = small_server.http.post(MODEL, content=b" " * 10_000_000)
    assert response.status_code == 413 and "at most 0.1 MB" in response.json()["error"]
    # and the connection is as good as new
    assert small_server.is_well()


@pytest.mark.parametrize("length", ["-1", "many", "1" * 30])
def test_lengths_that_are_none(small_server, length):
    head = f"POST {MODEL} HTTP/1.1\r\nHost: here\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n".encode()
    assert re.match(r"HTTP/1.1 4(00|13) ", answer_to(small_server, head))
    assert small_server.is_well()


def test_more_rows_than_are_allowed(small_server):
    response = small_server.predict({"signature_name": "encode_text", "inputs": ["a"] * 5})
    assert response.status_code == 400 and "batch size 4" in response.json()["error"]
    images_and_texts = {"image_bytes": ["a"], "text": ["a"] * 5}
    assert small_server.predict({"signature_name": "similarity", "inputs": images_and_texts}).status_code == 400


def wait_until_in_flight(server, count):
    deadline = time.monotonic() + 20
    while f"tf_clip_requests_in_flight {count:.1f}" not in server.http.get("/metrics").text:
        assert time.monotonic() < deadline


def test_one_too_many_is_asked_to_come_again(small_server):
    slow = {"signature_name": "slow", "inputs": [3000]}
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(small_server.predict(slow))) for _ in range(2)]
    for thread in threads:
        thread.start()
    wait_until_in_flight(small_server, 2)
    refused = small_server.predict({"signature_name": "encode_text", "inputs": ["a"]})
    # The page and the status have no place to wait for.
    assert small_server.http.get("/v2/health/ready").status_code == 200
    for thread in threads:
        thread.join(60)
    assert refused.status_code == 503
    assert refused.headers["Retry-After"] == "1" and "try again" in refused.json()["error"]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert small_server.is_well()


def test_what_was_begun_is_finished_when_the_server_ends(plain_model):
    with LocalServer(plain_model) as server:
        answers = []
        slow = {"signature_name": "slow", "inputs": [3000]}
        thread = threading.Thread(target=lambda: answers.append(server.predict(slow)))
        thread.start()
        wait_until_in_flight(server, 1)
        server.process.terminate()
        with pytest.raises(httpx.TransportError):  # nobody new is let in
            for _ in range(1000):
                httpx.get(server.url + "/v2/health/live", trust_env=False)
        thread.join(60)
        assert answers[0].status_code == 200 and answers[0].json() == {"outputs": [3000.0]}


def test_a_port_that_is_taken(plain_model, tmp_path):
    import subprocess
    import sys

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        command = [sys.executable, "-m", "tf_clip", "serve", str(plain_model), "--port", port]
        result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 2 and port in result.stderr and "Traceback" not in result.stderr


def in_the_middleware(receive, headers=(), *, max_body=10):
    """Runs a request through the limits alone and returns the status and what the application read."""
    read, sent = [], []

    async def application(scope, receive, send):
        while True:
            message = await receive()
            read.append(message["body"])
            if not message["more_body"]:
                break
        await send({"type": "http.response.start", "status": 200})

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "headers": headers}
    asyncio.run(RequestLimits(application, Places(1), max_body)(scope, receive, send))
    return sent[0]["status"], read, sent


def test_a_sender_that_stops_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(limits, "SECONDS_FOR_A_BODY", 0.05)

    async def never():
        await asyncio.sleep(3600)

    status, read, sent = in_the_middleware(never)
    assert (status, read) == (408, []) and "seconds" in json.loads(sent[1]["body"])["error"]


def test_the_length_of_a_body_is_counted_and_not_believed():
    pieces = iter([b"12345", b"67890", b"1"])

    async def receive():
        return {"type": "http.request", "body": next(pieces), "more_body": True}

    status, read, _ = in_the_middleware(receive, [(b"content-length", b"3")])
    assert (status, read) == (413, [b"12345", b"67890"])


def test_a_place_is_free_again_after_an_error():
    places = Places(1)
    for _ in range(3):
        with pytest.raises(KeyError), places.one():
            raise KeyError
    with places.one(), pytest.raises(limits.RequestError, match="try again"), places.one():
        pass
