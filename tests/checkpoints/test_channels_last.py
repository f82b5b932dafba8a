"""Names of transformers' TensorFlow and Flax models."""

import numpy as np
import pytest

from tf_clip.checkpoints.errors import CheckpointError
from tf_clip.checkpoints.readers.stored import StoredTensor
from tf_clip.families.clip.tensorflow_flax import to_hugging_face


def test_two_models_in_one_file():
    tensor = StoredTensor((2, 3), "float32", lambda: np.zeros((2, 3), "float32"))
    names = [f"{model}/text_model/encoder/layers_._0/mlp/fc1/kernel:0" for model in ("student", "teacher")]
    assert list(to_hugging_face({names[0]: tensor}, "it")) == ["text_model.encoder.layers.0.mlp.fc1.weight"]
    with pytest.raises(
        CheckpointError, match="^it must hold one CLIP. Received: two tensors for .*fc1.weight.*teacher"
    ):
        to_hugging_face(dict.fromkeys(names, tensor), "it")
