"""`TrainingData`: pairs to batches, the same ones for the same seed, from any batch on."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import functools
import gc
from collections.abc import Iterator
from typing import Any, NoReturn

import numpy as np
import tensorflow as tf

from tf_clip.data.augmentation import Augmentation
from tf_clip.data.pairs import Pairs
from tf_clip.data.skipped import ExampleError, SkippedExample, SkippedExamples, TooManySkipped
from tf_clip.errors import require
from tf_clip.preprocessing.images.decode import reason_of
from tf_clip.preprocessing.images.image_processor import ImageProcessor
from tf_clip.preprocessing.processor import Processor


class TrainingData:
    """What `CLIPModel.fit` trains on, epoch by epoch.

    A batch depends on the pairs, the seed, the epoch and the batch's number alone. A run that goes on in the middle of
    an epoch therefore gets the same batches, and reads nothing before them. An unreadable example does not move the
    others: the example one batch further on takes its place, and so is seen twice.

    Args:
        pairs: what `read_pairs` returns.
        processor: the model's processor.
        batch_size: pairs a batch; the loss compares each with all others of its batch.
        augment: random changes of the images; None prepares them as for inference.
        shuffle: draw a new order each epoch.
        seed: decides orders, augmentations, and which of an image's captions is taken.
        max_skipped_share: a larger share of unreadable examples stops the run.
        max_length: longest text, in tokens; None takes the tokenizer's.
        padding: as the tokenizer takes it: `"longest"`, or `"max_length"` for batches of one shape.
        drop_remainder: leave out the last batch of an epoch if it is smaller.

    Raises:
        TooManySkipped: too many are unreadable in the table alone.
        ValueError: there are fewer pairs than a batch; an argument is out of its range; or the processor's images are
            not all of one size.

    Example:
        >>> data = TrainingData(read_pairs("pairs.csv"), processor, batch_size=64)  # doctest: +SKIP
        >>> for epoch in range(3):  # doctest: +SKIP
        ...     model.fit(data.dataset(epoch), initial_epoch=epoch, epochs=epoch + 1)
    """

    def __init__(
        self,
        pairs: Pairs,
        processor: Processor,
        *,
        batch_size: int,
        augment: Augmentation | None = None,
        shuffle: bool = True,
        seed: int = 0,
        max_skipped_share: float = 0.1,
        max_length: int | None = None,
        padding: str = "longest",
        drop_remainder: bool = True,
    ) -> None:
        extractor = processor.image_processor
        _require(batch_size, seed, max_skipped_share, padding, len(pairs) if drop_remainder else None)
        if extractor.output_size is None or (augment is not None and not extractor.do_resize):
            raise ValueError(
                "`processor` must bring all images to one size, and for `augment` must resize. Received: "
                f"do_resize={extractor.do_resize}, do_center_crop={extractor.do_center_crop}. Set both."
            )
        self._pairs, self._tokenizer, self._augment = pairs, processor.tokenizer, augment
        self._size: tuple[int, int] = extractor.output_size
        self._batch_size, self._shuffle, self._seed = batch_size, shuffle, seed
        self._max_length, self._padding, self._drop_remainder = max_length, padding, drop_remainder
        longest = processor.tokenizer.model_max_length if max_length is None else max_length
        self._length = longest if padding == "max_length" else None
        self._skipped = SkippedExamples(pairs.skipped, len(pairs) + len(pairs.skipped), max_skipped_share)
        self._stopped: TooManySkipped | None = None
        self._prepare = _preparation(extractor, augment, self._size)

    @property
    def steps_per_epoch(self) -> int:
        """Number of batches of an epoch."""
        return len(self._pairs) // self._batch_size if self._drop_remainder else self._num_batches

    @property
    def skipped(self) -> list[SkippedExample]:
        """Unreadable examples that were met so far, each once and in the order of the data."""
        return self._skipped.to_list()

    @property
    def settings(self) -> dict[str, Any]:
        """What the batches depend on, as values that JSON can hold: a run that goes on must have the same."""
        return {
            "pairs": len(self._pairs),
            "batch_size": self._batch_size,
            "augment": None if self._augment is None else dataclasses.asdict(self._augment),
            "shuffle": self._shuffle,
            "seed": self._seed,
            "max_length": self._max_length,
            "padding": self._padding,
        }

    def dataset(self, epoch: int = 0, start: int = 0) -> tf.data.Dataset:
        """Returns the batches of one epoch.

        Args:
            epoch: from 0.
            start: the batch to begin with, from 0 to `steps_per_epoch`; nothing before it is read.

        Returns:
            A dataset of `{"input_ids", "attention_mask", "pixel_values"}`, and `"pair_ids"`, int32 `[batch]`, if some
            pairs belong together: equal numbers are positives of each other.

        Raises:
            ValueError: there is no such batch. While iterating, `tf.errors.OpError` for too many
                unreadable examples; see `raising`.
        """
        if epoch < 0 or not 0 <= start <= self.steps_per_epoch:
            raise ValueError(
                f"`start` must be a batch of an epoch, from 0 to {self.steps_per_epoch}, and `epoch` not below 0. "
                f"Received: epoch={epoch!r}, start={start!r}. Go on with the next epoch."
            )
        _end_reading_at_exit()
        last = min(self.steps_per_epoch * self._batch_size, len(self._pairs))
        read = functools.partial(self._example, self._order(epoch), self._drawing_seed(epoch))

        def example(slot: tf.Tensor) -> tuple[tf.Tensor, ...]:
            kinds = [tf.TensorSpec([], tf.string), tf.TensorSpec([*self._size, 3]), tf.TensorSpec([], tf.int32)]
            values = tf.numpy_function(read, [slot], [kind.dtype for kind in kinds])
            return tuple(tf.ensure_shape(value, kind.shape) for value, kind in zip(values, kinds, strict=True))

        slots = tf.data.Dataset.range(min(start * self._batch_size, last), last)
        examples = slots.map(example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        batches = examples.batch(self._batch_size, drop_remainder=self._drop_remainder)
        return batches.map(self._tokenized).prefetch(2)

    @contextlib.contextmanager
    def raising(self) -> Iterator[None]:
        """Returns a block in which `TooManySkipped` is raised as itself, and not as TensorFlow's error for its input.

        Raises:
            TooManySkipped: there were too many.

        Example:
            >>> with data.raising():  # doctest: +SKIP
            ...     model.fit(data.dataset())
        """
        self._stopped = None
        try:
            yield
        except tf.errors.OpError as error:
            if self._stopped is None:
                raise
            raise self._stopped from error

    @property
    def _num_batches(self) -> int:
        """All batches, the last of which may be smaller and not be used."""
        return -(-len(self._pairs) // self._batch_size)

    def _order(self, epoch: int) -> np.ndarray:
        if not self._shuffle:
            return np.arange(len(self._pairs))
        return self._pairs.shuffled(np.random.default_rng([self._seed, epoch]))

    def _drawing_seed(self, epoch: int) -> int:
        # Of another stream than the order's.
        return int(np.random.SeedSequence([self._seed, epoch, 1]).generate_state(1, np.uint64)[0] >> np.uint64(1))

    def _example(self, order: np.ndarray, drawing_seed: int, slot: np.ndarray) -> tuple[Any, ...]:
        """Reads and prepares the first readable one of the examples that may stand at a place of an epoch."""
        drawn = np.array([drawing_seed, slot])
        for attempt in range(self._num_batches * self._batch_size):
            row = self._candidate(order, int(slot), attempt)
            if row is None or row in self._skipped.found:
                continue
            try:
                pair = self._pairs.read(row)
                pixel_values = self._pixel_values(pair.image, drawn)
            except ExampleError as error:
                self._note(row, str(error))
                continue
            choice = int(np.random.default_rng(drawn).integers(len(pair.captions))) if len(pair.captions) > 1 else 0
            group = row if self._pairs.groups is None else self._pairs.groups[row]
            return np.array(pair.captions[choice].encode(), object), pixel_values, np.int32(group)
        self._stop(TooManySkipped(self.skipped, len(self._pairs) + len(self._pairs.skipped), 1.0))

    def _candidate(self, order: np.ndarray, slot: int, attempt: int) -> int | None:
        """Returns the row at a place of an epoch after `attempt` rows there were unreadable.

        It is taken from the same place of the following batches, so that no row is twice in a batch, and from other
        places only when all batches were tried.
        """
        batch, place = divmod(slot, self._batch_size)
        further, aside = attempt % self._num_batches, attempt // self._num_batches
        batch, place = (batch + further) % self._num_batches, (place + aside) % self._batch_size
        position = batch * self._batch_size + place
        return int(order[position]) if position < len(order) else None

    def _pixel_values(self, data: bytes, drawn: np.ndarray) -> np.ndarray:
        try:
            with tf.device("CPU"):
                pixels: np.ndarray = self._prepare(tf.constant(data), tf.constant(drawn)).numpy()
                return pixels
        except tf.errors.InvalidArgumentError as error:
            raise ExampleError(f"the image cannot be decoded: {reason_of(error)}") from error

    def _note(self, row: int, why: str) -> None:
        try:
            self._skipped.add(row, SkippedExample(self._pairs.where(row), why))
        except TooManySkipped as error:
            self._stop(error)

    def _stop(self, error: TooManySkipped) -> NoReturn:
        self._stopped = error
        raise error

    def _tokenized(self, captions: tf.Tensor, pixel_values: tf.Tensor, groups: tf.Tensor) -> dict[str, tf.Tensor]:
        def tokens(texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            # Outside the graph, where the tokenizer is ready: inside, each epoch would take a second to build it again.
            with tf.device("CPU"):
                found = self._tokenizer(
                    [text.decode() for text in texts], self._padding, max_length=self._max_length, return_tensors="np"
                )
            return found["input_ids"], found["attention_mask"]

        shape = [captions.shape[0], self._length]
        ids, mask = (tf.ensure_shape(found, shape) for found in tf.numpy_function(tokens, [captions], [tf.int32] * 2))
        shared = {} if self._pairs.groups is None else {"pair_ids": groups}
        return {"input_ids": ids, "attention_mask": mask, "pixel_values": pixel_values, **shared}


@functools.lru_cache(maxsize=8)
def _preparation(extractor: ImageProcessor, augment: Augmentation | None, size: tuple[int, int]) -> Any:
    """Returns a file's bytes, and a seed, to `pixel_values`; traced once, since that takes seconds."""

    def prepare(data: tf.Tensor, drawn: tf.Tensor) -> tf.Tensor:
        if augment is None:
            return extractor.prepare_file(data)
        pixels = augment(extractor.decode_file(data), drawn, size, extractor.resample)
        return extractor.normalize(pixels)

    return tf.function(
        prepare, input_signature=[tf.TensorSpec([], tf.string), tf.TensorSpec([2], tf.int64)], autograph=False
    )


