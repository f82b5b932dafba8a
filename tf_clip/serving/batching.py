"""Micro-batching: requests that wait at the same time are run together, and the answers split."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from prometheus_client import Histogram

from tf_clip.serving.errors import RequestError
from tf_clip.serving.loaded_version import Arrays, Signature

ROWS = Histogram(
    "tf_clip_batch_rows", "rows of one run of the model", ["signature"], buckets=[2**power for power in range(11)]
)


@dataclass
class _Request:
    inputs: Arrays
    rows: int
    arrived: float
    answer: asyncio.Future[Arrays]


@dataclass
class _Queue:
    """Requests of one signature whose arrays can be concatenated."""

    requests: deque[_Request] = field(default_factory=deque)
    full: asyncio.Event = field(default_factory=asyncio.Event)

    def rows(self) -> int:
        return sum(request.rows for request in self.requests)

    def take(self, max_rows: int) -> list[_Request]:
        """Removes the oldest requests: at most `max_rows` rows together, or the first request alone."""
        taken = [self.requests.popleft()]
        rows = taken[0].rows
        while self.requests and rows + self.requests[0].rows <= max_rows:
            taken.append(self.requests.popleft())
            rows += taken[-1].rows
        return taken


class Batcher:
    """Runs signatures in threads, several requests at a time.

    A request waits for others until `timeout` has passed or `max_rows` rows wait together. While all threads are busy,
    more requests can join. All methods belong to one event loop.

    Args:
        max_rows: the most rows of one run.
        timeout: seconds that a request waits for others.
        threads: runs at the same time.
    """

    def __init__(self, max_rows: int, timeout: float, threads: int) -> None:
        self._max_rows = max_rows
        self._timeout = timeout
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="model")
        self._free = asyncio.Semaphore(threads)
        self._queues: dict[Any, _Queue] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, signature: Signature, inputs: Arrays) -> Arrays:
        """Returns the signature's outputs for these inputs.

        Raises:
            RequestError: when the model refuses them. Requests of the same batch are answered all the same.
        """
        if not signature.batchable:
            async with self._free:
                return await self._in_thread(signature, inputs)
        loop = asyncio.get_running_loop()
        rows = len(next(iter(inputs.values())))
        request = _Request(inputs, rows, loop.time(), loop.create_future())
        key = (signature, tuple(inputs[name].shape[1:] for name in signature.inputs))
        queue = self._queues.get(key)
        if queue is None:
            queue = self._queues[key] = _Queue()
            self._start(self._run_queue(key, queue))
        queue.requests.append(request)
        if queue.rows() >= self._max_rows:
            queue.full.set()
        return await request.answer

    def close(self) -> None:
        """Waits for the threads and ends them."""
        self._pool.shutdown()

    async def _run_queue(self, key: Any, queue: _Queue) -> None:
        """Runs the requests of a queue until it is empty."""
        await asyncio.sleep(0)  # so that the request that opened the queue has joined it
        while queue.requests:
            waited = asyncio.get_running_loop().time() - queue.requests[0].arrived
            try:
                await asyncio.wait_for(queue.full.wait(), max(0.0, self._timeout - waited))
            except asyncio.TimeoutError:
                pass  # the requests that wait by now are run
            await self._free.acquire()
            batch = queue.take(self._max_rows)
            if queue.rows() < self._max_rows:
                queue.full.clear()
            self._start(self._run_batch(key[0], batch))
        del self._queues[key]

    async def _run_batch(self, signature: Signature, batch: Sequence[_Request]) -> None:
        try:
            answers = await self._answers(signature, batch)
        finally:
            self._free.release()
        for request, answer in zip(batch, answers, strict=True):
            if request.answer.cancelled():
                continue
            if isinstance(answer, Exception):
                request.answer.set_exception(answer)
            else:
                request.answer.set_result(answer)

    async def _answers(self, signature: Signature, batch: Sequence[_Request]) -> list[Arrays | Exception]:
        """Returns the outputs of each request, or its error."""
        try:
            if len(batch) == 1:
                return [await self._in_thread(signature, batch[0].inputs)]
            return [*await self._together(signature, batch)]
        except RequestError as error:
            if len(batch) == 1:
                return [error]
        except Exception as error:  # of any kind: every request must be answered
            return [error] * len(batch)
        # The model refuses one of them, and does not say which: each is run by itself.
        return [(await self._answers(signature, [request]))[0] for request in batch]

    async def _together(self, signature: Signature, batch: Sequence[_Request]) -> list[Arrays]:
        joined = {name: np.concatenate([request.inputs[name] for request in batch]) for name in signature.inputs}
        outputs = await self._in_thread(signature, joined)
        ends = np.cumsum([request.rows for request in batch])
        if any(array.shape[:1] != ends[-1:] for array in outputs.values()):
            raise RuntimeError(f"signature {signature.name!r} is not batchable, though its description says so")
        parts = {name: np.split(array, ends[:-1]) for name, array in outputs.items()}
        return [{name: parts[name][index] for name in parts} for index in range(len(batch))]

    async def _in_thread(self, signature: Signature, inputs: Arrays) -> Arrays:
        ROWS.labels(signature.name).observe(max((array.shape[0] for array in inputs.values() if array.ndim), default=1))
        return await asyncio.get_running_loop().run_in_executor(self._pool, signature.run, inputs)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        # The event loop holds only a weak reference to a task.
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
