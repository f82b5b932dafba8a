"""What the commands on images and texts do: gather the input, call the library, hand the result to a view."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_clip.checkpoints import hub
from tf_clip.checkpoints.source import read_checkpoint
from tf_clip.cli import html, tables
from tf_clip.cli.main import EXIT_DONE, EXIT_SOME_SKIPPED
from tf_clip.families.clip.config import CLIPResNetConfig
from tf_clip.models.two_towers import TwoTowerModel
from tf_clip.preprocessing.processor import Processor
from tf_clip.tasks.embedding import ImageEmbeddings, PairEncoder, embed_images, embed_texts
from tf_clip.tasks.zero_shot import class_embeddings, class_probabilities

if TYPE_CHECKING:
    from tf_clip.inference import CompiledModel

# From here on, rewriting the weights and tracing their graphs takes less time than it saves.
_MANY = 64
IMAGE_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


def classify(options: argparse.Namespace) -> int:
    """Chooses the best label for each image."""
    labels = labels_of(options)
    paths = image_paths(options.images)
    templates = options.template or ("{}",)
    processor, encoder = load_fast(options.model, len(paths) + len(labels) * len(templates))
    class_embeds = class_embeddings(encoder, processor, labels, templates)
    embedded = _embed(encoder, processor, paths, options)
    scale = float(encoder.logit_scale.numpy())
    probabilities = class_probabilities(embedded.embeds, class_embeds, scale)
    scored = [
        (paths[index], _ranked(labels, scores, options.top))
        for index, scores in zip(embedded.indices, probabilities, strict=True)
    ]
    if options.html:
        options.html.write_text(html.page(scored, options.model), encoding="utf-8")
    if options.json:
        rows = [{"image": str(path), "scores": scores} for path, scores in scored]
        tables.print_json({"model": options.model, "images": rows, "skipped": skipped_of(paths, embedded.failures)})
    else:
        tables.show_scores([(path.name, scores) for path, scores in scored], ("image", "label"))
        if options.html:
            tables.say(f"The page with the images: {options.html.resolve()}")
    return report(skipped_of(paths, embedded.failures))


def similarity(options: argparse.Namespace) -> int:
    """Ranks the images for each sentence, by cosine similarity."""
    texts = _texts(options)
    paths = image_paths(options.images)
    processor, encoder = load_fast(options.model, len(paths) + len(texts))
    text_embeds = embed_texts(encoder, processor, texts)
    embedded = _embed(encoder, processor, paths, options)
    names = [str(paths[index]) for index in embedded.indices]
    scored = [
        (text, _ranked(names, scores, options.top))
        for text, scores in zip(texts, text_embeds @ embedded.embeds.T, strict=True)
    ]
    if options.json:
        rows = [{"text": text, "scores": scores} for text, scores in scored]
        tables.print_json({"model": options.model, "texts": rows, "skipped": skipped_of(paths, embedded.failures)})
    else:
        groups = [(text, [(Path(name).name, score) for name, score in scores]) for text, scores in scored]
        tables.show_scores(groups, ("text", "image"))
    return report(skipped_of(paths, embedded.failures))


def embed(options: argparse.Namespace) -> int:
    """Writes embeddings of images, texts or both to an .npz file, or to a folder."""
    if options.output:
        from tf_clip.cli.embed_command import embed_to_folder

        return embed_to_folder(options)
    texts = _texts(options)
    if not options.images and not texts:
        raise ValueError("`IMAGE`, `--text` or `--texts-file` must be given. Received none. Name what to embed.")
    paths = image_paths(options.images)
    processor, encoder = load_fast(options.model, len(paths) + len(texts))
    embedded = _embed(encoder, processor, paths, options)
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    if paths:
        arrays["image_paths"] = np.array([str(paths[index]) for index in embedded.indices], dtype=np.str_)
        arrays["image_embeds"] = embedded.embeds
    if texts:
        arrays["texts"] = np.array(texts, dtype=np.str_)
        arrays["text_embeds"] = embed_texts(encoder, processor, texts)
    with options.out.open("wb") as file:  # a path without .npz stays as it was written
        np.savez(file, allow_pickle=False, **arrays)
    shapes = {name: list(array.shape) for name, array in arrays.items()}
    if options.json:
        tables.print_json(
            {
                "model": options.model,
                "out": str(options.out),
                "arrays": shapes,
                "skipped": skipped_of(paths, embedded.failures),
            }
        )
    else:
        tables.show_facts({str(options.out): ", ".join(f"{name} {shape}" for name, shape in shapes.items())})
    return report(skipped_of(paths, embedded.failures))


def load(name: str) -> tuple[TwoTowerModel, Processor]:
    """Loads a model and its processor."""
    with tables.status(f"Loading {name}"):
        return _read(hub.resolve(name))


def load_fast(name: str, count: int) -> tuple[Processor, PairEncoder]:
    """Loads a processor, and what encodes so many images and texts soonest.

    Few are done by the model itself, before graphs of it would be ready.
    """
    if count < _MANY:
        model, processor = load(name)
        return processor, model
    return load_compiled(name, hub.resolve(name))


def load_compiled(name: str, place: Path) -> tuple[Processor, CompiledModel]:
    """Loads a processor and a compiled model, called by a name, from where `hub.resolve` found it."""
    # Imported here: few images do without, and would wait for it.
    from tf_clip.inference import compile_for_inference

    with tables.status(f"Loading {name}"):
        _take_threads(place)
        model, processor = _read(place)
    with tables.status("Preparing the model"):
        # Not "auto": what it measures and compiles is longer than most commands take, and may change between runs.
        return processor, compile_for_inference(model, processor, engine="tensorflow", keep_model=False)


def _read(place: Path) -> tuple[TwoTowerModel, Processor]:
    return TwoTowerModel.from_pretrained(place), Processor.from_pretrained(place)


def _take_threads(place: Path) -> None:
    """Takes the process's threads for compiled towers, unless one is a ResNet or a program around has started them."""
    from tf_clip.inference import set_inference_threads

    described = read_checkpoint(place).config
    if described.get("vision_config", {}).get("model_type") != CLIPResNetConfig.model_type:
        with contextlib.suppress(RuntimeError):
            set_inference_threads()


