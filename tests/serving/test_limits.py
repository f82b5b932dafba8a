"""Requests that are too large, too many or too slow are turned away, and cost the others nothing."""

import asyncio
import re
import socket
import threading
import time
from urllib.parse import urlsplit

import httpx
import pytest
from starlette.requests import Request

from helpers.serving.running import LocalServer, serve_here
from tf_clip.cli.main import main
from tf_clip.serving import limits
from tf_clip.serving.errors import RequestError
from tf_clip.serving.limits import ConcurrencyLimit

pytestmark = pytest.mark.process

MODEL = "/v1/models/clip:predict"
SLOW = 1000  # rounds: a second or two


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
    slow = {"signature_name": "slow", "inputs": [SLOW]}
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(small_server.predict(slow))) for _ in range(2)]
    for thread in threads:
        thread.start()
    wait_until_in_flight(small_server, 2)
    refused = small_server.predict({"signature_name": "encode_text", "inputs": ["a"]})
    # The page and the status need no slot.
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
        slow = {"signature_name": "slow", "inputs": [SLOW]}
        thread = threading.Thread(target=lambda: answers.append(server.predict(slow)))
        thread.start()
        wait_until_in_flight(server, 1)
        server.process.terminate()
        with pytest.raises(httpx.TransportError):  # nobody new is let in
            for _ in range(1000):
                httpx.get(server.url + "/v2/health/live", trust_env=False)
        thread.join(60)
        assert answers[0].status_code == 200 and answers[0].json() == {"outputs": [SLOW]}


@pytest.mark.parametrize("argument", ["port", "grpc_port"])
def test_a_port_that_is_taken(plain_model, argument):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        option = "--" + argument.replace("_", "-")
        with pytest.raises(ValueError, match=f"`{argument}` .*127.0.0.1:{port}.*{option}"):
            serve_here(plain_model, **{"port": 0, argument: port})


def test_the_command_says_what_is_wrong_and_ends_with_2(tmp_path, capsys):
    assert main(["serve", str(tmp_path / "missing")]) == 2
    assert str(tmp_path / "missing") in capsys.readouterr().err


def body_of(receive, headers=(), *, max_bytes=10):
    return asyncio.run(limits.read_body(Request({"type": "http", "headers": headers}, receive), max_bytes))


def test_a_sender_that_stops_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(limits, "SECONDS_FOR_A_BODY", 0.05)

    async def never():
        await asyncio.sleep(3600)

    with pytest.raises(RequestError, match="seconds") as refused:
        body_of(never)
    assert refused.value.status == 408


def test_a_sender_that_goes_away_is_no_failure_of_the_server():
    async def gone():
        return {"type": "http.disconnect"}

    with pytest.raises(RequestError, match="connection") as refused:
        body_of(gone)
    assert refused.value.status == 400


def test_the_length_of_a_body_is_counted_and_not_believed():
    parts = iter([b"12345", b"67890", b"1", b"never read"])

    async def receive():
        return {"type": "http.request", "body": next(parts), "more_body": True}

    with pytest.raises(RequestError, match="at most") as refused:
        body_of(receive, [(b"content-length", b"3")])
    assert refused.value.status == 413 and list(parts) == [b"never read"]


def test_a_slot_is_free_again_after_an_error():
    limit = ConcurrencyLimit(1)
    for _ in range(3):
        with pytest.raises(KeyError), limit.slot():
            raise KeyError
    with limit.slot(), pytest.raises(RequestError, match="try again"), limit.slot():
        pass
