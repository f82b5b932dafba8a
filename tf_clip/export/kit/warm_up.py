"""The requests that TensorFlow Serving runs on a version before it serves it."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from tf_clip.export.kit.example_inputs import example_inputs
from tf_clip.export.savedmodel.exported_model import ExportedModel
from tf_clip.files import replacing_file

try:
    from tensorflow_serving.apis import prediction_log_pb2
except ImportError as error:
    raise ImportError(
        "Warm-up requests need tensorflow-serving-api. Install it: pip install 'tf_clip[serving]'"
    ) from error

WARM_UP = "assets.extra/tf_serving_warmup_requests"

MOST_REQUESTS = 1000
"""TensorFlow Serving refuses to load a version with more."""


def write_warm_up(exported: ExportedModel, name: str, batch_sizes: Sequence[int]) -> int:
    """Writes one request for each signature that can be batched and each batch size.

    A request that fails keeps a server from loading the version, so `similarity`, which fails on a server
    that batches, is not among them.

    Args:
        exported: the version.
        name: the model's name on the server.
        batch_sizes: the sizes, those that batches are padded to.

    Returns:
        How many requests were written.

    Raises:
        ValueError: they are more than a server takes.
    """
    count = len(exported.batchable) * len(batch_sizes)
    if count > MOST_REQUESTS:
        raise ValueError(
            f"`batch_sizes` must make at most {MOST_REQUESTS} requests. Received: {len(batch_sizes)} sizes for "
            f"{len(exported.batchable)} signatures. Take fewer."
        )
    with replacing_file(exported.folder / WARM_UP) as file, tf.io.TFRecordWriter(str(file)) as writer:
        for signature in exported.batchable:
            for size in batch_sizes:
                writer.write(_request(exported, name, signature, size).SerializeToString())
    return count


def _request(exported: ExportedModel, name: str, signature: str, rows: int) -> prediction_log_pb2.PredictionLog:
    log = prediction_log_pb2.PredictionLog()
    request = log.predict_log.request
    request.model_spec.name = name
    request.model_spec.signature_name = signature
    specs = exported.inputs(signature)
    for key, value in example_inputs(specs, rows).items():
        request.inputs[key].CopyFrom(tf.make_tensor_proto(value, specs[key].dtype))
    return log
