"""Requests that wait together are run together, and each gets its own rows."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from tf_clip.serving.batching import Batcher
from tf_clip.serving.errors import RequestError


class Doubling:
    """Doubles `x`, remembers what it was run on, refuses negative numbers, and waits while it is held."""

    name = "doubling"

    def __init__(self, batchable=True):
        self.batchable = batchable
        self.inputs = {"x": None}
        self.runs = []
        self.go = threading.Event()
        self.go.set()

    def run(self, inputs):
        assert self.go.wait(10)
        self.runs.append(inputs["x"].tolist())
        if (inputs["x"] < 0).any():
            raise RequestError(400, "negative")
        if (inputs["x"] == 1000).any():
            raise MemoryError("no room")
        return {"twice": 2 * inputs["x"]}


def run(signature, *requests, max_rows=8, timeout=0.02, threads=1):
    """Sends all requests at once and returns each one's answer or error."""

    async def together():
        batcher = Batcher(max_rows, timeout, threads)
        try:
            calls = [batcher.run(signature, {"x": np.array(request)}) for request in requests]
            return await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 20)
        finally:
            batcher.close()

    return [answer if isinstance(answer, Exception) else answer["twice"].tolist() for answer in asyncio.run(together())]


def test_requests_are_joined_and_answers_cut_apart():
    doubling = Doubling()
    assert run(doubling, [1], [2, 3], [4]) == [[2], [4, 6], [8]]
    assert doubling.runs == [[1, 2, 3, 4]]


def test_no_run_has_more_rows_than_are_allowed():
    doubling = Doubling()
    requests = [[row] * (1 + row % 5) for row in range(40)]
    assert run(doubling, *requests) == [[2 * value for value in request] for request in requests]
    assert max(map(len, doubling.runs)) <= 8
    assert len(doubling.runs) < 25


def test_a_request_alone_goes_when_its_wait_is_over():
    for timeout in (0.0, 0.05):
        assert run(Doubling(), [1], timeout=timeout) == [[2]]


def test_requests_that_come_while_the_threads_are_busy_go_together():
    doubling = Doubling()
    doubling.go.clear()

    async def scene():
        batcher = Batcher(8, 0.0, 1)
        first = asyncio.create_task(batcher.run(doubling, {"x": np.array([1])}))
        await asyncio.sleep(0.05)
        rest = [asyncio.create_task(batcher.run(doubling, {"x": np.array([value])})) for value in (2, 3, 4)]
        await asyncio.sleep(0.05)
        doubling.go.set()
        await asyncio.gather(first, *rest)
        batcher.close()

    asyncio.run(scene())
    assert doubling.runs == [[1], [2, 3, 4]]


def test_other_shapes_and_other_signatures_are_not_joined():
    doubling = Doubling()
    assert run(doubling, [[1, 1]], [[2, 2, 2]], [[3, 3]]) == [[[2, 2]], [[4, 4, 4]], [[6, 6]]]
    assert sorted(map(len, doubling.runs)) == [1, 2]
    unbatched = Doubling(batchable=False)
    assert run(unbatched, [1], [2]) == [[2], [4]]
    assert unbatched.runs == [[1], [2]]


def test_one_that_is_refused_is_refused_alone():
    answers = run(Doubling(), [1], [-1], [2])
    assert [answers[0], answers[2]] == [[2], [4]]
    assert isinstance(answers[1], RequestError)


def test_whatever_goes_wrong_every_request_gets_an_answer():
    assert [type(answer) for answer in run(Doubling(), [1], [1000], [2])] == [MemoryError] * 3


def test_the_others_of_one_that_is_refused_may_still_fail():
    class Failing(Doubling):
        def run(self, inputs):
            if len(inputs["x"]) == 1 and inputs["x"] == 7:
                raise MemoryError("no room")
            return super().run(inputs)

    assert [type(answer) for answer in run(Failing(), [1], [-1], [7])] == [list, RequestError, MemoryError]


def test_a_signature_that_lies_about_its_rows_is_an_error_and_no_wrong_answer():
    class Summing(Doubling):
        def run(self, inputs):
            return {"twice": 2 * inputs["x"].sum(keepdims=True)}

    assert [type(answer) for answer in run(Summing(), [1], [2])] == [RuntimeError] * 2


def test_one_that_no_longer_waits_does_not_disturb_the_others():
    doubling = Doubling()

    async def scene():
        batcher = Batcher(8, 0.05, 1)
        gone = asyncio.create_task(batcher.run(doubling, {"x": np.array([1])}))
        stays = asyncio.create_task(batcher.run(doubling, {"x": np.array([2])}))
        await asyncio.sleep(0.01)
        gone.cancel()
        answer = await asyncio.wait_for(stays, 10)
        with pytest.raises(asyncio.CancelledError):
            await gone
        batcher.close()
        return answer["twice"].tolist()

    assert asyncio.run(scene()) == [4]


@pytest.mark.process
def test_joined_requests_over_the_wire(server):
    """64 clients at once: fewer runs than requests, and every one its own answer."""

    def count():
        lines = server.http.get("/metrics").text.splitlines()
        return float(
            next(line for line in lines if line.startswith('tf_clip_batch_rows_count{signature="slow"}')).split()[-1]
        )

    server.columns("slow", rounds=[1])
    before = count()
    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda rounds: server.columns("slow", rounds=[rounds]), range(64)))
    assert answers == [[float(rounds)] for rounds in range(64)]
    assert count() - before < 40
