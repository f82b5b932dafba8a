"""Both clients against servers that fail: what is sent again, what is not, and what the error says."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from helpers.fake_model_server import IMAGE, embedding
from tf_clip.client import RestClient, ServingError
from tf_clip.client.retries import Deadline, RetryPolicy


def busy(server):
    import grpc

    return (503, {"error": "queue is full"}) if server.protocol == "rest" else (grpc.StatusCode.UNAVAILABLE, "full")


def refusal(server, message):
    import grpc

    return (400, {"error": message}) if server.protocol == "rest" else (grpc.StatusCode.INVALID_ARGUMENT, message)


def test_a_busy_server_is_asked_again(connect, server):
    server.script = [busy(server), busy(server)]
    result = connect().encode_texts(["a"])
    np.testing.assert_allclose(result.embeds, [embedding(b"a")], atol=1e-6)
    assert len(server.seen) == 3


def test_retries_end(connect, server):
    server.script = [busy(server)] * 9
    with pytest.raises(ServingError, match="full .*after 3 attempts") as caught:
        connect(retries=2).encode_texts(["a"])
    assert len(server.seen) == 3
    assert caught.value.code == (503 if server.protocol == "rest" else "UNAVAILABLE")
    assert caught.value.attempts == 3 and caught.value.retryable


def test_what_is_wrong_is_not_sent_again(connect, server):
    server.script = [refusal(server, "Expects arg[0] to be string but float is provided")]
    with pytest.raises(ServingError, match=r"Expects arg\[0\] to be string.*`metadata\(\)` lists") as caught:
        connect().encode_texts(["a"])
    assert len(server.seen) == 1 and not caught.value.retryable


@pytest.mark.parametrize(
    ("message", "advice"),
    [
        ("Task size 2 is larger than maximum input batch size 1", "a `batch_size` of at most that"),
        ('Serving signature name: "classify" not found in signature def', "exported with labels"),
        (
            "Batching session Run() input tensors must have equal 0th dimension size",
            "`similarity` does not allow",
        ),
    ],
)
def test_refusals_say_what_to_do(connect, server, message, advice):
    server.script = [refusal(server, message)]
    with pytest.raises(ServingError) as caught:
        connect().classify([IMAGE])
    assert len(server.seen) == 1
    assert message in str(caught.value) and advice in str(caught.value)


@pytest.mark.parametrize(
    "message", ["Task size 8 is larger than maximum input batch size 3", "`text` must have 1 to 3 rows, received 8"]
)
def test_a_server_that_takes_fewer_rows_gets_fewer(connect, server, message):
    server.script = [refusal(server, message)]
    client = connect(batch_size=8)
    texts = [str(number) for number in range(20)]
    expected = np.stack([embedding(text.encode()) for text in texts])
    np.testing.assert_allclose(client.encode_texts(texts).embeds, expected, atol=1e-6)
    client.encode_texts(texts)
    assert [len(inputs["text"]) for _, inputs in server.seen] == [8, 3, 3, 2, 3, 3, 2, 3, 1] + [3] * 6 + [2]


def test_a_slow_answer_is_asked_for_again_and_then_given_up(connect, server):
    server.script = ["slow"]
    assert connect(timeout=0.2).encode_texts(["a"]).ok.all()
    server.script = ["slow"] * 3
    with pytest.raises(ServingError, match=r"did not answer within 0.2 seconds.*longer `timeout`"):
        connect(timeout=0.2, retries=1).encode_texts(["a"])


def test_the_deadline_bounds_the_whole_call(connect, server):
    server.script = ["slow"] * 9
    start = time.monotonic()
    with pytest.raises(ServingError):
        connect(deadline=0.5, timeout=0.2, retries=9).encode_texts(["a"])
    assert time.monotonic() - start < 0.9
    server.script = ["slow"] * 9
    with pytest.raises(ServingError, match="did not answer within 0.[123]"):
        connect(deadline=0.3).encode_texts(["a"])


def test_a_server_that_comes_back_is_found(connect, server):
    """Refused connections count as busy: here nobody ever listens."""
    server.stop()
    start = time.monotonic()
    with pytest.raises(ServingError, match="after 3 attempts.*Check that the server runs") as caught:
        connect(retries=2).encode_texts(["a"])
    assert caught.value.retryable and time.monotonic() - start < 5


def test_one_failed_batch_fails_the_call_and_the_rest_is_not_sent(connect, server):
    server.script = [refusal(server, "no")] * 2
    with pytest.raises(ServingError, match="no"):
        connect(batch_size=1, concurrency=2).encode_texts([str(number) for number in range(200)])
    assert len(server.seen) < 50


def test_an_answer_of_the_wrong_shape_is_an_error(connect, server):
    def answer(**outputs):
        if server.protocol == "grpc":
            return outputs
        return (200, {"outputs": {name: value.tolist() for name, value in outputs.items()}})

    ok = np.array(["ok", "ok"])
    nan = np.full((2, 3), np.nan, np.float32)
    for outputs, message in (
        ({"text_embeds": np.zeros((3, 4), np.float32), "status": ok}, r"shape \[3, 4\], for 2 rows"),
        ({"text_embeds": np.zeros(2, np.float32), "status": ok}, r"shape \[2\]"),
        ({"text_embeds": np.zeros((2, 4), np.float32)}, "has no status"),
        ({"text_embeds": nan, "status": ok}, "not all are finite"),
        ({"text_embeds": np.zeros((2, 4), np.float32), "status": np.zeros(2)}, "not all are strings"),
    ):
        server.script = [answer(**outputs)]
        with pytest.raises(ServingError, match=message):
            connect().encode_texts(["a", "b"])


def test_a_server_that_batches_similarity_is_found_out(connect, server):
    """With batching on, two calls of equal size come back as one table: its columns are too many."""
    table = np.zeros((2, 4), np.float32)
    ok = np.array(["ok", "ok"])
    outputs = {"logits_per_image": table, "probabilities": table, "image_status": ok, "text_status": ok}
    if server.protocol == "rest":
        server.script = [(200, {"outputs": {name: value.tolist() for name, value in outputs.items()}})]
    else:
        server.script = [outputs]
    with pytest.raises(ServingError, match="4 columns for 2 texts.*does not batch"):
        connect().similarity([IMAGE, IMAGE], ["a", "b"])


def test_a_model_replaced_by_a_wider_one_in_mid_call_is_found_out(connect, server):
    wide = {"text_embeds": np.ones((1, 9), np.float32), "status": np.array(["ok"])}
    if server.protocol == "rest":
        wide = (200, {"outputs": {name: value.tolist() for name, value in wide.items()}})
    server.script = ["answer", wide]
    with pytest.raises(ServingError, match="Another version was loaded"):
        connect(batch_size=1).encode_texts(["a", "b"])


class TestRest:
    """What only REST can do wrong."""

    @pytest.fixture
    def client(self, rest_server):
        with RestClient(rest_server.address, backoff=0.01) as client:
            yield client

    def test_an_answer_cut_short_is_asked_for_again(self, client, rest_server):
        rest_server.script = ["cut"]
        assert client.encode_texts(["a"]).ok.all()
        assert len(rest_server.seen) == 2

    def test_a_dripping_answer_is_given_up(self, rest_server):
        rest_server.script = ["drip"]
        with RestClient(rest_server.address, timeout=0.3, retries=0) as client:
            with pytest.raises(ServingError, match="did not answer within 0.3"):
                client.encode_texts(["a"])

    @pytest.mark.parametrize(
        ("body", "message"),
        [
            (b'{"outputs": [[', "is no JSON object"),
            (b"<html>a proxy's page</html>", "a proxy's page"),
            (b"[]", "is no JSON object"),
            (b'{"predictions": []}', "has no named outputs"),
            (b'{"outputs": {"text_embeds": [[1.0], [1.0, 2.0]], "status": ["ok", "ok"]}}', "no table of values"),
            (b'{"outputs": {"text_embeds": [[null], [1.0]], "status": ["ok", "ok"]}}', "not all are finite"),
            (b"[" * 100_000, "is no JSON object"),
        ],
    )
    def test_broken_answers(self, client, rest_server, body, message):
        rest_server.script = [(200, body)]
        with pytest.raises(ServingError, match=message):
            client.encode_texts(["a", "b"])
        assert len(rest_server.seen) == 1

    def test_retry_after(self, client, rest_server):
        rest_server.script = [(429, {"error": "slow down"}, [("Retry-After", "0.3")])]
        start = time.monotonic()
        client.encode_texts(["a"])
        assert time.monotonic() - start >= 0.3

    def test_a_server_that_asks_for_a_day_is_not_waited_for(self, client, rest_server):
        for value in ("86400", "Fri, 31 Dec 2199 23:59:59 GMT"):
            rest_server.script = [(503, {"error": "gone"}, [("Retry-After", value)])]
            with pytest.raises(ServingError, match="gone"):
                client.encode_texts(["a"])

    @pytest.mark.parametrize("value", ["soon", "", "nan", "-5"])
    def test_odd_retry_after(self, client, rest_server, value):
        rest_server.script = [(503, {"error": "gone"}, [("Retry-After", value)])]
        assert client.encode_texts(["a"]).ok.all()

    def test_codes_that_are_final(self, client, rest_server):
        for code, advice in ((401, "Check `headers`"), (404, "Check `model`"), (413, "smaller `batch_size`")):
            rest_server.script = [(code, b"")]
            with pytest.raises(ServingError, match=f"HTTP {code}.*{advice}"):
                client.encode_texts(["a"])
        rest_server.script = [(500, {"error": "boom"})]
        with pytest.raises(ServingError, match="boom.*See the server's log"):
            client.encode_texts(["a"])
        assert len(rest_server.seen) == 4

    def test_connections_are_kept(self, client, rest_server):
        for _ in range(5):
            client.encode_texts(["a"])
        assert len({request["connection"] for request in rest_server.headers}) == 1

    def test_a_url_keeps_its_path_and_hides_its_password(self, rest_server):
        address = rest_server.address.replace("//", "//someone:secret@")
        with RestClient(address + "/prefix/") as client:
            assert repr(client).startswith(f"RestClient(url='{rest_server.address}/prefix'")
            client.encode_texts(["a"])
        assert rest_server.headers[0]["path"] == "/prefix/v1/models/clip:predict"
        assert rest_server.headers[0]["Authorization"].startswith("Basic ")

    @pytest.mark.parametrize("url", ["localhost:8501", "ftp://host", "http://", ""])
    def test_addresses_that_are_none(self, url):
        with pytest.raises(ValueError, match="`url` must start with http:// or https://"):
            RestClient(url)

    def test_a_certificate_of_nobody_is_not_tried_again(self, monkeypatch):
        import httpx

        sent = []

        def refuse(self, *arguments, **options):
            sent.append(arguments)
            raise httpx.ConnectError("[SSL: CERTIFICATE_VERIFY_FAILED] self-signed certificate")

        monkeypatch.setattr(httpx.Client, "stream", refuse)
        with RestClient("https://localhost:1") as client:
            with pytest.raises(ServingError, match="is not trusted.*as `tls`"):
                client.encode_texts(["a"])
        assert len(sent) == 1

    @pytest.mark.process
    def test_rest_imports_neither_tensorflow_nor_keras(self, rest_server):
        code = (
            "import json, sys\n"
            "import numpy as np\n"
            "from tf_clip.client import RestClient\n"
            "with RestClient(sys.argv[1]) as client:\n"
            "    result = client.similarity([np.zeros((2, 2, 3), np.uint8)], ['a', 'b'])\n"
            "    client.encode_images(['missing.png'])\n"
            "    assert client.is_ready()\n"
            "roots = {name.partition('.')[0] for name in sys.modules}\n"
            "print(json.dumps([result.logits_per_image.shape, sorted(roots & {'tensorflow', 'keras', 'grpc'})]))\n"
        )
        done = subprocess.run([sys.executable, "-c", code, rest_server.address], capture_output=True, timeout=60)
        assert done.returncode == 0, done.stderr.decode()
        assert json.loads(done.stdout) == [[1, 2], []]


class TestGrpc:
    """What only gRPC can do wrong."""

    def test_a_message_too_large_is_not_tried_again(self, grpc_server):
        import grpc

        from tf_clip.client import GrpcClient

        grpc_server.script = [
            (grpc.StatusCode.RESOURCE_EXHAUSTED, "Received message larger than max (9 vs. 4)"),
            (grpc.StatusCode.RESOURCE_EXHAUSTED, "the queue is full"),
        ]
        with GrpcClient(grpc_server.address, backoff=0.01) as client:
            with pytest.raises(ServingError, match="larger than max.*smaller `batch_size`"):
                client.encode_texts(["a"])
            assert client.encode_texts(["a"]).ok.all()
        assert len(grpc_server.seen) == 3

    def test_a_connection_cut_in_mid_answer_is_made_anew(self):
        """The first connection is closed after the request; the second finds a port that is shut."""
        from tf_clip.client import GrpcClient

        with socket.create_server(("127.0.0.1", 0)) as listener:
            listener.settimeout(5)
            target = f"127.0.0.1:{listener.getsockname()[1]}"
            import threading

            def cut():
                for _ in range(2):
                    connection, _ = listener.accept()
                    connection.recv(100)
                    connection.close()

            thread = threading.Thread(target=cut)
            thread.start()
            with GrpcClient(target, backoff=0.2, retries=3, timeout=2) as client:
                with pytest.raises(ServingError) as caught:
                    client.encode_texts(["a"])
            thread.join(5)
        assert caught.value.attempts == 4 and caught.value.retryable

    def test_targets_that_are_none(self):
        from tf_clip.client import GrpcClient

        for target in ("http://localhost:8500", ""):
            with pytest.raises(ValueError, match="`url` must be host:port"):
                GrpcClient(target)


def test_waits_grow_and_are_spread():
    policy = RetryPolicy(9, 0.5)
    for number, least in ((1, 0.5), (2, 1.0), (3, 2.0), (30, 20.0)):
        waits = [policy._wait(number, None) for _ in range(50)]
        assert least <= min(waits) and max(waits) <= 2 * least and np.ptp(waits) > 0.1 * least


def test_a_call_past_its_deadline_sends_nothing():
    with pytest.raises(ServingError, match="the deadline of 0.001 seconds passed"):
        deadline = Deadline(0.001)
        time.sleep(0.01)
        RetryPolicy(3, 0.1).run(lambda left: pytest.fail("was sent"), deadline)


@pytest.mark.process
def test_extras_are_named_when_missing():
    for client, package, extra in (("RestClient", "httpx", "client"), ("GrpcClient", "tensorflow_serving", "serving")):
        code = f"import sys; sys.modules[{package!r}] = None; from tf_clip.client import {client}"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        assert f"pip install 'tf_clip[{extra}]'" in done.stderr
