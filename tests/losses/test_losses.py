"""The losses of pairs: against formulas in numpy, in chunks as at once, and in the memory of a chunk."""

import keras
import numpy as np
import pytest
from keras import ops

from helpers.arrays import array, assert_close
from helpers.eager import EAGER
from helpers.gradients import unit_rows, value_and_gradients
from helpers.memory import ROWS, measured
from tf_clip import CLIPConfig, CLIPModel, ContrastiveLoss, SigmoidLoss, contrastive_loss, sigmoid_loss
from tf_clip.losses import GlobalBatch, PairLoss

pytestmark = pytest.mark.backends

IDS = np.array([3, 9, 3, 4, 9, 3, 1], "int32")
SCALE, BIAS = np.float32(12.0), np.float32(-3.0)
TEXTS, IMAGES = unit_rows(0, 7, 5), unit_rows(1, 7, 5)


def softmax_formula(logits, ids, smoothing):
    """Khosla et al.'s L_out, both ways, with the smoothing of torch.nn.CrossEntropyLoss; pair by pair."""
    total = 0.0
    for square in (logits, logits.T):
        for row, own in enumerate(ids):
            log_softmax = square[row] - np.log(np.exp(square[row]).sum())
            positives = [column for column, other in enumerate(ids) if other == own]
            hard = -np.mean([log_softmax[column] for column in positives])
            total += (1 - smoothing) * hard - smoothing * log_softmax.mean()
    return total / (2 * len(ids))


def sigmoid_formula(logits, ids, smoothing):
    """SigLIP's algorithm 1; with smoothing, each pair is with a probability of half of it of the other kind."""
    total = 0.0
    for row, own in enumerate(ids):
        for column, other in enumerate(ids):
            sign = 1.0 if own == other else -1.0
            right, wrong = (np.log1p(np.exp(-s * logits[row, column])) for s in (sign, -sign))
            total += (1 - smoothing / 2) * right + smoothing / 2 * wrong
    return total / len(ids)


CASES = [
    (contrastive_loss, ContrastiveLoss, softmax_formula),
    (sigmoid_loss, SigmoidLoss, sigmoid_formula),
]


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("ids", [None, IDS], ids=["one positive a row", "several"])
@pytest.mark.parametrize(("on_logits", "kind", "formula"), CASES, ids=["softmax", "sigmoid"])
def test_losses_are_what_their_formulas_say(on_logits, kind, formula, ids, smoothing):
    logits = SCALE * TEXTS @ IMAGES.T + BIAS
    expected = formula(logits.astype("float64"), np.arange(7) if ids is None else ids, smoothing)
    assert float(array(on_logits(logits, smoothing, ids))) == pytest.approx(expected, rel=1e-5)
    for chunk_size in (None, 3):
        loss = kind(smoothing, chunk_size)(TEXTS, IMAGES, SCALE, BIAS, pair_ids=ids)
        assert float(array(loss)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("chunk_size", "compiled"), [(3, True), (7, True), (10, True), (3, False)])
@pytest.mark.parametrize(("on_logits", "kind", "formula"), CASES, ids=["softmax", "sigmoid"])
def test_chunks_have_the_gradients_of_the_whole(on_logits, kind, formula, chunk_size, compiled):
    """Of both sides, of the scale and of the bias; times 3, since a loss may be scaled."""
    arguments = (TEXTS, IMAGES, SCALE, BIAS)
    expected, slopes = value_and_gradients(
        lambda t, i, s, b: 3.0 * on_logits(ops.matmul(t, ops.transpose(i)) * s + b, 0.1, IDS), *arguments
    )
    value, found = value_and_gradients(
        lambda t, i, s, b: 3.0 * kind(0.1, chunk_size)(t, i, s, b, pair_ids=IDS), *arguments, compiled=compiled
    )
    assert value == pytest.approx(expected, rel=1e-5)
    for ours, theirs in zip(found, slopes, strict=True):
        assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("chunk_size", [None, 2])
