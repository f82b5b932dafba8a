"""For TensorBoard: curves, and the validation pairs that the model finds most and least alike."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tf_clip.tasks.embedding import embed_images, embed_texts
from tf_clip.training.callbacks import evaluated_weights, require_one_each


class PairsInTensorBoard(keras.callbacks.Callback):
    """After each epoch, writes its metrics, and the best and worst validation pairs with their cosine similarities.

    Give it after the callbacks whose metrics it is to write. TensorBoard is needed to look at them, not to write
    them: `pip install 'tf_clip[train]'`.

    Args:
        log_dir: the folder of the file that is written; TensorBoard is given it or one above it.
        processor: the model's processor.
        images: images as `embed_images` takes them; unreadable ones are left out.
        captions: the captions of each image, of which the first is compared.
        count: how many of the best, and of the worst.
        batch_size: images a forward pass.

    Raises:
        ValueError: images and captions differ in number, or there are none.
    """

    def __init__(
        self,
        log_dir: str | os.PathLike[str],
        processor: Any,
        images: Sequence[Any],
        captions: Sequence[Sequence[str]],
        *,
        count: int = 8,
        batch_size: int = 64,
    ) -> None:
        super().__init__()
        require_one_each("captions", captions, images)
        self._log_dir, self._processor, self._images = os.fspath(log_dir), processor, images
        self._captions, self._count, self._batch_size = [group[0] for group in captions], count, batch_size

    def on_train_begin(self, logs: Any = None) -> None:
        """Opens the file."""
        self._writer = tf.summary.create_file_writer(self._log_dir)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Writes the pairs."""
        model = self.model
        with evaluated_weights(model):
            images = embed_images(
                model, self._processor, self._images, batch_size=self._batch_size, skip_unreadable=True
            )
            texts = embed_texts(model, self._processor, [self._captions[index] for index in images.indices])
        similarities = np.sum(images.embeds * texts, axis=1)
        order = np.argsort(-similarities, kind="stable")
        with self._writer.as_default(step=epoch + 1):
            for name, value in (logs or {}).items():
                _write("scalars", name, tf.constant(float(value)))
            for name, rows in (("best", order[: self._count]), ("worst", order[::-1][: self._count])):
                chosen = [int(images.indices[row]) for row in rows]
                _write_images(f"{name} pairs", self._shown(chosen))
                lines = [
                    f"{place}. {similarities[row]:.3f} {self._captions[index]}"
                    for place, (row, index) in enumerate(zip(rows, chosen, strict=True), start=1)
                ]
                _write("text", f"{name} pairs", tf.constant(["  \n".join(lines)]))
        self._writer.flush()

    def on_train_end(self, logs: Any = None) -> None:
        """Closes the file."""
        self._writer.close()

    def _shown(self, indices: Sequence[int]) -> np.ndarray:
        """Returns images as the model sees them, uint8 `[count, height, width, 3]`."""
        images = self._processor.image_processor
        prepared = [np.asarray(self._processor(images=self._images[index])["pixel_values"][0]) for index in indices]
        pixels: np.ndarray = np.stack(prepared) * np.array(images.image_std) + np.array(images.image_mean)
        return np.clip(np.round(pixels * 255.0), 0, 255).astype(np.uint8)


def _write_images(tag: str, pixels: np.ndarray) -> None:
    height, width = pixels.shape[1:3]
    encoded = [tf.io.encode_png(image) for image in pixels]
    # What TensorBoard's plugin for images reads: width and height as text, then the files.
    _write("images", tag, tf.stack([tf.constant(str(width)), tf.constant(str(height)), *encoded]))


# Which of TensorBoard's plugins reads what: a number, a tensor, or a list of files.
_DATA_CLASSES = {"scalars": 1, "text": 2, "images": 3}


def _write(plugin: str, tag: str, values: tf.Tensor) -> None:
    # tf.summary.image and its like ask for TensorBoard; this is all that they write.
    summary = tf.compat.v1.SummaryMetadata
    plugin_data = summary.PluginData(plugin_name=plugin)
    tf.summary.write(
        tag,
        values,
        metadata=summary(display_name=tag, plugin_data=plugin_data, data_class=_DATA_CLASSES[plugin]),
    )
