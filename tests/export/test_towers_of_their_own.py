"""A subclassed tower is exported as its own `call` computes; a family of Keras layers: tests/families."""

from __future__ import annotations

import numpy as np
import pytest
from keras import ops

import tf_clip
from helpers.served_models import signatures_of
from tf_clip.export import LiteRTModel
from tf_clip.export.text_inputs import text_inputs_of
from tf_clip.export.weights import StoredWeights

pytestmark = pytest.mark.slow

TEXTS = ["an owl", "a red bus and a", "", "é"]
LONGEST = 16


class MeanPooled(tf_clip.CLIPTextEncoder):
    """Pools all of a text, which its family's towers never do."""

    def call(self, input_ids, attention_mask=None, **options):
        output = super().call(input_ids, attention_mask=attention_mask, **options)
        weights = ops.cast(attention_mask, "float32")[..., None]
        mean = ops.sum(output.last_hidden_state * weights, axis=1) / ops.sum(weights, axis=1)
        output["text_embeds"] = self.projection(mean)
        return output


@pytest.fixture(scope="module")
def pooled_by_mask(tiny_config, tiny_processor):
    """A model whose text tower is a subclass."""
    model = tf_clip.CLIPModel(tiny_config)
    model.text_encoder.__class__ = MeanPooled
    return model, tiny_processor


def unit(rows):
    rows = np.asarray(rows)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def tokens_of(processor, padding):
    return processor.tokenizer(TEXTS, padding=padding, max_length=LONGEST, return_tensors="np")


def test_a_subclassed_tower_is_exported_as_its_own_call_computes(pooled_by_mask, tmp_path):
    model, processor = pooled_by_mask
    tokens = tokens_of(processor, "longest")
    wanted = unit(model.get_text_features(**tokens))
    served = signatures_of(tf_clip.export.saved_model(model, processor, tmp_path / "served"))
    np.testing.assert_allclose(served["encode_text"](text=TEXTS)["text_embeds"], wanted, atol=1e-5)
    np.testing.assert_allclose(served["encode_tokens"](**tokens)["text_embeds"], wanted, atol=1e-5)
    # Without labels there are no classes, and images are encoded.
    assert "classify" not in served
    assert set(served["serving_default"](image_bytes=np.zeros(0, "S1"))) == {"image_embeds", "status"}
    options = {"parts": ["text"], "text_lengths": [], "quantization": "float16"}
    tf_clip.export.litert(model, processor, tmp_path / "mobile", **options)
    ids = processor.tokenizer(TEXTS, padding=False, max_length=LONGEST, return_tensors=None)["input_ids"]
    np.testing.assert_allclose(LiteRTModel(tmp_path / "mobile").encode_ids(ids), wanted, atol=1e-2)


def test_a_subclassed_tower_that_is_not_made_again_is_refused(tiny_config):
    model = tf_clip.CLIPModel(tiny_config, dtype="mixed_bfloat16")
    model.text_encoder.__class__ = MeanPooled
    with pytest.raises(ValueError, match="`model` must be made again in float32 by from_config"):
        StoredWeights(model, "float32")


def test_a_tower_that_passes_on_whatever_it_is_given_is_told_what_is_padding(tiny_config, tiny_processor):
    class PassesOn(tf_clip.CLIPTextEncoder):
        def call(self, *args, **kwargs):
            return super().call(*args, **kwargs)

    model = tf_clip.CLIPModel(tiny_config)
    assert not text_inputs_of(model, tiny_processor).takes_mask
    model.text_encoder.__class__ = PassesOn
    assert text_inputs_of(model, tiny_processor).takes_mask