@pytest.mark.parametrize("kind", [ContrastiveLoss, SigmoidLoss])
def test_shares_of_devices_add_up_to_the_loss_of_all(kind, chunk_size):
    """Batches of 3 and 4 rows; the rows of one device are compared with those of the other."""
    loss = kind(0.1, chunk_size)

    def shares(texts, images):
        everything = GlobalBatch(texts, images, IDS)
        parts = (slice(0, 3), slice(3, 7))
        return sum(loss(texts[p], images[p], SCALE, BIAS, IDS[p], everything) for p in parts)

    expected, slopes = value_and_gradients(lambda t, i: loss(t, i, SCALE, BIAS, IDS), TEXTS, IMAGES)
    value, found = value_and_gradients(shares, TEXTS, IMAGES)
    assert value == pytest.approx(expected, rel=1e-6)
    for ours, theirs in zip(found, slopes, strict=True):
        assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("chunk_size", [None, 3])
def test_accuracy_counts_any_positive(chunk_size):
    texts, images = unit_rows(0, 7, 5), unit_rows(3, 7, 5)
    best = np.argmax(images @ texts.T, axis=1)
    own, any_positive = (best == np.arange(7)).mean(), (IDS[best] == IDS).mean()
    assert 0 < own < any_positive < 1
    loss = ContrastiveLoss(chunk_size=chunk_size)
    assert float(array(loss.accuracy(texts, images, pair_ids=IDS))) == pytest.approx(any_positive)
    assert float(array(loss.accuracy(texts, images))) == pytest.approx(own)


@pytest.mark.process
def test_chunks_bound_the_memory_forward_and_backward():
    """64 of 4096 rows at a time take less than half of the logits; all at once take more than these."""
    found = measured("losses")
    square = 4 * ROWS**2
    assert max(found["softmax in chunks"], found["sigmoid in chunks"]) < square / 2 < square < found["at once"]


def test_half_precision_embeddings_are_compared_in_full():
    half = [ops.cast(x, "bfloat16") for x in (TEXTS, IMAGES)]
    exact = ContrastiveLoss()(*(array(x) for x in half), SCALE)
    for chunk_size in (None, 3):
        loss = ContrastiveLoss(chunk_size=chunk_size)(*half, SCALE)
        assert keras.backend.standardize_dtype(loss.dtype) == "float32"
        assert_close(loss, exact, rtol=1e-6)


@pytest.fixture
def pairs():
    generator = np.random.default_rng(1)
    input_ids = generator.integers(0, 512, (12, 6)).astype("int32")
    input_ids[:, 0], input_ids[:, -1] = 512, 513
    pixel_values = generator.normal(size=(12, 20, 20, 3)).astype("float32")
    return {"input_ids": input_ids, "pixel_values": pixel_values}


@pytest.mark.parametrize("chunk_size", [None, 5])
def test_fit_reads_pair_ids(tiny_model, pairs, chunk_size):
    ids = np.repeat(np.arange(6, dtype="int32"), 2)
    logits = array(tiny_model(pairs)["logits_per_text"]).astype("float64")
    tiny_model.compile(keras.optimizers.SGD(0.1), loss=ContrastiveLoss(chunk_size=chunk_size), **EAGER)
    with_ids = tiny_model.evaluate({**pairs, "pair_ids": ids}, batch_size=12, verbose=0, return_dict=True)
    without = tiny_model.evaluate(pairs, batch_size=12, verbose=0, return_dict=True)
    assert with_ids["loss"] == pytest.approx(softmax_formula(logits, ids, 0.0), rel=1e-5)
    assert without["loss"] == pytest.approx(softmax_formula(logits, np.arange(12), 0.0), rel=1e-5)
    assert with_ids["accuracy"] == pytest.approx((ids[np.argmax(logits.T, axis=1)] == ids).mean())
    losses = tiny_model.fit({**pairs, "pair_ids": ids}, batch_size=12, epochs=5, verbose=0).history["loss"]
    assert losses[-1] < losses[0]


