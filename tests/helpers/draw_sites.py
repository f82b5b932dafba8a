"""Draws where each method stands in a layer, from where a model's adapters are found.

python tests/helpers/draw_sites.py docs/images/adapter_sites.svg
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from tf_clip import CLIPConfig, CLIPModel
from tf_clip.adapters.config import MATRICES
from tf_clip.adapters.named_configs import CONFIGS

# What a tower does from the bottom up; each with the parts whose sites are there.
STEPS = (
    ("tokens", ("prompts", "embeddings")),
    ("layer norm 1", ()),
    ("q_proj", ("q",)),
    ("k_proj", ("k",)),
    ("v_proj", ("v",)),
    ("attention", ("keys_values",)),
    ("out_proj", ("o",)),
    ("+ stream", ("attention",)),
    ("layer norm 2", ()),
    ("fc1", ("fc1",)),
    ("activation", ()),
    ("fc2", ("fc2",)),
    ("+ stream", ("mlp",)),
    ("next layer", ("block",)),
)
WIDTH, LEFT, STEP, BOX = 900, 24, 44, 150


def found() -> dict[str, list[str]]:
    """Returns the methods at each part, those that are there only if asked in brackets."""
    tower = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config={**tower, "vocab_size": 9, "eos_token_id": 8},
        vision_config={**tower, "image_size": 8, "patch_size": 4},
        projection_dim=8,
    )
    model = CLIPModel(config)
    at: dict[str, list[str]] = {}
    for name, chosen in CONFIGS.items():
        if name in ("mam", "unipelt"):  # unions of what is there already
            continue
        small = chosen.replace(reduction_factor=4) if name.startswith("compacter") else chosen
        usual = parts_of(model, small)
        everywhere = usual
        if name == "lora":
            wide = small.replace(attn_matrices=MATRICES, intermediate_lora=True, output_lora=True)
            everywhere = parts_of(model, wide)
        for part in everywhere:
            at.setdefault(part, []).append(name if part in usual else f"({name})")
    return at


def parts_of(model: CLIPModel, config: Any) -> set[str]:
    model.add_adapter("a", config)
    parts = {
        part.removeprefix("vision_").removeprefix("text_")
        for parts in model.adapters.get_adapter("a").values()
        for part in parts
    }
    model.delete_adapter("a")
    return parts - {"shared"}


def image(at: dict[str, list[str]]) -> str:
    """Returns the drawing."""
    height = STEP * len(STEPS) + 24
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        'font-family="sans-serif" font-size="13">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
    ]
    for number, (label, parts) in enumerate(STEPS):
        y = height - STEP * (number + 1)
        is_edge = label in ("tokens", "next layer")
        fill = "#eceff1" if is_edge else "#e3f2fd"
        lines.append(f'<rect x="{LEFT}" y="{y}" width="{BOX}" height="28" rx="5" fill="{fill}" stroke="#546e7a"/>')
        lines.append(f'<text x="{LEFT + BOX // 2}" y="{y + 19}" text-anchor="middle">{escape(label)}</text>')
        if number + 1 < len(STEPS):
            middle = LEFT + BOX // 2
            lines.append(f'<path d="M{middle} {y} v-16" stroke="#546e7a"/>')
        methods = [method for part in parts for method in at.get(part, [])]
        if methods:
            lines.append(f'<path d="M{LEFT + BOX} {y + 14} h26" stroke="#e65100" stroke-dasharray="3 2"/>')
            lines.append(f'<text x="{LEFT + BOX + 32}" y="{y + 19}" fill="#bf360c">{escape(", ".join(methods))}</text>')
    return "\n".join([*lines, "</svg>", ""])


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(image(found()), encoding="utf-8")
