"""What is said about an image: captions in several wordings, and the vocabulary learned from them."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from typing import Any

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

TEMPLATES = ("an image of {}", "a drawing of {}", "an icon of {}", "an emoji of {}", "a photo of {}")
NAMING_TEMPLATES = ("{}", *TEMPLATES)
"""Wordings whose mean stands for a name in evaluation; the validation splits preferred it to the name alone."""

BOS, EOS = "<|startoftext|>", "<|endoftext|>"


def caption_variants(row: dict[str, Any], count: int, generator: random.Random) -> list[str]:
    """Returns `count` captions of an image: its name alone in half of them, else with or from its tags."""
    return [_caption(row["name"], list(row["tags"]), generator) for _ in range(count)]


def _caption(name: str, tags: Sequence[str], generator: random.Random) -> str:
    kind = generator.random()
    if kind < 0.15:
        return generator.choice(TEMPLATES).format(name)
    if kind < 0.45 and tags:
        return ", ".join([name, *generator.sample(tags, min(len(tags), generator.randint(1, 4)))])
    if kind < 0.6 and len(tags) >= 3:
        return ", ".join(generator.sample(tags, min(len(tags), generator.randint(3, 5))))
    return name


def learn_vocabulary(captions: Iterable[str], num_merges: int) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Learns a byte-pair encoding in CLIP's format.

    Args:
        captions: texts to learn from.
        num_merges: how many merges to learn.

    Returns:
        The vocabulary (512 byte symbols, one symbol a merge, then the two special tokens) and the
        merges, best first.
    """
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    words = Regex(r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(words, behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet(), key=lambda symbol: (ord(symbol) >= 256, symbol))
    trainer = trainers.BpeTrainer(
        vocab_size=num_merges + 1024,  # the trainer counts byte symbols too, not all of which it keeps
        initial_alphabet=alphabet,
        end_of_word_suffix="</w>",
        min_frequency=2,
        show_progress=False,
    )
    tokenizer.train_from_iterator(captions, trainer)
    learned = json.loads(tokenizer.to_str())["model"]["merges"]
    merges = [(left, right) for left, right in learned][:num_merges]
    symbols = [*alphabet, *(symbol + "</w>" for symbol in alphabet), *(left + right for left, right in merges)]
    vocabulary = {symbol: index for index, symbol in enumerate(dict.fromkeys([*symbols, BOS, EOS]))}
    return vocabulary, merges
