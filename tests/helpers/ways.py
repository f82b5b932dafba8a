"""The ways through the package, and the files that each enters.

    PYTHONPATH=tests python -m helpers.ways                # every way, file by file
    PYTHONPATH=tests python -m helpers.ways image string   # some

A file counts once it runs while a way is walked for the first time, so that graphs are traced. What makes the objects
(importing, loading the model) does not count. A file comes back if more than one file calls into it: a reader who
follows the way would open it twice.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import io
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any
from unittest import mock

import tensorflow as tf

import tf_clip

PACKAGE = f"{Path(tf_clip.__file__).parent}/"
MODEL = "pictogram-clip"
_IMAGE = Path(__file__).parents[2] / "examples/images/owl.png"
_START = "(start)"


@dataclasses.dataclass
class Way:
    """The files that a way enters.

    Args:
        callers: from a file, below the package and in the order of the way, to the files that call into it.
    """

    callers: dict[str, set[str]] = dataclasses.field(default_factory=dict)

    @property
    def files(self) -> list[str]:
        """The files entered, in order."""
        return list(self.callers)

    @property
    def come_back(self) -> list[str]:
        """Those that more than one file calls into."""
        return [name for name, callers in self.callers.items() if len(callers) > 1]

    def record(self, frame: FrameType, event: str, _: Any) -> None:
        """Takes note of a call, as `sys.setprofile` tells it."""
        if event != "call" or not frame.f_code.co_filename.startswith(PACKAGE):
            return
        name = _name_in_package(frame)
        if frame.f_code.co_flags & inspect.CO_GENERATOR and name in self.callers:
            return  # goes on where it was
        below = [one for one in _stack_below(frame) if one.f_code.co_filename.startswith(PACKAGE)]
        if any(one.f_code.co_name == "<module>" for one in (frame, *below)):
            return  # an import
        caller = _name_in_package(below[0]) if below else _START
        callers = self.callers.setdefault(name, set())
        if caller != name:
            callers.add(caller)


def _name_in_package(frame: FrameType) -> str:
    return frame.f_code.co_filename.removeprefix(PACKAGE)


def _stack_below(frame: FrameType) -> Iterator[FrameType]:
    below = frame.f_back
    while below is not None:
        yield below
        below = below.f_back


def walked(walk: Callable[[], object]) -> Way:
    """Walks a way, in the threads of `tf.data`, too, and returns the files that it enters."""
    way = Way()

    def seen(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            sys.setprofile(way.record)
            try:
                return function(*arguments)
            finally:
                sys.setprofile(None)

        return run

    plain = tf.numpy_function
    # Profilers are one a thread, and TensorFlow runs these functions in its own.
    with mock.patch.object(tf, "numpy_function", lambda func, *rest, **options: plain(seen(func), *rest, **options)):
        # AutoGraph would run translations of the files, in files of its own.
        tf.autograph.experimental.do_not_convert(seen(walk))()
    return way


def _image() -> Callable[[], object]:
    model, processor = tf_clip.CLIPModel.from_pretrained(MODEL), tf_clip.CLIPProcessor.from_pretrained(MODEL)
    return lambda: model.get_image_features(**processor(images=[_IMAGE.read_bytes()]))


def _image_in_graph() -> Callable[[], object]:
    model, processor = tf_clip.CLIPModel.from_pretrained(MODEL), tf_clip.CLIPProcessor.from_pretrained(MODEL)
    return lambda: model.get_image_features(**processor.image_processor([_IMAGE.read_bytes()]))


def _string() -> Callable[[], object]:
    model, processor = tf_clip.CLIPModel.from_pretrained(MODEL), tf_clip.CLIPProcessor.from_pretrained(MODEL)
    return lambda: model.get_text_features(**processor.tokenizer(["an owl", "a bus"]))


def _checkpoint() -> Callable[[], object]:
    return lambda: tf_clip.CLIPModel.from_pretrained(MODEL)


def _pair() -> Callable[[], object]:
    from tf_clip import read_pairs
    from tf_clip.data.training_data import TrainingData

    model, processor = tf_clip.CLIPModel.from_pretrained(MODEL), tf_clip.CLIPProcessor.from_pretrained(MODEL)
    model.compile("sgd")
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder) / "pairs.csv"
        table.write_text(f"image,caption\n{_IMAGE},an owl\n{_IMAGE.with_name('bus.png')},a bus\n", "utf-8")
        pairs = read_pairs(table)
    data = TrainingData(pairs, processor, batch_size=2)
    return lambda: model.fit(data.dataset(), steps_per_epoch=1, verbose=0)


def _classify() -> Callable[[], object]:
    from tf_clip.cli.main import main

    def walk() -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            main(["classify", str(_IMAGE), "--labels", "owl,bus"])

    return walk


WAYS = {
    "image": _image,
    "image-in-graph": _image_in_graph,
    "string": _string,
    "checkpoint": _checkpoint,
    "pair": _pair,
    "classify": _classify,
}
"""What prepares each way: image bytes to embedding, also decoded in the graph; a string to its embedding; a checkpoint
to variables; a pair to a weight update; and `tf-clip classify`."""


if __name__ == "__main__":
    for chosen in sys.argv[1:] or WAYS:
        found = walked(WAYS[chosen]())
        print(f"{chosen}: {len(found.files)} files, {len(found.come_back)} of which come back")
        for file, calling in found.callers.items():
            print(f"  {file:45} from {', '.join(sorted(calling))}")
