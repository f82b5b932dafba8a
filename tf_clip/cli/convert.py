"""`tf-clip convert`: a checkpoint of any format in another, with its processor's files where it has them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tf_clip.cli.arguments import EXIT_DONE, add_weights_dtype, runs

if TYPE_CHECKING:
    from tf_clip.cli.arguments import Commands
    from tf_clip.preprocessing.images.image_processor import ImageProcessor

_NO_PREPROCESSING = "The source does not say how to prepare images: no preprocessor_config.json was written."
_NO_VOCABULARY = "The source has no vocabulary: no tokenizer was written. Copy vocab.json and merges.txt beside it."


def add(commands: Commands) -> None:
    """Adds the command's arguments."""
    parser = commands.add_parser("convert", help="write a checkpoint of any format in another")
    parser.add_argument("source", metavar="SRC", help="a shipped name, a folder, a file or a Hub id")
    parser.add_argument("target", metavar="DST", type=Path, help="a new or empty folder; for keras, a .keras file")
    parser.add_argument("--to", choices=("hf", "openclip", "keras"), required=True, help="the format to write")
    add_weights_dtype(parser)
    parser.add_argument("--max-shard-size", default="5GB", help="the size limit of one file, for hf (default: 5GB)")
    runs(parser, run)


def run(options: argparse.Namespace) -> int:
    """Writes a checkpoint of any format in another, with its processor's files where it has them."""
    target: Path = options.target
    if target.exists() and (target.is_file() or any(target.iterdir())):
        raise ValueError(f"`DST` must be new or an empty folder. Received: {target}. Choose another place.")
    if options.to == "keras" and target.suffix != ".keras":
        raise ValueError(f"`DST` must end in .keras for --to keras. Received: {target}. Add the ending.")
    if options.to == "keras" and options.dtype != "float32":
        raise ValueError(f"`--dtype` must be float32 for --to keras. Received: {options.dtype}. Leave it out.")
    from tf_clip.cli import tables
    from tf_clip.families.config import TwoTowerConfig
    from tf_clip.models.load import load_model, open_checkpoint, processor_class
    from tf_clip.models.pretrained import write_openclip

    with tables.status(f"Reading {options.source}"):
        checkpoint = open_checkpoint(options.source)
        path = checkpoint.folder
        parts = processor_class(checkpoint.config)
        model = load_model(checkpoint)
    with tables.status(f"Writing {target}"):
        if options.to == "keras":
            target.parent.mkdir(parents=True, exist_ok=True)
            model.save(target)
        elif options.to == "hf":
            model.save_pretrained(target, dtype=options.dtype, max_shard_size=options.max_shard_size)
            _copy(parts.image_processor_class, path, target, _NO_PREPROCESSING)
            _copy(parts.tokenizer_class, path, target, _NO_VOCABULARY)
        else:
            if not isinstance(model.config, TwoTowerConfig):
                raise ValueError(
                    f"`SRC` must be a whole CLIP model for --to openclip. Received: {path}. Take --to hf for a part."
                )
            write_openclip(
                model, target, preprocessing=_preprocessor_of(parts.image_processor_class, path), dtype=options.dtype
            )
            _copy(parts.tokenizer_class, path, target, _NO_VOCABULARY)
    tables.show_facts({str(target): f"{model.count_params():,} parameters as {options.to}, from {checkpoint.layout}"})
    return EXIT_DONE


def _copy(part: Any, source: Path, target: Path, missing: str) -> None:
    """Copies a processor's part; warns if the source has none."""
    from tf_clip.cli import tables

    try:
        part.from_folder(source).save_pretrained(target)
    except FileNotFoundError:
        tables.warn(missing)


def _preprocessor_of(images: type[ImageProcessor], source: Path) -> dict[str, Any] | None:
    from tf_clip.cli import tables

    try:
        return images.from_folder(source).to_dict()
    except FileNotFoundError:
        tables.warn("The source does not say how to prepare images: OpenAI's mean and standard deviation were written.")
        return None
