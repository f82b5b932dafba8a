"""One library's side of the benchmark: reads the name of a piece of work, does it, answers with the seconds.

python preprocessing_worker.py LIBRARY FOLDER
"""

from __future__ import annotations

import functools
import io
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from preprocessing_inputs import IMAGES, NEW_WORD, SINGLE

Work = dict[str, tuple[Callable[[], Any], int]]
"""From a name to what to do, and how often in one measurement."""
FEW, SEVERAL, MANY = 1, 10, 300


def tf_clip(folder: Path) -> Work:
    """Takes lists, as its peers do, and strings through a traced function."""
    import tensorflow as tf

    from tf_clip import CLIPFeatureExtractorTF, CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(folder)
    signature = [tf.TensorSpec([None], tf.string)]
    tokenize = tf.function(lambda texts: tokenizer(texts)["input_ids"], input_signature=signature, autograph=False)
    empty = tf.function(lambda texts: texts, input_signature=signature, autograph=False)
    one, new = tf.constant([SINGLE]), tf.constant([NEW_WORD])
    texts = captions(folder)
    return {
        "10 000 captions in one call": (lambda: tokenizer(texts), FEW),
        "one caption": (lambda: tokenize(one), MANY),
        "one caption with a new word": (lambda: tokenize(new), MANY),
        "an empty traced call": (lambda: empty(one), MANY),
        **images(folder, CLIPFeatureExtractorTF(), lambda data: data),
    }


def tokenizers(folder: Path) -> Work:
    """Returns what Rust does, without the Python lists that transformers makes of it."""
    from tokenizers import Tokenizer

    tokenizer, texts = Tokenizer.from_file(str(folder / "tokenizer.json")), captions(folder)
    return {
        "10 000 captions in one call": (lambda: tokenizer.encode_batch_fast(texts), FEW),
        "one caption": (lambda: tokenizer.encode(SINGLE), MANY),
        "one caption with a new word": (lambda: tokenizer.encode(NEW_WORD), MANY),
    }


def transformers_pil(folder: Path) -> Work:
    """Returns the reference for pixels."""
    from transformers import CLIPImageProcessorPil

    return images(folder, functools.partial(CLIPImageProcessorPil(), return_tensors="np"), opened)


def transformers_torchvision(folder: Path) -> Work:
    """Returns transformers' faster processor, which differs from Pillow by single levels."""
    import torch

    # In a folder of its own, since it changes what transformers does elsewhere. Without a GPU's libraries it cannot
    # load its own operators; resizing is PyTorch's and needs none.
    sys.path.insert(0, str(Path(sys.prefix) / "torchvision"))
    torch.library.register_fake = lambda *_, **__: lambda function: function
    from transformers import CLIPImageProcessor

    processor = CLIPImageProcessor()
    assert type(processor).__name__ == "CLIPImageProcessor", type(processor)
    return images(folder, functools.partial(processor, return_tensors="pt"), opened)


def images(folder: Path, prepare: Callable[[list[Any]], Any], read: Callable[[bytes], Any]) -> Work:
    """Lists the work on images: decoded arrays, and files' bytes that `read` makes something of that is prepared."""
    works: Work = {}
    for height, width in IMAGES:
        arrays = list(np.load(folder / f"{height}.npy"))
        files = [(folder / f"{height}-{index}.jpg").read_bytes() for index in range(len(arrays))]
        # One call on small images would mostly measure how long threads take to wake up.
        calls = SEVERAL if height < 1000 else FEW
        works[f"decoded, {height} x {width}"] = (functools.partial(prepare, arrays), calls)
        works[f"from JPEG bytes, {height} x {width}"] = (
            lambda files=files: prepare([read(data) for data in files]),
            calls,
        )
    return works


def opened(data: bytes) -> Any:
    """Opens an image as transformers' users do."""
    from PIL import Image

    return Image.open(io.BytesIO(data))


def captions(folder: Path) -> list[str]:
    """Reads the captions."""
    return (folder / "captions.txt").read_text("utf-8").split("\n")


def main() -> None:
    """Answers until the input ends."""
    answers, sys.stdout = sys.stdout, sys.stderr
    libraries = (tf_clip, tokenizers, transformers_pil, transformers_torchvision)
    works = {function.__name__: function for function in libraries}[sys.argv[1]](Path(sys.argv[2]))
    print(json.dumps(list(works)), file=answers, flush=True)
    for line in sys.stdin:
        work, count = works[line.rstrip("\n")]
        start = time.perf_counter()
        for _ in range(count):
            work()
        print(json.dumps((time.perf_counter() - start) / count), file=answers, flush=True)


if __name__ == "__main__":
    main()
