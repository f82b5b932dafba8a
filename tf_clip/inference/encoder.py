"""Runs one kind of work, batch by batch, with the engine that was asked for or that is the fastest."""

from __future__ import annotations

import functools
import threading
from typing import Any

import numpy as np

from tf_clip.inference.choice import Choices, fastest
from tf_clip.inference.engines import GraphRunner, Runner, make_runner
from tf_clip.inference.work import Size, Work


class Encoder:
    """Encodes batches of rows.

    Args:
        work: one tower's work.
        engine: one of `ENGINES`, or `"auto"`.
        candidates: the engines that `"auto"` chooses among.
        choices: what `"auto"` has chosen before; None for any other engine.
        threads: how many cores LiteRT uses.

    Attributes:
        chosen: the engine that `"auto"` chose for each size so far.
    """

    def __init__(
        self, work: Work, engine: str, candidates: tuple[str, ...], choices: Choices | None, threads: int
    ) -> None:
        self._work, self._engine, self._candidates = work, engine, candidates
        self._choices, self._threads = choices, threads
        self._runners: dict[tuple[Any, ...], Runner] = {}
        self._lock = threading.RLock()
        self.chosen: dict[Size, str] = {}

    def __call__(self, rows: Any, count: int) -> np.ndarray:
        """Encodes a batch of `count` rows, float32 `[count, projection_dim]`."""
        size = self._work.size_of(rows)
        return self._run("tensorflow" if size is None else self.engine_for(size), rows, size)[:count]

    def prepare(self, count: int) -> None:
        """Makes the graphs and programs for batches of `count` rows, and for `"auto"` chooses the engines."""
        for size in self._work.sizes(count):
            self(self._work.example(size), count)

    def engine_for(self, size: Size) -> str:
        """Returns the engine for a size; `"auto"` measures at the first call for a size that is not remembered."""
        if self._choices is None:
            return self._engine
        with self._lock:  # measurements that run at the same time would slow each other down
            if size not in self.chosen:
                name = f"{self._work.name} {'x'.join(map(str, size))}"
                engine = self._choices.get(name, self._candidates)
                if engine is None:
                    engine = self._measured(size)
                    self._choices.put(name, self._candidates, engine)
                self.chosen[size] = engine
            return self.chosen[size]

    @property
    def takes_any_size(self) -> bool:
        """Whether batches may exceed the largest size: TensorFlow's graph runs them."""
        return "tensorflow" in (self._candidates if self._choices is not None else (self._engine,))

    @property
    def traces(self) -> int:
        """How many functions were traced."""
        return sum(runner.traces for runner in self._runners.values() if isinstance(runner, GraphRunner))

    def _measured(self, size: Size) -> str:
        rows = self._work.example(size)
        engine = fastest({name: functools.partial(self._run, name, rows, size) for name in self._candidates})
        if engine != "litert":
            # A LiteRT program holds its own copy of the weights.
            for key in [key for key in self._runners if key[:2] == ("litert", size)]:
                del self._runners[key]
        return engine

    def _run(self, engine: str, rows: Any, size: Size | None) -> np.ndarray:
        # A compiled program has one size; TensorFlow's graph takes any number of rows.
        shape = self._work.graph_size(rows) if engine == "tensorflow" else size
        arrays = self._work.arrays(rows, shape)
        key = (engine, shape, len(arrays))
        with self._lock:
            if key not in self._runners:
                signature = self._work.signature(shape)[: len(arrays)]
                self._runners[key] = make_runner(engine, self._work.encode, signature, self._threads)
            runner = self._runners[key]
        return runner(*arrays)
