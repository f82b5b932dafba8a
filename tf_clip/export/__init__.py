"""A model and its preprocessing as files that other programs run: `saved_model` with `serving_kit`, and `litert`.

Importing this package is cheap: TensorFlow and Keras load when a name that needs them is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_MODULE_OF = {
    "LiteRTModel": "tf_clip.export.tflite.runtime",
    "litert": "tf_clip.export.tflite.write",
    "litert_report": "tf_clip.export.tflite.measure",
    "saved_model": "tf_clip.export.savedmodel.write",
    "serving_kit": "tf_clip.export.kit.write",
}

__all__ = sorted(_MODULE_OF)

if TYPE_CHECKING:
    from tf_clip.export.kit.write import serving_kit as serving_kit
    from tf_clip.export.savedmodel.write import saved_model as saved_model
    from tf_clip.export.tflite.measure import litert_report as litert_report
    from tf_clip.export.tflite.runtime import LiteRTModel as LiteRTModel
    from tf_clip.export.tflite.write import litert as litert


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'tf_clip.export' has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULE_OF[name]), name)
    globals()[name] = value  # looked up once
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
