"""Prints how much memory loading a checkpoint takes above a bare process, in sizes of the checkpoint's weights.

python memory.py make FOLDER       saves a random ViT-L/14
python memory.py load PATH         loads it
"""

from __future__ import annotations

import math
import sys
import threading
import time
from pathlib import Path

from tf_clip import CLIPModel, known_models
from tf_clip.checkpoints.source import read_checkpoint


def resident() -> int:
    """Returns the bytes of this process that are in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def make(folder: str) -> None:
    (model,) = [model for model in known_models("OpenAI") if model.architecture == "ViT-L/14"]
    CLIPModel(model.config).save_pretrained(folder)


def load(path: str) -> None:
    small = {"num_hidden_layers": 1, "hidden_size": 64, "num_attention_heads": 1}
    CLIPModel({"text_config": small, "vision_config": small})  # starts the backend
    tensors = read_checkpoint(path).tensors.values()
    size = sum(math.prod(tensor.shape) * 4 for tensor in tensors)
    bare, highest, done = resident(), [0], threading.Event()

    def watch() -> None:
        while not done.is_set():
            highest[0] = max(highest[0], resident())
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    CLIPModel.from_pretrained(path)
    done.set()
    watcher.join()
    print((highest[0] - bare) / size)


if __name__ == "__main__":
    {"make": make, "load": load}[sys.argv[1]](sys.argv[2])
