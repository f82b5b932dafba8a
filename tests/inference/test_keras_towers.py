"""Towers that are not rewritten run as Keras has them, with their own `call`, on inputs as they are given."""

import keras
import numpy as np
import pytest
from keras import ops

from tf_clip import CLIPImageEncoder, CLIPTextEncoder, compile_for_inference
from tf_clip.inference.keras_towers import KerasTextWork
from tf_clip.layers.transformer import EncoderLayer


def assert_close(ours, theirs):
    np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), atol=1e-5)


class WholeText(CLIPTextEncoder):
    """Its features depend on every token, on the length of the texts, and on whether there is a mask."""

    def call(self, input_ids, attention_mask=None, **options):
        output = super().call(input_ids, attention_mask=attention_mask, **options)
        seen = 0.5 * ops.cast(input_ids, "float32") if attention_mask is None else ops.cast(attention_mask, "float32")
        output["text_embeds"] += ops.sum(seen, axis=1, keepdims=True) / seen.shape[1]
        return output


class Doubled(CLIPImageEncoder):
    """Its features are twice the tower's."""

    def call(self, *arguments, **options):
        output = super().call(*arguments, **options)
        output["image_embeds"] *= 2.0
        return output


class NegativeBlock(EncoderLayer):
    """A block that changes the sign of what it returns."""

    def call(self, *arguments, **options):
        return -super().call(*arguments, **options)


@pytest.fixture
def masks(captions):
    """No mask, one that hides the padding, and one that also hides first tokens."""
    shown = np.arange(captions.shape[1]) <= (captions == 513).argmax(axis=1)[:, np.newaxis]
    left = shown.copy()
    left[2, :2] = False
    return [None, shown.astype("int32"), left.astype("int64")]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["tensorflow", "xla"])
def test_a_subclass_of_a_tower_keeps_its_call(make_model, captions, masks, engine):
    model = make_model()
    model.text_encoder.__class__ = WholeText
    model.image_encoder.__class__ = Doubled
    fast = compile_for_inference(model, engine=engine)
    for mask in masks:
        assert_close(
            fast.get_text_features(captions[:3], None if mask is None else mask[:3]),
            model.get_text_features(captions[:3], None if mask is None else mask[:3]),
        )
    pixels = np.random.default_rng(0).normal(size=(3, 20, 20, 3)).astype("float32")
    assert_close(fast.get_image_features(pixels), model.get_image_features(pixels))


def test_a_subclass_of_a_block_keeps_its_call(make_model, captions):
    model = make_model()
    model.text_encoder.encoder_layers[0].__class__ = NegativeBlock
    fast = compile_for_inference(model, engine="tensorflow")
    assert_close(fast.get_text_features(captions), model.get_text_features(captions))


@pytest.mark.parametrize("engine", ["tensorflow", "xla"])
def test_adapters_see_the_mask_and_the_length_that_were_given(make_model, captions, masks, engine):
    model = make_model()
    # It changes the last tokens that the mask shows, or of the whole length without a mask.
    model.add_adapter("end", "loreft[r=2,prefix_positions=0,suffix_positions=1]")
    model.active_adapters = "end"
    for variable in model.text_encoder.weights:
        if "end" in variable.path:
            variable.assign(np.random.default_rng(0).normal(size=variable.shape))
    fast = compile_for_inference(model, engine=engine)
    for mask in masks:
        assert_close(fast.get_text_features(captions, mask), model.get_text_features(captions, mask))


class MeanOfTokens(keras.Model):
    def __init__(self):
        super().__init__()
        self.table = keras.layers.Embedding(20, 4)

    def call(self, input_ids):
        return {"text_embeds": ops.mean(self.table(input_ids), axis=1)}


def test_texts_of_another_tower_are_neither_cut_nor_made_longer():
    tower = MeanOfTokens()
    work = KerasTextWork(tower, vocab_size=20, longest=9, may_be_longer=False)
    texts = work.rows(np.random.default_rng(0).integers(0, 20, (5, 7)), None)
    assert work.size_of(texts) == (8, 7)
    (ids,) = work.arrays(texts, (8, 7))
    np.testing.assert_array_equal(ids, texts.input_ids[[0, 1, 2, 3, 4, 4, 4, 4]])
    assert_close(work.encode(ids)[:5], tower(texts.input_ids)["text_embeds"])
    assert work.sizes(3) == [(3, 9)]
    assert [indices.tolist() for indices, _ in work.batches(texts, 2)] == [[0, 1], [2, 3], [4]]


def test_longer_texts_have_a_mask_that_hides_what_was_added():
    work = KerasTextWork(None, vocab_size=20, longest=20, may_be_longer=True)
    texts = work.rows(np.array([[3, 4], [5, 6]]), None)
    ids, mask = work.arrays(texts, work.size_of(texts))
    assert ids.shape == mask.shape == (2, 8)
    assert mask.tolist() == [[1, 1] + [0] * 6] * 2
    hidden = work.rows(np.array([[3, 4]]), np.array([[0, 1]]))
    assert work.size_of(hidden) is None, "a first token that sees nothing would average over the padding"
