"""What the benchmark of mobile files found, as a page with a table and as numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kept import keep

BASE = "LiteRT float32"


def write_page(folder: Path, result: dict[str, Any]) -> None:
    """Writes `litert.json` and `litert.md` into a folder."""
    result = keep(folder / "litert.json", result)
    (folder / "litert.md").write_text(page(result), encoding="utf-8")


def page(result: dict[str, Any]) -> str:
    """Returns the page."""
    columns = [(threads, kind) for kind in ("image", "text") for threads in result["threads"]]
    heads = [f"{kind}, {threads} thread{'s' * (threads > 1)}" for threads, kind in columns]
    heads += [f"memory, {threads} thread{'s' * (threads > 1)}" for threads in result["threads"]]
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    rows = "\n".join(_row(name, result, columns) for name in result["engines"])
    return f"""# LiteRT and other engines on a CPU

Written by `make bench-litert` on {result["machine"]}, {versions}:
a random ViT-B/32, the same weights for all, one image and one caption of {result["caption_tokens"]} tokens
(“{result["caption"]}”) at a time.

Times and memory are ratios to {BASE}: **below 1 is faster, or smaller**. Each engine has a process of its own, which
is stopped while others are measured, and as many cores as threads; a time is the median of {result["rounds"]} rounds
in which all take turns, a spread is from the first to the third quarter of the round's own ratios. Memory is the most
that the process had at any time, loading included. `cosine` is the lower one of the two embeddings' with {BASE}'s.

| engine | {" | ".join(heads)} | cosine |
|---|{"---|" * (len(heads) + 1)}
{rows}

- LiteRT takes bytes and normalizes them, the others take pixels that were normalized before; the caption it takes at
  {result["text_length"]} tokens, the others at its own length.
- TensorFlow and XLA run this library's model, PyTorch runs transformers' (`sdpa`); ONNX Runtime and OpenVINO run the
  ONNX files that PyTorch writes of it, for these very shapes.
- A LiteRT file prepares its weights for each signature, here one for images and two for texts, with a third for
  images of any size: see [Memory](../mobile.md#which-recipe).
"""


def _row(name: str, result: dict[str, Any], columns: list[tuple[int, str]]) -> str:
    cells = []
    for threads, kind in columns:
        found = result["times"][str(threads)][name][kind]
        low, high = found["spread"]
        cells.append("1" if name == BASE else f"{found['ratio']:.2f} ({low:.2f} to {high:.2f})")
    for threads in result["threads"]:
        memory = result["memory"][str(threads)]
        cells.append(f"{memory[name] / memory[BASE]:.2f}" if name != BASE else "1")
    return f"| {name} | {' | '.join(cells)} | {result['cosines'][name]:.5f} |"