def test_the_models_own_loss_reads_pair_ids(tiny_model, pairs):
    ids = np.repeat(np.arange(6, dtype="int32"), 2)
    output = tiny_model({**pairs, "pair_ids": ids}, return_loss=True)
    assert_close(output.loss, contrastive_loss(output.logits_per_text, pair_ids=ids), rtol=1e-6)


@pytest.mark.slow
def test_the_sigmoid_loss_trains_a_model_that_has_a_bias(tiny_config, pairs):
    model = CLIPModel(CLIPConfig.from_dict({**tiny_config.to_dict(), "logit_bias_init_value": -10.0}))
    logits = array(model(pairs)["logits_per_text"]).astype("float64")
    model.compile(keras.optimizers.Adam(1e-2), loss=SigmoidLoss(chunk_size=5), **EAGER)
    before = model.evaluate(pairs, batch_size=12, verbose=0, return_dict=True)["loss"]
    assert before == pytest.approx(sigmoid_formula(logits, np.arange(12), 0.0), rel=1e-5)
    bias = float(array(model.logit_bias))
    losses = model.fit(pairs, batch_size=12, epochs=5, verbose=0).history["loss"]
    assert losses[-1] < losses[0]
    assert float(array(model.logit_bias)) != bias


def test_the_sigmoid_loss_is_refused_by_a_model_without_a_bias(tiny_model):
    with pytest.raises(ValueError, match="logit_bias_init_value"):
        tiny_model.compile("sgd", loss=SigmoidLoss())


def test_a_loss_of_ones_own_is_called_with_the_embeddings(tiny_model, pairs):
    class Cosine(PairLoss):
        def __call__(self, text_embeds, image_embeds, scale, bias=None, pair_ids=None, global_batch=None):
            return 1.0 - ops.mean(ops.sum(text_embeds * image_embeds, axis=-1))

    tiny_model.compile("sgd", loss=Cosine())
    output = tiny_model(pairs)
    expected = 1.0 - (array(output.text_embeds) * array(output.image_embeds)).sum(-1).mean()
    found = tiny_model.evaluate(pairs, batch_size=12, verbose=0, return_dict=True)["loss"]
    assert found == pytest.approx(expected, rel=1e-5)


def test_a_saved_model_keeps_how_it_is_trained(tiny_model, pairs, tmp_path):
    tiny_model.compile(keras.optimizers.SGD(0.1), loss=ContrastiveLoss(0.1, 4), encode_chunk_size=5)
    tiny_model.save(tmp_path / "model.keras")
    restored = keras.saving.load_model(tmp_path / "model.keras")
    assert repr(restored._pair_loss) == "ContrastiveLoss(label_smoothing=0.1, chunk_size=4)"
    assert restored._encode_chunk_size == 5


@pytest.mark.parametrize("smoothing", [-0.1, 1.0])
def test_a_smoothing_that_is_no_share_is_refused(smoothing):
    for refuse in (lambda: ContrastiveLoss(smoothing), lambda: contrastive_loss(np.eye(2), smoothing)):
        with pytest.raises(ValueError, match="`label_smoothing` must be at least 0 and below 1"):
            refuse()


@pytest.mark.parametrize("chunk_size", [0, -1, 2.0])
def test_a_chunk_of_no_rows_is_refused(tiny_model, chunk_size):
    with pytest.raises(ValueError, match="`chunk_size` must be a positive whole number"):
        SigmoidLoss(chunk_size=chunk_size)
    with pytest.raises(ValueError, match="`encode_chunk_size` must be a positive whole number"):
        tiny_model.compile("sgd", encode_chunk_size=chunk_size)


def test_unequal_numbers_of_texts_and_images_are_refused():
    with pytest.raises(ValueError, match="must have the same number of rows"):
        ContrastiveLoss()(TEXTS[:3], IMAGES, SCALE)
    with pytest.raises(ValueError, match="`pair_ids` must be given with a `global_batch`"):
        ContrastiveLoss()(TEXTS, IMAGES, SCALE, global_batch=GlobalBatch(TEXTS, IMAGES, IDS))
