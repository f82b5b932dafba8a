"""The local server: an exported model behind REST, gRPC and a page, in one process.

It runs on Starlette, uvicorn, grpcio and bare TensorFlow: neither Keras nor a model's code is needed.
"""

from __future__ import annotations

try:
    import orjson  # noqa: F401
    import prometheus_client  # noqa: F401
    import starlette  # noqa: F401
    import tensorflow_serving  # noqa: F401
    import uvicorn  # noqa: F401
except ImportError as error:
    raise ImportError(f'The local server needs {error.name}. Run pip install "tf_clip[serve]".') from error
