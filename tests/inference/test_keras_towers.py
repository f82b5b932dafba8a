"""Towers that are not rewritten run as Keras has them, with their own `call`, on inputs as they are given."""

import dataclasses
from typing import ClassVar

import keras
import numpy as np
import pytest
from keras import ops

from tf_clip import CLIPImageEncoder, CLIPTextEncoder, compile_for_inference
from tf_clip.families import family as families
from tf_clip.families.config import TowerConfig, TwoTowerConfig
from tf_clip.inference.keras_towers import KerasTextWork
from tf_clip.layers.transformer import EncoderLayer
from tf_clip.models.outputs import CLIPOutput
from tf_clip.models.two_towers import TwoTowerModel


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToyTextConfig(TowerConfig):
    model_type: ClassVar[str] = "toy_text"
    part: ClassVar[str] = "text_config"
    vocab_size: int = 20
    max_position_embeddings: int = 9


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToyImageConfig(TowerConfig):
    model_type: ClassVar[str] = "toy_image"
    part: ClassVar[str] = "vision_config"
    image_size: int = 6


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToyConfig(TwoTowerConfig):
    model_type: ClassVar[str] = "toy"
    text_config_class: ClassVar[type[TowerConfig]] = ToyTextConfig
    vision_config_class: ClassVar[type[TowerConfig]] = ToyImageConfig
    projection_dim: int = 4
    logit_bias_init_value: float | None = -2.0


class ToyTextTower(keras.Model):
    """Keras layers that read a text in any direction: the mean of its embeddings, added to that of the last token."""

    init_options = call_options = ()

    def __init__(self, config, projection_dim=4, **options):
        super().__init__(**options)
        self.config, self.table = config, keras.layers.Embedding(config.vocab_size, projection_dim)
        self(np.zeros((1, 2), "int32"))

    def call(self, input_ids, attention_mask=None, position_ids=None, adapter_ids=None):
        x = self.table(input_ids)
        shown = ops.ones_like(x[..., :1]) if attention_mask is None else ops.cast(attention_mask, x.dtype)[..., None]
        return CLIPOutput(text_embeds=ops.sum(x * shown, axis=1) / input_ids.shape[1] + x[:, -1])


class ToyImageTower(keras.Model):
    init_options = call_options = ()

    def __init__(self, config, projection_dim=4, **options):
        super().__init__(**options)
        self.config, self.head = config, keras.layers.Dense(projection_dim)
        self(np.zeros((1, 6, 6, 3), "float32"))

    def call(self, pixel_values):
        return CLIPOutput(image_embeds=self.head(ops.reshape(pixel_values, (-1, 108))))


TOY = families.Family(
    name="toy",
    config=ToyConfig,
    text_config=ToyTextConfig,
    image_config=ToyImageConfig,
    text_tower=f"{__name__}:ToyTextTower",
    image_tower=f"{__name__}:ToyImageTower",
    padding="max_length",
    text_is_causal=False,
    pooling="last",
    scores="sigmoid",
)


@pytest.fixture
def toy(monkeypatch):
    monkeypatch.setattr(families, "_registered", [TOY])
    return TwoTowerModel(ToyConfig())


@pytest.mark.parametrize("engine", ["tensorflow", "xla"])
def test_a_family_of_keras_layers(toy, engine):
    fast = compile_for_inference(toy, engine=engine, batch_sizes=[3])
    traces = fast.traces
    generator = np.random.default_rng(0)
    ids, pixels = generator.integers(0, 20, (3, 9)), generator.normal(size=(3, 6, 6, 3)).astype("float32")
    mask = generator.integers(0, 2, (3, 9))
    inputs = {"input_ids": ids, "pixel_values": pixels, "attention_mask": mask}
    assert_close(fast(**inputs).logits_per_image, toy(**inputs).logits_per_image)
    assert fast.traces == traces
    for length in (9, 5):
        assert_close(fast.get_text_features(ids[:2, :length]), toy.get_text_features(ids[:2, :length]))


def test_texts_of_another_tower_are_neither_cut_nor_made_longer():
    tower = ToyTextTower(ToyTextConfig())
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
