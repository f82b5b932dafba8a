"""Fast and exact inference: towers with rewritten weights, run by the engine that is the fastest on this machine."""

from __future__ import annotations

from tf_clip.inference.compiled_model import CompiledModel, compile_for_inference
from tf_clip.inference.engines import ENGINES
from tf_clip.inference.hardware import set_inference_threads

__all__ = ["ENGINES", "CompiledModel", "compile_for_inference", "set_inference_threads"]
