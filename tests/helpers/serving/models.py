"""The models that are exported: (model, processor)."""

from __future__ import annotations

import gzip
import importlib.metadata
from typing import Any


def pictogram_clip() -> Any:
    """The shipped model and its processor."""
    from tf_clip import CLIPModel, CLIPProcessor

    return CLIPModel.from_pretrained("pictogram-clip"), CLIPProcessor.from_pretrained("pictogram-clip")


def vit_b_32() -> Any:
    """A random model of the most used size, and a processor with CLIP's own vocabulary."""
    from tf_clip import CLIPConfig, CLIPFeatureExtractorTF, CLIPModel, CLIPProcessor, CLIPTokenizer
    from tf_clip.preprocessing.text.byte_pair_encoding import byte_symbols

    files = importlib.metadata.files("open-clip-torch") or []
    (archive,) = [file.locate() for file in files if file.name == "bpe_simple_vocab_16e6.txt.gz"]
    with gzip.open(str(archive), "rt", encoding="utf-8") as file:
        merges = [(first, second) for first, second in map(str.split, file.read().split("\n")[1:48895])]
    symbols = byte_symbols()
    names = [*symbols, *(symbol + "</w>" for symbol in symbols), *map("".join, merges)]
    vocabulary = {name: index for index, name in enumerate([*names, "<|startoftext|>", "<|endoftext|>"])}
    processor = CLIPProcessor(CLIPFeatureExtractorTF(), CLIPTokenizer(vocabulary, merges))
    config = CLIPConfig(text_config={"eos_token_id": 49407, "bos_token_id": 49406}, vision_config={})
    return CLIPModel(config), processor
