"""CLIP's tokenizer as Hugging Face builds it from the `tokenizers` library, and vocabularies to try it with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from tf_clip.preprocessing.text.byte_pair_encoding import byte_symbols

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
# As transformers' CLIPConverter has it.
_PATTERN = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def reference_tokenizer(vocab: Any, merges: Any, bos: Any = BOS, eos: Any = EOS, normalized: Any = ()) -> Any:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

    model = models.BPE(
        vocab=dict(vocab),
        merges=list(merges),
        end_of_word_suffix="</w>",
        continuing_subword_prefix="",
        unk_token=eos,
        fuse_unk=False,
    )
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_PATTERN), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    specials = sorted((bos, eos), key=vocab.__getitem__)
    tokenizer.add_special_tokens([AddedToken(one, normalized=one in normalized, special=True) for one in specials])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.RobertaProcessing((eos, vocab[eos]), (bos, vocab[bos]), False, False)
    return tokenizer


def vocabulary_of(merges: Any) -> Any:
    """Returns symbol -> id in CLIP's order: bytes, bytes that end a word, merges, start and end."""
    # Printable bytes stand for themselves, and come first.
    symbols = sorted(byte_symbols(), key=lambda symbol: (ord(symbol) >= 256, symbol))
    results = dict.fromkeys(left + right for left, right in merges)
    names = [*symbols, *(symbol + "</w>" for symbol in symbols), *results, BOS, EOS]
    return {name: index for index, name in enumerate(names)}


def learn_merges(text: str, count: int) -> Any:
    """Learns merges from the words of an ASCII text, the most frequent pair first."""
    words = Counter((*word[:-1], word[-1] + "</w>") for word in text.split())
    merges = []
    for _ in range(count):
        pairs: Counter[tuple[str, str]] = Counter()
        for word, frequency in words.items():
            for pair in pairwise(word):
                pairs[pair] += frequency
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        words = Counter({merge_pair(word, best): frequency for word, frequency in words.items()})
    return merges


def merge_pair(word: Sequence[str], pair: tuple[str, str]) -> tuple[str, ...]:
    """Joins each occurrence of a pair of neighbors, from the left."""
    merged: list[str] = []
    for symbol in word:
        if merged and (merged[-1], symbol) == pair:
            merged[-1] += symbol
        else:
            merged.append(symbol)
    return tuple(merged)
