"""A process with TensorFlow and nothing else of ours: answers requests for an exported model through a pipe."""

from __future__ import annotations

import os
import sys

# As if they were not installed; TensorFlow itself imports Keras where it finds it.
for name in ("keras", "tensorflow_text", "tf_clip"):
    sys.modules[name] = None  # type: ignore[assignment]

import tensor_stream  # noqa: E402
import tensorflow as tf  # noqa: E402


def main() -> None:
    requests = sys.stdin.buffer
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is no answer
    model = tf.saved_model.load(sys.argv[1])
    while (request := tensor_stream.read_request(requests)) is not None:
        signature, inputs, wanted = request
        try:
            outputs = model.signatures[signature](**{name: tf.constant(array) for name, array in inputs.items()})
            tensor_stream.write_answer(answers, {name: outputs[name].numpy() for name in wanted})
        except tf.errors.OpError as error:
            tensor_stream.write_error(answers, error.message)


main()
