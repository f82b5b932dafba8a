"""Clients of a served tf_clip model: `RestClient` and `GrpcClient`.

`RestClient` imports neither TensorFlow nor Keras. `GrpcClient` needs tensorflow-serving-api, whose messages
contain TensorFlow's own and so import TensorFlow. Each is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tf_clip.client.errors import ServingError as ServingError
    from tf_clip.client.grpc_client import GrpcClient as GrpcClient
    from tf_clip.client.rest_client import RestClient as RestClient
    from tf_clip.client.results import Classification as Classification
    from tf_clip.client.results import Embeddings as Embeddings
    from tf_clip.client.results import PairSimilarity as PairSimilarity
    from tf_clip.client.results import Similarity as Similarity

_MODULE_OF = {
    "RestClient": "tf_clip.client.rest_client",
    "GrpcClient": "tf_clip.client.grpc_client",
    "ServingError": "tf_clip.client.errors",
    "Embeddings": "tf_clip.client.results",
    "Classification": "tf_clip.client.results",
    "PairSimilarity": "tf_clip.client.results",
    "Similarity": "tf_clip.client.results",
}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'tf_clip.client' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
