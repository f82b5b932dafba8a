"""Fast, exact inference: the towers with rewritten weights, run by the engine that is fastest on this machine."""

from __future__ import annotations

from tf_clip.inference.compiled_model import CompiledModel, compile_for_inference
from tf_clip.inference.runners import ENGINES
from tf_clip.inference.threads import set_inference_threads

__all__ = ["ENGINES", "CompiledModel", "compile_for_inference", "set_inference_threads"]
