"""Times a model on this machine: on images, captions, pairs, and pairs of files and strings."""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tf_clip.inference import CompiledModel, compile_for_inference
from tf_clip.models.two_towers import TwoTowerModel
from tf_clip.preprocessing.processor import Processor

KINDS = ("image", "text", "joint", "end_to_end")
_HEIGHT, _WIDTH = 480, 640
_CAPTIONS = (
    "two dogs are running along the beach in the evening sun",
    "a plate of pasta with basil and a glass of water next to it",
    "an old bicycle leans against a blue wooden door",
    "a bowl of tomato soup",
    "snow covers the roofs of a village below the mountains",
    "a man in a suit looks at his phone on an escalator",
    "a hot air balloon with red and white stripes rises over a lake at dawn",
    "a girl with a yellow umbrella jumps over a puddle",
)


@dataclasses.dataclass(frozen=True)
class Measurement:
    """How long one kind of work takes.

    Args:
        kind: one of `KINDS`.
        batch: the number of images, captions or pairs.
        engine: the name of the engine.
        seconds: of a call, the median of the rounds.
        fastest: seconds of the fastest round.
        slowest: seconds of the slowest round.
    """

    kind: str
    batch: int
    engine: str
    seconds: float
    fastest: float
    slowest: float

    @property
    def per_second(self) -> float:
        """Images, captions or pairs per second."""
        return self.batch / self.seconds


def benchmark(
    model: TwoTowerModel,
    processor: Processor,
    *,
    engines: Sequence[str],
    batches: Sequence[int],
    kinds: Sequence[str] = KINDS,
    rounds: int = 5,
    seconds: float = 0.3,
    on_progress: Callable[[int], None] | None = None,
) -> list[Measurement]:
    """Times every kind of work at every batch size with every engine; the engines take turns.

    Args:
        model: the model.
        processor: its processor.
        engines: names that `compile_for_inference` takes.
        batches: batch sizes.
        kinds: some of `KINDS`: images, captions, both compared, or both from JPEG bytes and strings.
        rounds: turns of each engine.
        seconds: the least time of a turn, which has at least one call.
        on_progress: called with the number of pieces of work just done.

    Returns:
        One measurement for each kind, batch and engine, in this order.

    Raises:
        ValueError: an engine or a kind is unknown.
    """
    unknown = set(kinds) - set(KINDS)
    if unknown:
        raise ValueError(f"`kinds` must be some of {KINDS}. Received: kinds={tuple(kinds)!r}. Leave {unknown} out.")
    compiled = {name: compile_for_inference(model, processor, engine=name) for name in engines}
    found = []
    for kind in kinds:
        for batch in batches:
            calls = {name: work(kind, batch, processor, engine) for name, engine in compiled.items()}
            times: dict[str, list[float]] = {name: [] for name in calls}
            for call in calls.values():
                call()  # traces and compiles
            for _ in range(rounds):
                for name, call in calls.items():
                    times[name].append(_turn(call, seconds))
            for name, rounds_of in times.items():
                middle = statistics.median(rounds_of)
                found.append(Measurement(kind, batch, name, middle, min(rounds_of), max(rounds_of)))
            if on_progress:
                on_progress(1)
    return found


def work(kind: str, batch: int, processor: Processor, engine: CompiledModel) -> Callable[[], Any]:
    """Returns a function that does one piece of work and waits for its result.

    Args:
        kind: one of `KINDS`.
        batch: the number of images, captions or pairs.
        processor: the model's.
        engine: the model's compiled towers.
    """
    # Each starts with its own number: a beginning that texts share is computed once.
    strings = [f"{index} {_CAPTIONS[index % len(_CAPTIONS)]}" for index in range(batch)]
    if kind == "end_to_end":
        files = tf.constant(list(_images(batch)))
        prepare = _preparation(processor)

        def end_to_end() -> Any:
            pixels, tokens = prepare(files, tf.constant(strings))
            return engine(**tokens, pixel_values=pixels).logits_per_image

        return end_to_end
    side = processor.image_processor(np.zeros((8, 8, 3), np.uint8))["pixel_values"].shape[1]
    pixels = tf.random.stateless_normal((batch, side, side, 3), seed=(0, 0))
    tokens = {name: tf.constant(value) for name, value in processor.tokenizer(strings).items()}
    calls: dict[str, Callable[[], Any]] = {
        "image": lambda: np.asarray(engine.get_image_features(pixels)),
        "text": lambda: np.asarray(engine.get_text_features(**tokens)),
        "joint": lambda: engine(**tokens, pixel_values=pixels).logits_per_image,
    }
    return calls[kind]


def _turn(call: Callable[[], Any], seconds: float) -> float:
    taken: list[float] = []
    while not taken or sum(taken) < seconds:
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def _preparation(processor: Processor) -> Callable[..., Any]:
    signature = [tf.TensorSpec([None], tf.string), tf.TensorSpec([None], tf.string)]

    def prepare(files: Any, strings: Any) -> Any:
        return processor.image_processor(files)["pixel_values"], processor.tokenizer(strings)

    traced: Callable[..., Any] = tf.function(prepare, input_signature=signature, autograph=False)
    return traced


def _images(count: int) -> Iterator[bytes]:
    generator = np.random.default_rng(0)
    for _ in range(count):
        rough = generator.integers(0, 256, (_HEIGHT // 8, _WIDTH // 8, 3), dtype=np.uint8)
        smooth = tf.clip_by_value(tf.image.resize(rough, (_HEIGHT, _WIDTH), "bicubic"), 0.0, 255.0)
        yield tf.io.encode_jpeg(tf.cast(smooth, tf.uint8), quality=90).numpy()
