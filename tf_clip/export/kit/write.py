"""`serving_kit`: what a server needs beside an exported model, and how to run it and ask it."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from tf_clip.export.kit.batching import Batching, choose_batching
from tf_clip.export.kit.example_inputs import example_inputs
from tf_clip.export.kit.latency import Timed, batch_sizes_up_to, measure
from tf_clip.export.kit.readme import readme
from tf_clip.export.kit.warm_up import WARM_UP, write_warm_up
from tf_clip.export.savedmodel.exported_model import ExportedModel
from tf_clip.files import write_text
from tf_clip.machine import usable_cores

MEASURED = ("encode_image", "encode_text")
"""The signatures whose times choose the batching: the others are made of these."""

MODEL_PARAMETERS = "batching_params.pbtxt"
SERVER_FOLDER = "serving"

_TEMPLATES = Path(__file__).parent / "templates"
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?")


@dataclasses.dataclass(frozen=True)
class ServingKit:
    """What was written.

    Args:
        folder: `path/serving`.
        files: all the files.
        batching: how the server batches.
        curves: from a signature to its timed batches.
        warm_up_requests: how many requests the server warms up with.
    """

    folder: Path
    files: tuple[Path, ...]
    batching: Batching
    curves: Mapping[str, Sequence[Timed]]
    warm_up_requests: int


def serving_kit(
    path: str | Path,
    *,
    name: str = "clip",
    version: int | None = None,
    max_batch_size: int | None = None,
    cores: int | None = None,
    seconds: float = 20.0,
    on_progress: Callable[[str], None] | None = None,
) -> ServingKit:
    """Writes what TensorFlow Serving needs beside an exported model.

    Into the version's folder: requests it warms up with, and its own batching parameters. Into `path/serving`:
    the server's configuration, a file for Docker Compose, and a README with the calls. The
    batching parameters are chosen from times measured here, so run it on a machine like the server's;
    `choose_batching` tells the rule.

    A server that already watches `path` may load the version before this is done. Write both elsewhere then,
    and move the version's folder in one step.

    Args:
        path: the model's folder, as `saved_model` was given it.
        name: the model's name on the server: letters, digits, `_` and `-`, at most 63.
        version: the version; None for the highest.
        max_batch_size: rows in a batch; None chooses from the times, up to 64.
        cores: the server's cores; None for as many as this machine lets this process use.
        seconds: about how long to measure.
        on_progress: called with what is about to be done, in a few words.

    Returns:
        What was written.

    Raises:
        FileNotFoundError: there is no such version.
        ImportError: tensorflow-serving-api is missing, which has the format of the requests.
        ValueError: an argument is out of range, or the model was not exported by tf_clip.
    """
    _require_arguments(name, max_batch_size, cores, seconds)
    tell = on_progress or (lambda what: None)
    tell("loading the model")
    exported = ExportedModel.open(path, version)
    curves = _curves(exported, max_batch_size or 64, seconds, tell)
    batching = choose_batching(curves, threads=cores or usable_cores(), max_batch_size=max_batch_size)
    tell("writing the requests it warms up with")
    requests = write_warm_up(exported, name, batching.allowed_batch_sizes)
    folder = Path(path) / SERVER_FOLDER
    texts = {exported.folder / MODEL_PARAMETERS: batching.as_model_text()}
    texts[folder / "batching.config"] = batching.as_server_text()
    values = {
        "name": name,
        "service": name.lower().replace("_", "-"),
        "version": str(exported.version),
        "next_version": str(exported.version + 1),
    }
    for template in sorted(_TEMPLATES.glob("*.*")):
        texts[folder / template.name] = Template(template.read_text(encoding="utf-8")).substitute(values)
    texts[folder / "README.md"] = readme(exported, name, batching, curves)
    for file, text in texts.items():
        write_text(file, text)
    files = (exported.folder / WARM_UP, *texts)
    return ServingKit(folder, files, batching, curves, requests)


def _curves(
    exported: ExportedModel, largest: int, seconds: float, tell: Callable[[str], None]
) -> dict[str, list[Timed]]:
    curves = {}
    for signature in MEASURED:
        specs = exported.inputs(signature)

        inputs = functools.cache(functools.partial(example_inputs, specs))

        def run(rows: int, signature: str = signature, inputs: Callable[[int], Any] = inputs) -> object:
            return exported.run(signature, inputs(rows))

        def on_size(size: int, signature: str = signature) -> None:
            tell(f"measuring {signature}, batches of {size}")

        sizes = batch_sizes_up_to(largest)
        curves[signature] = measure(run, sizes, seconds / len(MEASURED), on_size=on_size)
    return curves


def _require_arguments(name: str, max_batch_size: int | None, cores: int | None, seconds: float) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"`name` must be letters, digits, _ and - within, 63 at most. Received: name={name!r}. 'clip' is usual."
        )
    for argument, value in (("max_batch_size", max_batch_size), ("cores", cores)):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 4096):
            raise ValueError(
                f"`{argument}` must be a whole number from 1 to 4096, or None. Received: {argument}={value!r}. "
                "None chooses."
            )
    if not seconds > 0:
        raise ValueError(f"`seconds` must be above 0. Received: seconds={seconds!r}. Use 20 if unsure.")
