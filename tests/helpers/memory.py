"""How much memory the losses and `fit` take, at once and in chunks; Linux says.

python -m helpers.memory losses|fit      prints by how many bytes the process grew in each, as JSON

In a process of its own, since TensorFlow keeps what it once had. What takes less therefore comes first.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from helpers import environment

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
ROWS = 4096


def peak_of(step: Callable[[], Any]) -> int:
    """Returns by how many bytes the process grew at most while `step` ran."""
    RESET.write_text("5")  # forgets the highest so far
    before = _bytes("VmRSS")
    step()
    return _bytes("VmHWM") - before


def _bytes(name: str) -> int:
    (line,) = [line for line in STATUS.read_text().splitlines() if line.startswith(name)]
    return int(line.split()[1]) * 1024


def measured(what: str) -> dict[str, int]:
    """Returns what this script prints, on this process's backend."""
    command = [sys.executable, "-m", "helpers.memory", what]
    result = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=300)
    assert result.returncode == 0, result.stderr[-4000:]
    return dict(json.loads(result.stdout))


def losses() -> dict[str, int]:
    from helpers.gradients import unit_rows, value_and_gradients
    from tf_clip import ContrastiveLoss, SigmoidLoss

    texts, images = unit_rows(0, ROWS, 8), unit_rows(1, ROWS, 8)

    def peak(loss: Any) -> Any:
        def step(count: int) -> None:
            value_and_gradients(lambda t, i: loss(t, i, 12.0, -3.0), texts[:count], images[:count])

        step(256)  # what a backend keeps for itself at first is no logits
        return peak_of(lambda: step(ROWS))

    cases = {"softmax in chunks": ContrastiveLoss(chunk_size=64), "sigmoid in chunks": SigmoidLoss(chunk_size=64)}
    return {name: peak(loss) for name, loss in {**cases, "at once": ContrastiveLoss()}.items()}


def fit() -> dict[str, int]:
    import keras
    import numpy as np

    from tf_clip import CLIPModel, ContrastiveLoss

    tower = {"num_hidden_layers": 2, "num_attention_heads": 2, "hidden_size": 32, "intermediate_size": 64}
    text = {**tower, "vocab_size": 40, "eos_token_id": 39}
    vision = {**tower, "image_size": 60, "patch_size": 5}  # 145 places: activations count more than pixels
    pairs = {
        "input_ids": np.full((512, 4), 39, "int32"),
        "pixel_values": np.random.default_rng(0).normal(size=(512, 60, 60, 3)).astype("float32"),
    }

    def peak(chunk_size: Any) -> Any:
        model = CLIPModel({"text_config": text, "vision_config": vision, "projection_dim": 16})
        model.compile(keras.optimizers.SGD(0.1), loss=ContrastiveLoss(chunk_size=16), encode_chunk_size=chunk_size)
        few = {name: value[:32] for name, value in pairs.items()}
        model.fit(few, batch_size=32, verbose=0)
        return peak_of(lambda: model.fit(pairs, batch_size=512, verbose=0))

    return {"in chunks": peak(16), "at once": peak(None)}


if __name__ == "__main__":
    print(json.dumps({"losses": losses, "fit": fit}[sys.argv[1]]()))
