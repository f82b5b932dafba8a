"""Callbacks: what they report is what evaluation says of the weights to be saved; what TensorBoard is given."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from tf_clip import (
    CLIPModel,
    class_embeddings,
    class_probabilities,
    classification_report,
    contrastive_loss,
    embed_images,
    embed_texts,
    retrieval_report,
)
from tf_clip.training.callbacks import RetrievalRecall, TrainingLog, ZeroShotAccuracy
from tf_clip.training.optimizers import averaged_weights
from tf_clip.training.recipes import full
from tf_clip.training.resume import Progress
from tf_clip.training.tensorboard import PairsInTensorBoard

CAPTIONS = [["ant"], ["bee", "wasp"], ["cow"], ["dog", "wolf", "fox"], ["eel"]]


@pytest.fixture(scope="module")
def images():
    return list(np.random.default_rng(2).integers(0, 256, (5, 20, 20, 3), dtype=np.uint8))


@pytest.fixture(params=[None, 0.5])
def trained(small_config, random_pairs, request):
    model = CLIPModel(small_config)
    full(learning_rate=1e-2, warmup_steps=0, ema_momentum=request.param).compile(model, 100, run_eagerly=True)
    model.fit(random_pairs, batch_size=12, verbose=0)
    return model


def reported(callback, model, logs=None):
    logs = {} if logs is None else logs
    callback.set_model(model)
    callback.on_epoch_end(0, logs)
    return logs


def to_be_saved(model, work):
    if model.optimizer.average_momentum is None:
        return work()
    trained = work()
    with averaged_weights(model):
        averaged = work()
    assert np.abs(trained[0] - averaged[0]).max() > 1e-4
    return averaged


def test_recall_is_of_all_captions_and_the_loss_of_the_first(trained, tiny_processor, images):
    logs = reported(RetrievalRecall(tiny_processor, [b"broken", *images], [["-"], *CAPTIONS], batch_size=5), trained)

    def work():
        texts = embed_texts(trained, tiny_processor, [text for group in CAPTIONS for text in group])
        return embed_images(trained, tiny_processor, images).embeds, texts, float(trained.logit_scale.numpy())

    image_embeds, texts, scale = to_be_saved(trained, work)
    report = retrieval_report(image_embeds, texts, [0, 1, 1, 2, 3, 3, 3, 4])
    for direction, metrics in (("image_to_text", report.image_to_text), ("text_to_image", report.text_to_image)):
        for name in ("R@1", "R@5", "R@10"):
            assert logs[f"val_{direction}_{name}"] == metrics[name]
    expected = contrastive_loss(np.exp(scale) * texts[[0, 1, 3, 4, 7]] @ image_embeds.T)
    assert logs["val_loss"] == pytest.approx(float(expected), rel=1e-4)


def test_zero_shot_accuracy_is_that_of_the_report(trained, tiny_processor, images):
    names, targets = ["ant", "bee", "cow"], [0, 1, 2, 0, 1]
    callback = ZeroShotAccuracy(tiny_processor, [b"broken", *images], [2, *targets], names, ["a {}", "the {}"])
    logs = reported(callback, trained)
    assert callback.failures.keys() == {0}

    def work():
        classes = class_embeddings(trained, tiny_processor, names, ["a {}", "the {}"])
        return embed_images(trained, tiny_processor, images).embeds, classes, float(trained.logit_scale.numpy())

    report = classification_report(class_probabilities(*to_be_saved(trained, work)), targets, names)
    assert logs == {"val_zero_shot_top1": report.top1, "val_zero_shot_top5": 1.0}


def test_tensorboard_gets_curves_and_the_best_and_worst_pairs(tiny_model, tiny_processor, images, tmp_path):
    tiny_model.compile("sgd")
    callback = PairsInTensorBoard(tmp_path, tiny_processor, images, CAPTIONS, count=2)
    callback.on_train_begin()
    reported(callback, tiny_model, {"loss": 0.25})
    callback.on_train_end()
    (path,) = tmp_path.glob("events.out.tfevents.*")
    found = {}
    for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
        event = tf.compat.v1.Event.FromString(record)
        for value in event.summary.value:
            found[value.metadata.plugin_data.plugin_name, value.tag] = event.step, tf.make_ndarray(value.tensor)
    assert found["scalars", "loss"] == (1, 0.25)
    own = np.sum(
        embed_images(tiny_model, tiny_processor, images).embeds
        * embed_texts(tiny_model, tiny_processor, [group[0] for group in CAPTIONS]),
        axis=1,
    )
    for tag, order in (("best pairs", np.argsort(-own)), ("worst pairs", np.argsort(own))):
        width, height, *shown = found["images", tag][1]
        assert (width, height) == (b"20", b"20")
        for index, image in zip(order[:2], shown, strict=True):
            np.testing.assert_allclose(tf.io.decode_png(image), images[index], atol=1)
        text = found["text", tag][1][0].decode()
        assert [line.split()[-1] for line in text.splitlines()] == [CAPTIONS[index][0] for index in order[:2]]


def test_a_log_that_goes_on_drops_what_will_be_done_again(tiny_model, tmp_path):
    path = tmp_path / "log.jsonl"
    lines = [{"epoch": 1, "step": 1}, {"epoch": 1, "step": 2}, {"epoch": 1, "loss": 2.0}, {"epoch": 2, "step": 3}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"epoch": 2, "st')
    log = TrainingLog(path)
    log.set_params({"progress": Progress(epoch=1, batch=0, step=2)})
    log.on_train_begin()
    tiny_model.compile(keras.optimizers.SGD(0.5))
    log.set_model(tiny_model)
    log.on_epoch_begin(1)
    log.on_train_batch_end(0, {"loss": 1.5})
    log.on_train_end()
    *kept, new = map(json.loads, path.read_text().splitlines())
    assert kept == lines[:3]
    assert new.pop("seconds") >= 0
    scale = float(tiny_model.logit_scale.numpy())
    assert new == {"epoch": 2, "batch": 1, "step": 3, "loss": 1.5, "learning_rate": 0.5, "logit_scale": scale}


def test_captions_for_each_image_are_needed(tiny_processor, images):
    with pytest.raises(ValueError, match="`captions` must hold the captions of each of `images`"):
        RetrievalRecall(tiny_processor, images, CAPTIONS[:2])
    with pytest.raises(ValueError, match="`captions` must hold the captions of each of `images`"):
        PairsInTensorBoard("board", tiny_processor, images, CAPTIONS[:2])
    with pytest.raises(ValueError, match="`targets` must hold the targets of each of `images`"):
        ZeroShotAccuracy(tiny_processor, images, [0, 1], ["ant", "bee"])