def _require(batch_size: int, seed: int, max_skipped_share: float, padding: str, most: int | None) -> None:
    rule = "at least 1" if most is None else f"from 1 to the number of pairs, {most}"
    fits = batch_size >= 1 and (most is None or batch_size <= most)
    require(fits, "batch_size", rule, batch_size, "Take a smaller one, or drop_remainder=False.")
    require(seed >= 0, "seed", "a whole number from 0", seed, "Take another.")
    is_share = 0.0 <= max_skipped_share <= 1.0
    require(is_share, "max_skipped_share", "from 0 to 1", max_skipped_share, "0 allows none.")
    is_rectangular = padding in ("longest", "max_length")
    require(is_rectangular, "padding", "'longest' or 'max_length'", padding, "Batches must be rectangular.")


@functools.cache
def _end_reading_at_exit() -> None:
    """Makes the interpreter end reading before it ends itself, which would otherwise wait for it forever.

    A thread of TensorFlow that runs Python while the interpreter ends never returns. What deletes the iterator of a
    dataset waits for that thread: a program that stops in the middle of its data would hang after its last line.
    """
    atexit.register(_end_reading)


def _end_reading() -> None:
    for iterator in [found for found in gc.get_objects() if isinstance(found, tf.data.Iterator)]:
        vars(iterator).clear()  # variables of a program, and tracebacks, may still refer to the iterator itself
    gc.collect()