def _embed(
    model: PairEncoder, processor: Processor, paths: Sequence[Path], options: argparse.Namespace
) -> ImageEmbeddings:
    with tables.progress("Reading images", len(paths)) as advance:
        return embed_images(model, processor, paths, batch_size=options.batch_size, skip_bad=True, on_progress=advance)


def image_paths(given: Sequence[Path]) -> list[Path]:
    """Replaces each folder by the images in it; files stay, whatever their name."""
    paths: list[Path] = []
    for path in given:
        if path.is_dir():
            inside = sorted(file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
            if not inside:
                raise ValueError(
                    f"`IMAGE` must be an image or a folder of them. Received: {path}, a folder without any."
                )
            paths += inside
        else:
            paths.append(path)
    return paths


def labels_of(options: argparse.Namespace) -> list[str]:
    """Returns the labels that were given by name or by file."""
    if options.labels_file:
        return lines(options.labels_file, "--labels-file")
    return [label.strip() for label in options.labels.split(",")] if options.labels.strip() else []


def _texts(options: argparse.Namespace) -> list[str]:
    from_file = lines(options.texts_file, "--texts-file") if options.texts_file else []
    return [*(options.text or []), *from_file]


def require_file(path: Path, option: str) -> None:
    """Checks that an option names a file that is there."""
    if not path.is_file():
        raise FileNotFoundError(f"`{option}` must be an existing file. Received: {path}. Check the path.")


def lines(path: Path, option: str) -> list[str]:
    """Returns the lines of a file that are not empty, stripped."""
    require_file(path, option)
    try:
        found = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"`{option}` must be a UTF-8 text file. Received: {path} ({error}). Convert it.") from error
    return [line.strip() for line in found if line.strip()]


def _ranked(names: Sequence[str], scores: np.ndarray[Any, Any], top: int) -> list[tuple[str, float]]:
    best = np.argsort(-scores, kind="stable")[:top]
    return [(names[index], float(scores[index])) for index in best]


def skipped_of(paths: Sequence[Path], failures: Mapping[int, str]) -> list[dict[str, str]]:
    """Returns the images that were left out, and why."""
    return [{"image": str(paths[index]), "reason": reason} for index, reason in failures.items()]


def report(skipped: Sequence[Mapping[str, str]]) -> int:
    """Warns of every image that was left out, and returns the exit code."""
    for one in skipped:
        tables.warn(f"skipped {one['image']}: {one['reason']}")
    return EXIT_SOME_SKIPPED if skipped else EXIT_DONE
