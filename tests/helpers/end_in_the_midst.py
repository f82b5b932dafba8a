"""Ends `fit` after a batch, while others are being read: by stopping, or by an error that nobody handles.

python -m helpers.end_in_the_midst CHECKPOINT TABLE stop|raise
"""

from __future__ import annotations

import sys
import time
from typing import Any

import keras

from tf_clip import CLIPModel, CLIPProcessor, TrainingData, read_pairs
from tf_clip.training.recipes import full

checkpoint, table, ending = sys.argv[1:]
pairs = read_pairs(table)
read = pairs.read


def slowly(row: int) -> Any:
    time.sleep(0.2)
    return read(row)


class End(keras.callbacks.Callback):
    def on_train_batch_end(self, batch: Any, logs: Any = None) -> None:
        if ending == "raise":
            raise ArithmeticError("in the midst")
        self.model.stop_training = True


pairs.read = slowly  # type: ignore[method-assign]
data = TrainingData(pairs, CLIPProcessor.from_pretrained(checkpoint), batch_size=4, max_skipped_share=0.5)
model = CLIPModel.from_pretrained(checkpoint)
full().compile(model, steps=data.steps_per_epoch)
model.fit(data.dataset(), callbacks=[End()], verbose=0)
