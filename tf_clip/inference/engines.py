"""The engines: each runs a function of tensors with NumPy arrays in and a NumPy array out."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import tensorflow as tf

from tf_clip.export.tflite.file import converted
from tf_clip.export.tflite.runtime import require_litert

ENGINES = ("tensorflow", "xla", "litert")
"""TensorFlow's graph; the same graph compiled by XLA for each size; LiteRT with XNNPACK, converted for each size."""

Function = Callable[..., tf.Tensor]
Runner = Callable[..., np.ndarray]


class GraphRunner:
    """Runs a function as a TensorFlow graph, which is traced once.

    Args:
        function: the function.
        signature: its inputs; a size of None accepts any size.
        with_xla: whether XLA compiles the graph.
    """

    def __init__(self, function: Function, signature: Sequence[tf.TensorSpec], with_xla: bool = False) -> None:
        self._function = tf.function(function, input_signature=signature, autograph=False, jit_compile=with_xla)

    def __call__(self, *arrays: np.ndarray) -> np.ndarray:
        """Runs the graph."""
        result: np.ndarray = self._traced(*map(tf.convert_to_tensor, arrays)).numpy()
        return result

    @functools.cached_property
    def _traced(self) -> Any:
        # The one trace is called directly: a tf.function searches for the matching trace at every call.
        return self._function.get_concrete_function()

    @property
    def traces(self) -> int:
        """How often the function was traced."""
        return int(self._function.experimental_get_tracing_count())


class LiteRTRunner:
    """Runs a function in LiteRT.

    Args:
        function: the function.
        signature: its inputs, of fixed sizes.
        threads: how many cores LiteRT uses.

    Raises:
        ImportError: LiteRT is not installed.
    """

    def __init__(self, function: Function, signature: Sequence[tf.TensorSpec], threads: int) -> None:
        require_litert()
        from ai_edge_litert.interpreter import Interpreter

        traced = tf.function(function, input_signature=signature, autograph=False)
        variables = dict(enumerate(traced.get_concrete_function().graph.variables))
        weights: Any = SimpleNamespace(variables={str(key): variables[key] for key in variables})
        file = converted({"encode": traced}, weights)
        self._interpreter = Interpreter(model_content=file, num_threads=threads)
        self._run = self._interpreter.get_signature_runner("encode")
        self._names = [spec.name for spec in signature]
        self._is_free = threading.Lock()

    def __call__(self, *arrays: np.ndarray) -> np.ndarray:
        """Runs the function; one call at a time, because all calls share the interpreter's memory."""
        with self._is_free:
            outputs = self._run(**dict(zip(self._names, map(np.asarray, arrays), strict=True)))
        (features,) = outputs.values()
        return np.asarray(features)


def make_runner(engine: str, function: Function, signature: Sequence[tf.TensorSpec], threads: int) -> Runner:
    """Makes the runner of one of `ENGINES`."""
    if engine == "litert":
        return LiteRTRunner(function, signature, threads)
    return GraphRunner(function, signature, with_xla=engine == "xla")
