"""The engines: a function of tensors as something that is called with arrays and answers with an array."""

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
"""TensorFlow's graph; the same compiled by XLA, once a size; LiteRT with XNNPACK, converted once a size."""

Function = Callable[..., tf.Tensor]
Runner = Callable[..., np.ndarray]


class GraphRunner:
    """Runs a function as a graph of TensorFlow, which is traced once.

    Args:
        function: the function.
        signature: its inputs; sizes that are None may be any.
        with_xla: whether XLA compiles it.
    """

    def __init__(self, function: Function, signature: Sequence[tf.TensorSpec], with_xla: bool = False) -> None:
        self._function = tf.function(function, input_signature=signature, autograph=False, jit_compile=with_xla)

    def __call__(self, *arrays: np.ndarray) -> np.ndarray:
        """Runs it."""
        return self._traced(*map(tf.convert_to_tensor, arrays)).numpy()

    @functools.cached_property
    def _traced(self) -> Any:
        # Called itself: a function looks for the trace that fits, at every call anew.
        return self._function.get_concrete_function()

    @property
    def traces(self) -> int:
        """How often the function was traced."""
        return self._function.experimental_get_tracing_count()


class LiteRTRunner:
    """Runs a function in LiteRT, on the processor's cores.

    Args:
        function: the function.
        signature: its inputs, of fixed sizes.
        threads: how many cores.

    Raises:
        ImportError: LiteRT is not installed.
    """

    def __init__(self, function: Function, signature: Sequence[tf.TensorSpec], threads: int) -> None:
        require_litert()
        from ai_edge_litert.interpreter import Interpreter

        traced = tf.function(function, input_signature=signature, autograph=False)
        variables = dict(enumerate(traced.get_concrete_function().graph.variables))
        file = converted({"encode": traced}, SimpleNamespace(variables={str(key): variables[key] for key in variables}))
        self._interpreter = Interpreter(model_content=file, num_threads=threads)
        self._run = self._interpreter.get_signature_runner("encode")
        self._names = [spec.name for spec in signature]
        self._is_free = threading.Lock()

    def __call__(self, *arrays: np.ndarray) -> np.ndarray:
        """Runs it; one call at a time, since all share the interpreter's memory."""
        with self._is_free:
            (features,) = self._run(**dict(zip(self._names, map(np.asarray, arrays), strict=True))).values()
        return features


def make_runner(engine: str, function: Function, signature: Sequence[tf.TensorSpec], threads: int) -> Runner:
    """Makes the runner of one of `ENGINES`."""
    if engine == "litert":
        return LiteRTRunner(function, signature, threads)
    return GraphRunner(function, signature, with_xla=engine == "xla")
