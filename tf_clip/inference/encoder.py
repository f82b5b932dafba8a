"""Rows of any number through one tower: cut into batches, each run by the engine that is asked for or fastest."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

from tf_clip.inference.choice import Choices, fastest
from tf_clip.inference.runners import GraphRunner, Runner, make_runner
from tf_clip.inference.work import Size, Work


class Encoder:
    """Runs one kind of work.

    Args:
        work: the work.
        engine: one of `ENGINES`, or `"auto"`.
        candidates: what `"auto"` chooses among.
        choices: what it chose before.
        threads: how many of the processor's cores LiteRT uses.
    """

    def __init__(self, work: Work, engine: str, candidates: tuple[str, ...], choices: Choices, threads: int) -> None:
        self._work, self._engine, self._candidates = work, engine, candidates
        self._choices, self._threads = choices, threads
        self._runners: dict[tuple[Any, ...], Runner] = {}
        self._is_alone = threading.RLock()
        self.chosen: dict[Size, str] = {}

    def __call__(self, rows: Any, count: int) -> np.ndarray:
        """Encodes a batch of `count` rows, float32 `[count, projection_dim]`."""
        size = self._work.size_of(rows)
        return self._run("tensorflow" if size is None else self.engine_for(size), rows, size)[:count]

    def engine_for(self, size: Size) -> str:
        """Returns the engine for a size; measured if it is neither told nor known."""
        if self._engine != "auto":
            return self._engine
        with self._is_alone:  # two that measure at once would measure each other
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
        """Whether batches may be larger than the largest size; they run in TensorFlow's graph."""
        return self._engine == "tensorflow" or (self._engine == "auto" and "tensorflow" in self._candidates)

    @property
    def traces(self) -> int:
        """How many functions were traced."""
        return sum(runner.traces for runner in self._runners.values() if isinstance(runner, GraphRunner))

    def _measured(self, size: Size) -> str:
        rows = self._work.example(size)
        engine = fastest({name: lambda name=name: self._run(name, rows, size) for name in self._candidates})
        for key in [key for key in self._runners if key[:2] == ("litert", size)]:
            if engine != "litert":
                # It has the weights once more.
                del self._runners[key]
        return engine

    def _run(self, engine: str, rows: Any, size: Size | None) -> np.ndarray:
        # Compilers' programs are of one size; TensorFlow's graphs take rows as they are.
        shape = self._work.graph_size(rows) if engine == "tensorflow" else size
        arrays = self._work.arrays(rows, shape)
        key = (engine, shape, len(arrays))
        with self._is_alone:
            if key not in self._runners:
                signature = self._work.signature(shape)[: len(arrays)]
                self._runners[key] = make_runner(engine, self._work.function, signature, self._threads)
            runner = self._runners[key]
        return runner(*arrays)
